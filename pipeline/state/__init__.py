"""The state store: a materialised view of one shard, never ahead of the log."""
