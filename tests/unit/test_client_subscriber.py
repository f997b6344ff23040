"""A subscriber reads in bounded steps, keeps a bounded number of refusals, and loses no root."""

import pytest
from sync_net import Net

from pipeline.client.light import LightClient
from pipeline.client.subscriber import MAX_REFUSED, StateRootSubscriber
from pipeline.client.trust import Trust
from pipeline.codec.topics import LogRecord, TopicPartition
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import Retryable
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.checkpoints import Assurance
from pipeline.log.embedded import EmbeddedLog
from pipeline.testing.suite import TEST_SUITES


def played() -> Net:
    net = Net(shards=3)
    sync = net.synchronizer()
    names = [f"account-{number}" for number in range(9)]
    net.fund(dict.fromkeys(names, 1000))
    net.run(sync)
    net.pay(names[0], dict.fromkeys(names[1:], 7))
    net.run(sync)
    assert sync.error is None
    return net


NET = played()


def client() -> LightClient:
    return LightClient(Trust.of(NET.chain, Assurance.HEADERS), InlineVerifier(TEST_SUITES))


class JunkLog(EmbeddedLog):
    """`ends` records of junk in each partition; more of them with each read."""

    def __init__(self, ends: list[int]) -> None:
        super().__init__(MemoryKeyValue())
        self.ends = ends
        self.reads: list[int] = []

    def end_offset(self, source: TopicPartition) -> int:
        return self.ends[source.partition]

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        assert max_bytes > max_records
        self.reads.append(source.partition)
        self.ends[source.partition] += max_records
        return [LogRecord(offset, None, b"x") for offset in range(start, start + max_records)]


def test_a_poll_reads_a_page_of_each_partition() -> None:
    log = JunkLog([1000, 1000])
    subscriber = StateRootSubscriber(log, client(), range(2))
    for polls in (1, 2):
        assert subscriber.poll() == []
        assert log.reads == [0, 1] * polls


def test_catching_up_goes_in_turns_to_the_ends_of_now() -> None:
    log = JunkLog([600, 1000])
    subscriber = StateRootSubscriber(log, client(), range(2))
    assert subscriber.catch_up() == []
    assert log.reads == [0, 1, 0, 1, 0, 1, 1]
    assert all(subscriber.next_offsets[at] >= end for at, end in ((0, 600), (1, 1000)))


def test_what_is_refused_is_counted_and_kept_up_to_a_bound() -> None:
    subscriber = StateRootSubscriber(JunkLog([2000, 1]), client(), range(2))
    subscriber.catch_up()
    assert subscriber.refused_total == sum(subscriber.next_offsets.values()) > MAX_REFUSED
    assert len(subscriber.refused) == MAX_REFUSED
    assert (subscriber.refused[0].partition, subscriber.refused[0].offset) == (0, 0)
    subscriber.refused.clear()
    subscriber.poll()
    assert len(subscriber.refused) == 512, "there is room again"


def test_roots_behind_a_page_of_repeats_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.client.subscriber._PAGE", 1)
    seen = StateRootSubscriber(NET.log, client(), range(3)).catch_up()
    assert len(seen) == sum(len(NET.state_roots(shard)) for shard in range(3))
    subscriber = StateRootSubscriber(NET.log, client(), range(3))
    assert len(subscriber.poll()) == 3
    assert len(subscriber.catch_up()) == len(seen) - 3
    assert subscriber.catch_up() == []


def test_a_failing_read_loses_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    subscriber = StateRootSubscriber(NET.log, client(), range(3))
    plain = EmbeddedLog.read

    def read(self: EmbeddedLog, source: TopicPartition, *bounds: int) -> list[LogRecord]:
        if source.partition == 1:
            raise Retryable("no answer")
        return plain(self, source, *bounds)

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedLog, "read", read)
        with pytest.raises(Retryable):
            subscriber.poll()
    assert {root.state_root.shard for root in subscriber.poll()} == {0, 1, 2}
