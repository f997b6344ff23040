"""What producers and subscribers import: producer, state-root subscriber, light client."""
