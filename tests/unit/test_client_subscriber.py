"""A subscriber reads in bounded steps, keeps a bounded number of refusals, and loses no root."""

from dataclasses import replace

import pytest
from sync_net import Net

from pipeline.client.light import LightClient
from pipeline.client.subscriber import MAX_REFUSED, StateRootSubscriber, starts_of
from pipeline.client.trust import Trust
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import Retryable
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.checkpoints import Assurance, Checkpoint, SignedStateRoot
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
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


@pytest.mark.parametrize("page", [1, 2, 256])
def test_roots_by_round_come_page_by_page(monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr("pipeline.client.subscriber._PAGE", page)
    everything = StateRootSubscriber(NET.log, client(), range(3)).catch_up()
    subscriber = StateRootSubscriber(NET.log, client(), range(3))
    groups, most_held = [], 0
    for group in subscriber.by_round():
        groups += group
        most_held = max(most_held, len(subscriber._found))
    assert groups == sorted(everything, key=lambda root: (root.checkpoint.round, root.state_root.shard))
    assert most_held <= 3 * page < len(everything) or page == 256
    assert not any(subscriber.by_round())


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


class NumberedLog(EmbeddedLog):
    """One partition of unsigned roots: the i-th record is of round `rounds[i]`; None: junk. Counts what is read."""

    def __init__(self, rounds: list[int | None]) -> None:
        super().__init__(MemoryKeyValue())
        self.create_topic(Topic.STATE_ROOTS, 1)
        self.reads = 0
        source = TopicPartition(Topic.STATE_ROOTS, 0)
        for number in rounds:
            self.append([Append(source, None, b"junk" if number is None else numbered(number))])

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        self.reads += 1
        return super().read(source, start, max_records, max_bytes)


def numbered(number: int) -> bytes:
    (record,) = NET.read(Topic.STATE_ROOTS, 0)[:1]
    signed = SignedStateRoot.from_record(record.value)
    checkpoint = replace(Checkpoint.from_bytes(signed.checkpoint), round=number)
    return replace(signed, checkpoint=checkpoint.to_bytes()).to_record()


@pytest.mark.parametrize("junk", [0, 3])
def test_the_start_of_a_round_is_found_with_few_looks(junk: int) -> None:
    rounds: list[int | None] = []
    for number in range(0, 3000, 2):
        rounds += [number, *[None] * junk][: 1 + junk * (number % 3 == 0)]
    log = NumberedLog(rounds)
    for wanted in (0, 1, 2, 777, 1500, 2998, 2999, 10**6):
        log.reads = 0
        start = starts_of(log, [0], wanted)[0]
        first = next((at for at, number in enumerate(rounds) if number is not None and number >= wanted), len(rounds))
        assert start <= first <= start + 256
        assert log.reads <= 8 * (1 + junk)


def test_earlier_rounds_are_passed_over_and_not_verified() -> None:
    everything = StateRootSubscriber(NET.log, client(), range(3)).catch_up()
    newest = max(root.checkpoint.round for root in everything)
    late = StateRootSubscriber(NET.log, client(), range(3), from_round=newest)
    assert late.catch_up() == [root for root in everything if root.checkpoint.round == newest]
    junk = NumberedLog([1, 2, 3])
    unsigned = StateRootSubscriber(junk, client(), [0], from_round=3)
    assert unsigned.catch_up() == []
    assert [refused.offset for refused in unsigned.refused] == [2]
