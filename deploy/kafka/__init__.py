"""A real Apache Kafka on loopback with nothing installed but Python: runtime and jars come from package indexes."""
