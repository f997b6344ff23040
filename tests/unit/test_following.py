"""A store that follows its shard's blocks: how far it is, and how it finds its place on the log again."""

from collections.abc import Iterator

import pytest
from shard_net import ShardNet, leaves

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.errors import TaskDiverged
from pipeline.ledger.blocks import BlockHeader
from pipeline.log.port import EventLog
from pipeline.shards.consumed import CONSUMED
from pipeline.shards.leader import CURSOR, OUTPUTS
from pipeline.shards.life import TaskState
from pipeline.shards.recovery import PLACE, Following, Place, block_at, find_block, stored_place
from pipeline.state.store import StateStore

BLOCKS = TopicPartition(Topic.BLOCKS, 0)


class Counted:
    """A log whose reads are counted."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.reads = 0

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        self.reads += 1
        return self._log.read(source, start, max_records, max_bytes)

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)


@pytest.fixture(scope="module")
def net() -> Iterator[ShardNet]:
    """Some 40 blocks, with repeats: three recoveries have published a last block once more."""
    net = ShardNet(1)
    net.play(steps=10)
    for _ in range(3):
        net.tasks[0].revoke()
        net.tasks[0].assign()
        net.run()
        for step in range(8):
            net.pay_all(step)
            net.run()
    return net


def following(net: ShardNet, store: StateStore, log: object = None) -> Following:
    return Following(net.chain, ShardId(0), log or net.log, store, net.verifier)  # type: ignore[arg-type]


def followed(net: ShardNet) -> StateStore:
    store = net.store_for(0)
    follower = following(net, store)
    while follower.step():
        pass
    return store


def test_a_follower_comes_to_the_leaders_store_and_says_how_far_it_is(net: ShardNet) -> None:
    store, led = net.store_for(0), net.tasks[0]
    follower = following(net, store)
    end = led.committed.height
    assert end > 30
    assert follower.progress() == (-1, end)
    seen = [follower.committed.height]
    while follower.step():
        seen.append(follower.committed.height)
        assert follower.progress() == (seen[-1], end)
    assert seen == sorted(set(seen))
    assert len(seen) > 2
    assert (follower.committed, follower.blocked) == (led.committed, None)
    assert leaves(store) == leaves(led.store)
    assert store.meta(OUTPUTS) == led.store.meta(OUTPUTS)
    assert store.meta(CURSOR) == led.store.meta(CURSOR)
    assert store.meta(CONSUMED) == led.store.meta(CONSUMED) is not None


def test_progress_grows_with_a_log_that_grows(net: ShardNet) -> None:
    grown = ShardNet(1)
    grown.play(steps=1)
    follower = following(grown, grown.store_for(0))
    first = follower.progress()[1]
    grown.pay_all(1)
    grown.run()
    while follower.step():
        pass
    height, end = follower.progress()
    assert height == end == grown.tasks[0].committed.height > first


def test_a_store_that_followed_knows_its_place_and_need_not_search(net: ShardNet) -> None:
    store = followed(net)
    place = stored_place(store)
    assert place is not None
    assert place.height == net.tasks[0].committed.height
    assert BlockHeader.from_record(net.log.read(BLOCKS, place.offset, 1, 1)[0].value)[0].height == place.height
    log = Counted(net.log)
    assert following(net, store, log).place == place
    assert log.reads == 1 + len((Topic.CONTROL, Topic.TRANSACTIONS))  # its block, and the last records that it consumed
    log = Counted(net.log)
    store.commit(store.view().prepare({}), {PLACE: None})
    assert following(net, store, log).place.height == place.height
    assert log.reads > 3


@pytest.mark.parametrize("stale", [Place(0, 0), Place(10**6, 10**6), Place(5, 10**6)])
def test_a_place_that_is_wrong_is_only_a_hint(net: ShardNet, stale: Place) -> None:
    store = followed(net)
    right = stored_place(store)
    store.commit(store.view().prepare({}), {PLACE: stale.to_bytes()})
    assert following(net, store).place == right
    store.commit(store.view().prepare({}), {PLACE: b"?"})
    assert following(net, store).place == right


def test_every_block_is_found_from_every_later_one(net: ShardNet) -> None:
    first: dict[int, int] = {}
    hashes = {}
    for record in net.read(Topic.BLOCKS):
        header, hashed = BlockHeader.from_record(record.value)
        first.setdefault(header.height, record.offset)
        hashes[header.height] = hashed
    assert len(net.read(Topic.BLOCKS)) == len(first) + 3
    for height, offset in first.items():
        assert find_block(net.log, 0, height) == offset
        for later in (height, height + 1, height + 7, len(first) - 1):
            if later in first and later >= height:
                near = Place(later, first[later])
                assert find_block(net.log, 0, height, near) == offset
                assert block_at(net.log, 0, height, near) == hashes[height]
    log = Counted(net.log)
    last = len(first) - 1
    find_block(log, 0, last - 5, Place(last, first[last]))  # type: ignore[arg-type]
    assert log.reads <= 2
    with pytest.raises(TaskDiverged, match="which the log does not hold"):
        find_block(net.log, 0, len(first), Place(len(first), net.end(Topic.BLOCKS)))


def test_a_leader_takes_a_followers_store_over_and_publishes_its_last_block_again(net: ShardNet) -> None:
    store = followed(net)
    net.tasks[0].revoke()
    before = len(net.read(Topic.BLOCKS))
    task = net.task(store=store)
    assert task.catching_up() is None
    net.run(tasks=[task])
    assert task.state is TaskState.LEADING
    assert len(net.read(Topic.BLOCKS)) == before + 1
    task.revoke()
    net.tasks[0].assign()
    net.run()
    assert not net.audit().findings
