"""Partitions of which an open transaction hides a part while they are audited."""

import pytest

from pipeline.audit import streams
from pipeline.audit.findings import Finding
from pipeline.audit.streams import RecordStream
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.errors import Retryable
from pipeline.kv.memory import MemoryKeyValue
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append

RELAY = TopicPartition(Topic.RELAY, 0)


class Hiding(EmbeddedLog):
    """Shows two records until the transaction behind them has ended: that takes so many looks."""

    looks = 3

    def read(self, source: TopicPartition, start: int, *limits: int) -> list[LogRecord]:
        records = super().read(source, start, *limits)
        return [record for record in records if record.offset < 2 or not self.looks]

    def settle(self, source: TopicPartition) -> None:
        super().settle(source)
        if self.looks:
            self.looks -= 1
            raise Retryable("a transaction is open")


@pytest.fixture
def log() -> Hiding:
    log = Hiding(MemoryKeyValue())
    log.create_topic(Topic.RELAY, 1)
    log.append([Append(RELAY, None, b"%d" % number) for number in range(5)])
    return log


def test_what_an_open_transaction_hides_is_waited_for(log: Hiding) -> None:
    stream = RecordStream(log, RELAY, lambda finding: pytest.fail(str(finding)))
    seen = []
    while (record := stream.pop()) is not None:
        seen.append(record.value)
    assert seen == [b"0", b"1", b"2", b"3", b"4"]


def test_one_that_stays_open_ends_the_audit(log: Hiding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_SETTLE_S", 0.0)
    log.looks = 10**6
    stream = RecordStream(log, RELAY, lambda finding: pytest.fail(str(finding)))
    assert [stream.pop() is not None for _ in range(2)] == [True, True]
    with pytest.raises(Retryable, match="a transaction is open"):
        stream.pop()


def test_a_damaged_end_is_one_finding(log: Hiding, monkeypatch: pytest.MonkeyPatch) -> None:
    log.looks = 0
    read = log.read

    def damaged(source: TopicPartition, start: int, *limits: int) -> list[LogRecord]:
        if start > 2:
            raise ValueError("no record")
        return read(source, start, *limits)[: 3 - start]

    monkeypatch.setattr(log, "read", damaged)
    found: list[Finding] = []
    stream = RecordStream(log, RELAY, found.append)
    assert sum(stream.pop() is not None for _ in range(9)) == 3
    assert len(found) == 1
