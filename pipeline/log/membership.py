"""What passes between a worker and its place in the group of workers, whoever keeps that."""

from collections.abc import Callable, Mapping
from heapq import nsmallest

from pipeline.codec.types import ShardId

Revoked = Callable[[frozenset[ShardId], bool], None]
"""Told of shards that go; True where they are lost already, so that nothing may be finished any more."""

Members = Mapping[str, frozenset[ShardId]]
"""The partitions of each member, idle ones included."""


def inherits(member: str, members: Members, copies: int) -> frozenset[ShardId]:
    """The shards of others of which `member` is to keep a copy, where each shard has `copies` of them.

    The first copy is kept by whoever would be assigned the shard if its owner went: librdkafka's cooperative-sticky
    assignor leaves what others have where it is, and gives what is left, in descending order, to the member with the
    fewest partitions, of several such to the first by id. Further copies are kept by the next ones in that order. Where
    a group assigns otherwise, a copy stands in the wrong place, and nothing worse.
    """
    found: set[ShardId] = set()
    for owner, owned in members.items():
        if owner == member:
            continue
        load = {other: len(shards) for other, shards in members.items() if other != owner}
        for shard in sorted(owned, reverse=True):
            ranked = nsmallest(max(copies, 1), load, key=lambda other: (load[other], other))
            if member in ranked[:copies]:
                found.add(shard)
            if ranked:
                load[ranked[0]] += 1
    return frozenset(found)
