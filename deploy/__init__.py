"""How the pipeline is run: a native Kafka for development and tests, images, security scripts."""
