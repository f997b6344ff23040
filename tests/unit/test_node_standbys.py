"""Copies that workers keep of shards that others lead, and what is told of stores that catch up."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from node_bed import BOTH, Bed, leads

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.config import Config, ShardConfig
from pipeline.errors import LogStalled, Retryable
from pipeline.log.port import Append
from pipeline.log.records import encode_record, record_key
from pipeline.shards.life import TaskState


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path)
    yield bed
    bed.log.close()


def test_a_standby_follows_and_its_open_store_becomes_the_leaders(bed: Bed) -> None:
    heard: list[str] = []
    one, first = bed.worker("one", BOTH)
    two, second = bed.worker("two", frozenset(), heard)
    second.inherits = BOTH | {ShardId(2)}  # 2 is idle
    ends = [bed.log.end_offset(TopicPartition(Topic.BLOCKS, shard)) for shard in BOTH]
    bed.drive(lambda: leads(one, 0, 1) and two.standbys.warm == BOTH, one, two)
    bed.now_ms += bed.chain.genesis.heartbeat_ms
    height = one.tasks[ShardId(0)].committed.height + 1
    bed.drive(lambda: f"0 follows {height}" in heard, one, two)
    assert not two.tasks
    # The leader's second block is the last that was written: a standby writes nothing.
    written = [bed.log.end_offset(TopicPartition(Topic.BLOCKS, shard)) for shard in BOTH]
    assert written > ends
    bed.now_ms += 50
    two.step(bed.now_ms)
    assert [bed.log.end_offset(TopicPartition(Topic.BLOCKS, shard)) for shard in BOTH] == written

    kept = two.standbys._copies[ShardId(0)].store
    committed = one.tasks[ShardId(0)].committed
    first.give(frozenset({ShardId(1)}))
    second.give(frozenset({ShardId(0)}))
    one.step(bed.now_ms)
    bed.drive(lambda: leads(two, 0), two)
    task = two.tasks[ShardId(0)]
    assert task.store is kept
    assert task.committed == committed
    assert "0 gone" in heard
    assert two.standbys.warm == {ShardId(1)}

    # After a revocation the shard is followed again.
    first.inherits, second.inherits = frozenset(), BOTH
    second.give(frozenset())
    first.give(BOTH)
    bed.drive(lambda: leads(one, 0, 1) and two.standbys.warm == BOTH, two, one)
    second.inherits = frozenset()
    two.step(bed.now_ms)
    assert two.standbys.warm == frozenset()
    assert heard[-2:] == ["0 gone", "1 gone"] or heard[-2:] == ["1 gone", "0 gone"]
    for worker in (one, two):
        worker.close()


def test_a_copy_that_diverges_is_left_alone_and_harms_nobody(bed: Bed) -> None:
    heard: list[str] = []
    one, _ = bed.worker("one", BOTH)
    bed.drive(lambda: leads(one, 0, 1) and one.tasks[ShardId(0)].committed.height >= 0, one)
    one.close()
    two, second = bed.worker("two", frozenset({ShardId(1)}), heard)
    bed.log.append([Append(TopicPartition(Topic.BLOCKS, 0), None, b"no block")])
    second.inherits = frozenset({ShardId(0)})
    bed.drive(lambda: any("failed" in text for text in heard), two)
    assert "undecodable" in heard[-1] or "written by workers only" in heard[-1]
    for _ in range(50):
        bed.now_ms += 100
        two.step(bed.now_ms)
    assert sum("failed" in text for text in heard) == 1
    assert leads(two, 1)
    second.give(frozenset({ShardId(0), ShardId(1)}))
    bed.drive(lambda: two.tasks.get(ShardId(0)) is not None and two.tasks[ShardId(0)].state is TaskState.HALTED, two)
    assert leads(two, 1)
    two.close()


def test_a_copy_does_not_go_on_upon_inputs_that_were_made_again(bed: Bed) -> None:
    source = TopicPartition(Topic.TRANSACTIONS, 0)
    bed.log.append([Append(source, None, b"no transaction")])
    heard: list[str] = []
    one, _ = bed.worker("one", BOTH)
    two, second = bed.worker("two", frozenset(), heard)
    second.inherits = BOTH
    bed.drive(lambda: two.standbys.warm == BOTH and one.tasks[ShardId(0)].committed.positions[2] == 1, one, two)
    bed.drive(lambda: f"0 follows {one.tasks[ShardId(0)].committed.height}" in heard, one, two)
    for worker in (one, two):
        worker.close()
    place = record_key(source, 0)
    bed.disk.write({place: encode_record(place, None, b"of another history")}, sync=True)
    heard.clear()
    two, second = bed.worker("two", frozenset(), heard)
    second.inherits = BOTH
    bed.drive(lambda: any("failed" in text for text in heard) and two.standbys.warm == {ShardId(1)}, two)
    assert any(
        "0 failed: shard 0 height" in text and "does not hold the record that was consumed" in text for text in heard
    )
    second.give(BOTH)
    bed.drive(lambda: leads(two, 1) and two.tasks[ShardId(0)].state is TaskState.HALTED, two)
    two.close()


def unsettled(bed: Bed, monkeypatch: pytest.MonkeyPatch, error: Retryable) -> Callable[[], None]:
    """Blocks of shard 0 can't be settled until the returned function is called."""
    settle, errors = bed.log.settle, [error]

    def settled(source: TopicPartition) -> None:
        if errors and source == TopicPartition(Topic.BLOCKS, 0):
            raise errors[0]
        settle(source)

    monkeypatch.setattr(bed.log, "settle", settled)
    return errors.clear


def test_copies_go_on_while_a_shard_that_came_can_not_be_recovered(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    one, first = bed.worker("one", BOTH)
    two, second = bed.worker("two", frozenset())
    bed.drive(lambda: leads(one, 0, 1), one)
    mend = unsettled(bed, monkeypatch, Retryable("no answer"))
    first.give(frozenset({ShardId(1)}))
    second.give(frozenset({ShardId(0)}))
    second.inherits = frozenset({ShardId(1)})
    bed.drive(lambda: two.standbys.warm == {ShardId(1)}, one, two)
    assert leads(one, 1)
    assert leads(two)
    mend()
    bed.drive(lambda: leads(two, 0), one, two)
    for worker in (one, two):
        worker.close()


def test_a_copy_behind_an_open_transaction_is_not_given_up(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    one, _ = bed.worker("one", BOTH)
    two, second = bed.worker("two", frozenset(), heard)
    second.inherits = BOTH
    bed.drive(lambda: leads(one, 0, 1), one)
    end = unsettled(bed, monkeypatch, LogStalled("hides everything"))
    bed.drive(lambda: two.standbys.warm == {ShardId(1)}, one, two)
    end()
    bed.drive(lambda: two.standbys.warm == BOTH, one, two)
    assert not [line for line in heard if "failed" in line]
    for worker in (one, two):
        worker.close()


def test_no_copies_are_kept_where_none_are_wanted(bed: Bed) -> None:
    heard: list[str] = []
    one, _ = bed.worker("one", BOTH)
    config = Config(shard=ShardConfig(standby_copies=0))
    two, second = bed.worker("two", frozenset(), heard, config)
    second.inherits = BOTH
    bed.drive(lambda: leads(one, 0, 1), one, two)
    assert heard == []
    assert not (bed.root / "two" / "shards").exists()
    one.close()
    two.close()


def test_a_copy_that_is_far_behind_says_how_far(bed: Bed) -> None:
    heard: list[str] = []
    one, _ = bed.worker("one", BOTH)
    for height in range(60):
        bed.drive(lambda at=height: leads(one, 0, 1) and one.tasks[ShardId(0)].committed.height >= at, one)  # type: ignore[misc]
        bed.now_ms += bed.chain.genesis.heartbeat_ms
    two, second = bed.worker("two", frozenset(), heard)
    second.inherits = frozenset({ShardId(0)})
    for _ in range(50):
        bed.now_ms += 600
        two.step(bed.now_ms)
    end = one.tasks[ShardId(0)].committed.height
    assert [text for text in heard if text.startswith("0 at ") and text.endswith(f"of {end}")]
    assert heard[-1] == f"0 follows {end}"
    one.close()
    two.close()


def test_a_copy_that_lacks_the_inputs_of_a_block_is_not_warm_until_it_has_them(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, heard = TopicPartition(Topic.TRANSACTIONS, 0), list[str]()
    one, _ = bed.worker("one", BOTH)
    two, second = bed.worker("two", frozenset(), heard)
    second.inherits = BOTH
    bed.drive(lambda: two.standbys.warm == BOTH and {"0 follows 0", "1 follows 0"} <= set(heard), one, two)
    bed.log.append([Append(source, None, b"no transaction")])
    bed.drive(lambda: one.tasks[ShardId(0)].committed.positions[2] == 1, one)
    height = one.tasks[ShardId(0)].committed.height
    one.close()
    read, end_offset = bed.log.read, bed.log.end_offset
    with monkeypatch.context() as patch:
        patch.setattr(bed.log, "read", lambda place, *where: [] if place == source else read(place, *where))
        patch.setattr(bed.log, "end_offset", lambda place: 0 if place == source else end_offset(place))
        heard.clear()
        for _ in range(9):
            two.step(bed.now_ms)
            assert two.standbys.warm == BOTH  # it may have them in a moment
            bed.now_ms += 100
        bed.now_ms -= 3_600_000  # a clock that is set back keeps nobody waiting
        for _ in range(21):
            two.step(bed.now_ms)
            bed.now_ms += 100
        assert two.standbys.warm == {ShardId(1)}
        assert heard == [f"0 at {height - 1} of {height}"] * 2
    heard.clear()
    bed.drive(lambda: two.standbys.warm == BOTH, two)
    assert heard == [f"0 follows {height}"]
    two.close()


def test_a_shard_that_recovers_for_long_says_how_far_it_is(bed: Bed) -> None:
    one, _ = bed.worker("one", BOTH)
    for height in range(60):
        bed.drive(lambda at=height: leads(one, 0, 1) and one.tasks[ShardId(0)].committed.height >= at, one)  # type: ignore[misc]
        bed.now_ms += bed.chain.genesis.heartbeat_ms
    end = one.tasks[ShardId(0)].committed.height
    one.close()
    two, _ = bed.worker("two", frozenset({ShardId(0)}))
    for _ in range(50):
        bed.now_ms += 600
        two.step(bed.now_ms)
    told = [text for text in bed.said if "catching up" in text]
    assert told
    assert all(text.endswith(f" of {end}") for text in told)
    assert leads(two, 0)
    two.close()
