"""What every event log must do. Subclass, and say how a log is made and opened again.

Nothing here assumes contiguous offsets, immediate visibility or a commit that is done when it was begun, so that
the same tests hold for a log in this process and for a cluster.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from pipeline.errors import ConfigError, Fatal, OutcomeUnknown, TaskDiverged, TaskFenced
from pipeline.log.port import (
    Append,
    Committed,
    EventLog,
    LogRecord,
    Topic,
    TopicPartition,
    TransactionalWriter,
)

DEADLINE_S = 30.0
A0 = TopicPartition(Topic.TRANSACTIONS, 0)
A1 = TopicPartition(Topic.TRANSACTIONS, 1)
B0 = TopicPartition(Topic.BLOCKS, 0)
B1 = TopicPartition(Topic.BLOCKS, 1)
PARTITIONS = 2


def commit(writer: TransactionalWriter, appends: Sequence[Append]) -> Committed:
    """A whole transaction, waited for."""
    writer.begin_commit(appends)
    return poll_to_the_end(writer)


def poll_to_the_end(writer: TransactionalWriter) -> Committed:
    deadline = time.monotonic() + DEADLINE_S
    while (done := writer.poll_commit()) is None:
        assert time.monotonic() < deadline, "the commit never ended"
        time.sleep(0.001)
    return done


def read_all(log: EventLog, source: TopicPartition, at_least: int = 0, page: int = 1000) -> list[LogRecord]:
    """Everything, in pages; waits until there are `at_least` records."""
    deadline = time.monotonic() + DEADLINE_S
    records: list[LogRecord] = []
    while True:
        start = records[-1].offset + 1 if records else 0
        got = log.read(source, start, page, 1 << 20)
        assert all(record.offset >= start for record in got)
        records += got
        if not got:
            if len(records) >= at_least:
                return records
            assert time.monotonic() < deadline, f"only {len(records)} of {at_least} records appeared"
            log.wait(10)


def values(log: EventLog, source: TopicPartition, at_least: int = 0) -> list[bytes | None]:
    return [record.value for record in read_all(log, source, at_least)]


class LogContract(ABC):
    oversize = (1 << 20) + 1
    """Bytes of a value that the log refuses."""

    @abstractmethod
    def make_log(self) -> EventLog:
        """An empty log of its own."""

    @abstractmethod
    def reopen(self, log: EventLog) -> EventLog:
        """Close `log` and open the same one again."""

    @pytest.fixture
    def log(self) -> Iterator[EventLog]:
        log = self.make_log()
        log.create_topic(Topic.TRANSACTIONS, PARTITIONS)
        log.create_topic(Topic.BLOCKS, PARTITIONS)
        yield log
        log.close()

    def test_is_an_event_log(self, log: EventLog) -> None:
        assert isinstance(log, EventLog)
        assert isinstance(log.writer("w"), TransactionalWriter)

    def test_create_topic_twice_and_otherwise(self, log: EventLog) -> None:
        log.create_topic(Topic.BLOCKS, PARTITIONS)
        with pytest.raises(ConfigError, match="blocks"):
            log.create_topic(Topic.BLOCKS, PARTITIONS + 1)
        with pytest.raises(ConfigError, match="0 partitions"):
            log.create_topic(Topic.RELAY, 0)
        assert log.partitions(Topic.BLOCKS) == PARTITIONS
        assert log.partitions(Topic.RELAY) == 0

    @pytest.mark.parametrize("source", [TopicPartition(Topic.RELAY, 0), TopicPartition(Topic.BLOCKS, PARTITIONS)])
    def test_unknown_partition(self, log: EventLog, source: TopicPartition) -> None:
        with pytest.raises(ConfigError, match=source.topic.topic_name):
            log.read(source, 0, 1, 1)
        with pytest.raises(ConfigError, match=source.topic.topic_name):
            log.end_offset(source)
        with pytest.raises(ConfigError, match=source.topic.topic_name):
            log.append([Append(A0, None, b"x"), Append(source, None, b"x")])
        with pytest.raises(ConfigError, match=source.topic.topic_name):
            commit(log.writer("w"), [Append(A0, None, b"x"), Append(source, None, b"x")])
        commit(log.writer("w"), [Append(A0, None, b"after")])
        assert values(log, A0, 1) == [b"after"]

    def test_empty_partition(self, log: EventLog) -> None:
        assert log.end_offset(A0) == 0
        assert log.read(A0, 0, 10, 1000) == []

    def test_appends_keep_order_keys_and_nulls(self, log: EventLog) -> None:
        pairs = [
            (b"k", b"v"),
            (None, b"v"),
            (b"k", None),
            (None, None),
            (b"", b""),
            (None, b""),
            (b"\x00" * 40, b"\xff"),
        ]
        offsets = log.append([Append(A0, key, value) for key, value in pairs])
        assert offsets == sorted(set(offsets))
        records = read_all(log, A0, len(pairs))
        assert [(r.key, r.value) for r in records] == pairs
        assert [r.offset for r in records] == offsets
        assert log.end_offset(A0) > offsets[-1]
        assert log.append([]) == []

    def test_a_transaction_is_visible_in_every_partition_in_order(self, log: EventLog) -> None:
        writer = log.writer("w")
        appends = [Append((A0, B1, A1)[i % 3], b"%d" % i, b"v%d" % i) for i in range(30)]
        done = commit(writer, appends)
        assert len(done.offsets) == len(appends)
        for source in (A0, A1, B1):
            mine = [(a, o) for a, o in zip(appends, done.offsets, strict=True) if a.target == source]
            records = read_all(log, source, len(mine))
            assert [(r.key, r.value) for r in records] == [(a.key, a.value) for a, _ in mine]
            assert all(o in (None, r.offset) for (_, o), r in zip(mine, records, strict=True))
        assert read_all(log, B0) == []

    def test_every_transaction_leaves_a_hole(self, log: EventLog) -> None:
        writer = log.writer("w")
        for i in range(3):
            commit(writer, [Append(A0, None, b"%d" % i)])
        log.append([Append(A0, None, b"producer")])
        records = read_all(log, A0, 4)
        assert [r.value for r in records] == [b"0", b"1", b"2", b"producer"]
        steps = [b.offset - a.offset for a, b in pairwise(records)]
        assert min(steps) > 1
        assert list(log.read_uncommitted(A0, 0)) == records
        assert list(log.read_uncommitted(A0, records[1].offset)) == records[1:]
        # Reading from inside a hole gives what follows it; from the end, nothing.
        assert log.read(A0, records[0].offset + 1, 1, 1000) == [records[1]]
        assert log.read(A0, log.end_offset(A0), 1, 1000) == []

    def test_empty_transaction(self, log: EventLog) -> None:
        writer = log.writer("w")
        assert commit(writer, []).offsets == ()
        commit(writer, [Append(A0, None, b"x")])
        assert values(log, A0, 1) == [b"x"]

    def test_limits_of_a_read(self, log: EventLog) -> None:
        log.append([Append(A0, None, bytes([i]) * 1000) for i in range(50)])
        records = read_all(log, A0, 50)
        assert log.read(A0, 0, 7, 1 << 20) == records[:7]
        assert log.read(A0, 0, 1, 1 << 20) == records[:1]
        assert log.read(A0, 0, 50, 1) == records[:1]
        few = log.read(A0, 0, 50, 3500)
        assert 1 <= len(few) <= 3
        assert few == records[: len(few)]
        assert read_all(log, A0, 50, page=3) == records

    def test_reading_behind_the_end(self, log: EventLog) -> None:
        log.append([Append(A0, None, b"x")])
        read_all(log, A0, 1)
        with pytest.raises(TaskDiverged, match="transactions"):
            log.read(A0, log.end_offset(A0) + 1, 1, 1000)

    def test_new_writer_fences_the_old_one(self, log: EventLog) -> None:
        old = log.writer("w")
        commit(old, [Append(A0, None, b"old")])
        other = log.writer("other")
        new = log.writer("w")
        assert values(log, A0) == [b"old"]  # complete once the new writer is open
        with pytest.raises(TaskFenced):
            commit(old, [Append(A0, None, b"zombie")])
        commit(new, [Append(A0, None, b"new")])
        with pytest.raises(TaskFenced):
            commit(old, [Append(A0, None, b"zombie")])
        commit(other, [Append(A0, None, b"other")])
        assert values(log, A0, 3) == [b"old", b"new", b"other"]
        old.close()
        new.close()

    def test_a_writer_is_opened_without_waiting(self, log: EventLog) -> None:
        old = log.writer("w")
        commit(old, [Append(A0, None, b"old")])
        new = log.begin_writer("w")
        deadline = time.monotonic() + 30
        while not new.poll_open():
            assert time.monotonic() < deadline
            log.wait(20)
        assert new.poll_open()
        assert values(log, A0) == [b"old"]  # complete once it is open
        with pytest.raises(TaskFenced):
            commit(old, [Append(A0, None, b"zombie")])
        commit(new, [Append(A0, None, b"new")])
        assert values(log, A0, 2) == [b"old", b"new"]
        given_up = log.begin_writer("other")
        given_up.close()
        given_up.close()
        with pytest.raises(Fatal, match="closed"):
            given_up.poll_open()
        commit(log.writer("other"), [Append(A0, None, b"other")])
        with pytest.raises(ConfigError, match="needs an id"):
            log.begin_writer("")

    def test_fenced_between_begin_and_poll(self, log: EventLog) -> None:
        old = log.writer("w")
        old.begin_commit([Append(A0, None, b"1"), Append(B0, None, b"1")])
        new = log.writer("w")
        seen = values(log, A0), values(log, B0)
        assert seen in (([], []), ([b"1"], [b"1"]))
        with pytest.raises((TaskFenced, OutcomeUnknown)):
            poll_to_the_end(old)
        commit(new, [Append(A1, None, b"2")])
        assert values(log, A1, 1) == [b"2"]
        assert (values(log, A0), values(log, B0)) == seen

    def test_writer_closed_before_it_knows(self, log: EventLog) -> None:
        writer = log.writer("w")
        writer.begin_commit([Append(A0, None, b"1"), Append(B0, None, b"1")])
        writer.close()
        writer.close()
        commit(log.writer("w"), [Append(A1, None, b"2")])
        assert values(log, A1, 1) == [b"2"]
        assert (values(log, A0), values(log, B0)) in (([], []), ([b"1"], [b"1"]))

    def test_oversize_record_appends_nothing(self, log: EventLog) -> None:
        big = bytes(self.oversize)
        with pytest.raises(ConfigError, match="bytes"):
            log.append([Append(A0, None, b"small"), Append(A0, None, big)])
        with pytest.raises(ConfigError, match="bytes"):
            commit(log.writer("w"), [Append(A1, None, b"small"), Append(A0, None, big)])
        commit(log.writer("w"), [Append(A0, None, b"after"), Append(A1, None, b"after")])
        assert values(log, A0, 1) == [b"after"]
        assert values(log, A1, 1) == [b"after"]

    def test_big_transaction(self, log: EventLog) -> None:
        writer = log.writer("w")
        body = bytes(range(256)) * 2
        commit(writer, [Append((A0, B0)[i % 2], b"%d" % i, body) for i in range(6000)])
        assert [r.key for r in read_all(log, A0, 3000)] == [b"%d" % i for i in range(0, 6000, 2)]
        assert [r.key for r in read_all(log, B0, 3000)] == [b"%d" % i for i in range(1, 6000, 2)]

    def test_producers_beside_a_writer(self, log: EventLog) -> None:
        threads, rounds = 3, 20

        def produce(name: int) -> list[int]:
            offsets: list[int] = []
            for i in range(rounds):
                offsets += log.append([Append(A0, b"p%d" % name, b"%d" % i), Append(A1, None, b"x")])[:1]
            return offsets

        with ThreadPoolExecutor(threads) as pool:
            producers = {name: pool.submit(produce, name) for name in range(threads)}
            writer = log.writer("w")
            for i in range(rounds):
                commit(writer, [Append(A0, b"w", b"%d" % i), Append(B0, None, b"%d" % i)])
            own = {name: producer.result(DEADLINE_S) for name, producer in producers.items()}
        records = read_all(log, A0, (threads + 1) * rounds)
        offsets = [r.offset for r in records]
        assert offsets == sorted(set(offsets))
        for key in (b"w", *(b"p%d" % name for name in own)):
            assert [r.value for r in records if r.key == key] == [b"%d" % i for i in range(rounds)]
        for name, expected in own.items():
            assert [r.offset for r in records if r.key == b"p%d" % name] == expected
        assert len(read_all(log, A1, threads * rounds)) == threads * rounds
        assert values(log, B0, rounds) == [b"%d" % i for i in range(rounds)]

    def test_appends_under_way_keep_their_order(self, log: EventLog) -> None:
        deliveries = [log.begin_append([Append(A0, None, b"%d" % i), Append(A1, None, b"x")]) for i in range(50)]
        deadline = time.monotonic() + DEADLINE_S
        offsets: list[int] = []
        for delivery in deliveries:
            while (told := delivery.poll()) is None:
                assert time.monotonic() < deadline, "the records never arrived"
                time.sleep(0.001)
            assert delivery.poll() == told
            offsets.append(told[0])
        assert [(r.offset, r.value) for r in read_all(log, A0, 50)] == [
            (offset, b"%d" % i) for i, offset in enumerate(offsets)
        ]
        assert log.begin_append([]).poll() == []
        with pytest.raises(ConfigError, match="bytes"):
            log.begin_append([Append(A0, None, bytes(self.oversize))])

    def test_wait_ends(self, log: EventLog) -> None:
        started = time.monotonic()
        for _ in range(3):
            log.wait(20)
        assert time.monotonic() - started < DEADLINE_S

    def test_everything_survives_reopening(self) -> None:
        log = self.make_log()
        log.create_topic(Topic.TRANSACTIONS, PARTITIONS)
        first = log.writer("w")
        commit(first, [Append(A0, b"k", b"1"), Append(A1, None, b"1")])
        log.append([Append(A0, None, b"2")])
        before = read_all(log, A0, 2), read_all(log, A1, 1), log.end_offset(A0), log.end_offset(A1)
        log = self.reopen(log)
        assert log.partitions(Topic.TRANSACTIONS) == PARTITIONS
        after = read_all(log, A0, 2), read_all(log, A1, 1), log.end_offset(A0), log.end_offset(A1)
        assert after == before
        second = log.writer("w")
        third = log.writer("w")
        with pytest.raises(TaskFenced):
            commit(second, [Append(A0, None, b"zombie")])
        commit(third, [Append(A0, None, b"3")])
        assert values(log, A0, 3) == [b"1", b"2", b"3"]
        log.close()
        log.close()
