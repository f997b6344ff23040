"""Leaf formats: hashes, identifiers, Avro datums and their framing."""
