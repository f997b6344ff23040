"""Receipts and dead letters on the log against those that executing the blocks again gives.

A recovered leader publishes its last block's outputs once more, byte for byte; nothing else may stand there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pipeline.audit.findings import Finding, FindingKind, Report
from pipeline.audit.streams import RecordStream
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.errors import PoisonRecord
from pipeline.ledger.receipts import DeadLetter, ReceiptChunk
from pipeline.log.port import EventLog

HeightOf = Callable[[bytes | None], int]


def receipt_height(value: bytes | None) -> int:
    """The block of a receipt chunk. Raises `PoisonRecord`."""
    return ReceiptChunk.from_record(value).height


def dead_letter_height(value: bytes | None) -> int:
    """The block of a dead letter. Raises `PoisonRecord`."""
    return DeadLetter.from_record(value).height


HEIGHT_OF: Final[Mapping[Topic, HeightOf]] = {Topic.RECEIPTS: receipt_height, Topic.DEAD_LETTERS: dead_letter_height}


class OutputCheck:
    """One partition of one output topic, compared block by block."""

    def __init__(self, log: EventLog, topic: Topic, shard: int, report: Report) -> None:
        """`topic`: receipts or dead-letters."""
        source = TopicPartition(topic, shard)
        self._topic = topic
        self._shard = shard
        self._report = report
        self._height_of = HEIGHT_OF[topic]
        self._stream = RecordStream(log, source, report)
        # Blocks committed while the audit runs have outputs behind this; only what was there at first is drained.
        self._settled = self._stream.end
        self._last: frozenset[bytes] = frozenset()

    @property
    def position(self) -> int:
        """Where the outputs of the next block begin, at the earliest."""
        return self._stream.position

    def block(self, height: int, expected: Sequence[bytes]) -> None:
        """The records that block `height` must have put here."""
        if not expected:
            return
        missing = dict.fromkeys(expected)
        while missing:
            record = self._peek()
            if record is None or self._is_later(record, height):
                break
            self._stream.pop()
            value = record.value
            if value in missing:
                del missing[value]
            elif value not in self._last and value not in expected:
                missing.pop(self._complain(record, height, list(missing)), None)
        for _ in missing:
            where = self._stream.position
            what = f"{self._topic.topic_name} of block {height} are missing; they belong before this offset"
            self._report(Finding(FindingKind.OUTPUT_MISSING, what, self._shard, height, self._topic, where))
        self._last = frozenset(expected)

    def finish(self) -> None:
        """No block follows: what is left may only repeat the last one's outputs."""
        while (record := self._stream.peek()) is not None and record.offset < self._settled:
            self._stream.pop()
            if record.value not in self._last:
                what = f"{self._topic.topic_name} that no block produced"
                finding = Finding(FindingKind.OUTPUT_FOREIGN, what, self._shard, None, self._topic, record.offset)
                self._report(finding)

    def _peek(self) -> LogRecord | None:
        record = self._stream.peek()
        if record is None and self._stream.extend():
            return self._stream.peek()
        return record

    def _is_later(self, record: LogRecord, height: int) -> bool:
        try:
            return self._height_of(record.value) > height
        except PoisonRecord:
            return False

    def _complain(self, record: LogRecord, height: int, missing: list[bytes]) -> bytes:
        """What is wrong with this record; and which of the missing ones stood in its place, if any (else b"")."""
        try:
            is_this_block = self._height_of(record.value) == height
        except PoisonRecord:
            is_this_block = True  # unreadable now: the record that is looked for was damaged
        if is_this_block:
            kind, what = FindingKind.OUTPUT_ALTERED, f"{self._topic.topic_name} of block {height} are not what it gave"
        else:
            kind, what = FindingKind.OUTPUT_FOREIGN, f"{self._topic.topic_name} that no block produced in this place"
        self._report(Finding(kind, what, self._shard, height, self._topic, record.offset))
        return missing[0] if is_this_block else b""
