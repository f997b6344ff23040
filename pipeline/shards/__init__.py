"""A shard's life: leader, follower, manager, cross-shard communication."""
