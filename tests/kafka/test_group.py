"""The group of workers on a real broker: who owns which shard, and who can prove it."""

import time
from collections.abc import Callable
from uuid import uuid4

import pytest

from pipeline.codec.topics import Topic
from pipeline.codec.types import ShardId
from pipeline.config import KafkaConfig
from pipeline.log.kafka import KafkaLog
from pipeline.log.kafka.group import ShardGroup

pytestmark = pytest.mark.kafka

SHARDS = frozenset(ShardId(number) for number in range(4))


def settle(condition: Callable[[], bool], *groups: ShardGroup) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        for group in groups:
            group.poll()
        time.sleep(0.01)


def test_shards_move_whole_and_only_their_owner_proves_them(bootstrap: str) -> None:
    config, prefix = KafkaConfig(bootstrap=bootstrap), f"t-{uuid4().hex[:12]}"
    log = KafkaLog(config, prefix)
    log.create_topic(Topic.TRANSACTIONS, len(SHARDS))
    gone: list[tuple[frozenset[ShardId], bool]] = []
    first = ShardGroup(config, prefix, lambda shards, lost: gone.append((shards, lost)))
    try:
        settle(lambda: first.shards == SHARDS, first)
        assert all(first.owns(shard) for shard in SHARDS)
        assert not first.owns(ShardId(7))
    except BaseException:
        first.close()
        raise
    second = ShardGroup(config, prefix, lambda shards, lost: None)
    try:
        settle(lambda: len(second.shards) == 2, first, second)
        assert first.shards | second.shards == SHARDS
        assert gone == [(second.shards, False)]
        for shard in SHARDS:
            assert first.owns(shard) is (shard in first.shards)
            assert second.owns(shard) is (shard in second.shards)
        first.report(dict.fromkeys(SHARDS, 5))
        assert all(first.owns(shard) for shard in first.shards)
        second.close()
        settle(lambda: first.shards == SHARDS, first)
        assert all(first.owns(shard) for shard in SHARDS)
    finally:
        first.close()
        second.close()
        log.close()


def test_a_member_that_left_proves_nothing(bootstrap: str) -> None:
    config, prefix = KafkaConfig(bootstrap=bootstrap), f"t-{uuid4().hex[:12]}"
    log = KafkaLog(config, prefix)
    log.create_topic(Topic.TRANSACTIONS, len(SHARDS))
    gone: list[tuple[frozenset[ShardId], bool]] = []
    group = ShardGroup(config, prefix, lambda shards, lost: gone.append((shards, lost)))
    try:
        settle(lambda: group.shards == SHARDS, group)
        group.close()
        assert gone == [(SHARDS, False)]
        assert group.shards == frozenset()
        assert not any(group.owns(shard) for shard in SHARDS)
    finally:
        group.close()
        log.close()


def test_copies_are_kept_by_whoever_inherits(bootstrap: str) -> None:
    """The foresight of `inherits` is that of the client's assignor."""
    config, prefix = KafkaConfig(bootstrap=bootstrap), f"t-{uuid4().hex[:12]}"
    log = KafkaLog(config, prefix)
    partitions = 11
    log.create_topic(Topic.TRANSACTIONS, partitions)
    groups = [ShardGroup(config, prefix, lambda shards, lost: None) for _ in range(4)]

    def settled() -> bool:
        sizes = [len(group.shards) for group in groups]
        return sum(sizes) == partitions and max(sizes) - min(sizes) <= 1

    def known() -> bool:
        # Each shard is copied by one member, and by none that owns it: all have seen the same group.
        copies = [group.copies(1) for group in groups]
        return settled() and sorted(shard for held in copies for shard in held) == list(range(partitions))

    try:
        settle(known, *groups)
        leaver = max(groups, key=lambda group: len(group.shards))
        groups.remove(leaver)
        lost = leaver.shards
        heirs = {shard: group for group in groups for shard in group.copies(1) & lost}
        assert heirs.keys() == lost
        leaver.close()
        settle(settled, *groups)
        assert all(shard in heir.shards for shard, heir in heirs.items())
        assert all(len(group.copies(0)) == 0 for group in groups)
    finally:
        for group in groups:
            group.close()
        log.close()
