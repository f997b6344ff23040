"""What passes between a worker and its place in the group of workers, whoever keeps that."""

from collections.abc import Callable

from pipeline.codec.types import ShardId

Revoked = Callable[[frozenset[ShardId], bool], None]
"""Told of shards that go; True where they are lost already, so that nothing may be finished any more."""
