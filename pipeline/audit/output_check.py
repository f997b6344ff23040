"""Receipts and dead letters on the log against those that executing the blocks again gives.

A recovered leader publishes its last block's outputs once more, byte for byte; nothing else may stand there.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.audit.findings import Finding, FindingKind, Report
from pipeline.audit.numbered import NumberedRecords
from pipeline.audit.streams import RecordStream
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.errors import PoisonRecord
from pipeline.ledger.chain import Chain
from pipeline.ledger.receipts import DeadLetter, ReceiptChunk
from pipeline.log.port import EventLog

OUTPUTS: Final[Mapping[Topic, type[ReceiptChunk] | type[DeadLetter]]] = {
    Topic.RECEIPTS: ReceiptChunk,
    Topic.DEAD_LETTERS: DeadLetter,
}
"""What blocks put on a topic; each names its chain, shard and height."""


class OutputCheck:
    """One partition of one output topic, compared block by block."""

    def __init__(self, log: EventLog, chain: Chain, topic: Topic, shard: int, report: Report) -> None:
        """`topic`: receipts or dead-letters."""
        self._chain_id = chain.chain_id
        self._topic = topic
        self._shard = shard
        self._report = report
        stream = RecordStream(log, TopicPartition(topic, shard), report)
        # Blocks committed while the audit runs have outputs behind this; only what was there at first is drained.
        self._settled = stream.end
        blocks = TopicPartition(Topic.BLOCKS, shard)
        # A block takes one record at least, so no height exceeds the end of the blocks.
        self._records = NumberedRecords(stream, self._number_of, lambda: log.end_offset(blocks))
        self._last: frozenset[bytes] = frozenset()
        self._reached = -1

    @property
    def position(self) -> int:
        """Where the outputs of the next block begin, at the earliest."""
        return self._records.position

    def block(self, height: int, expected: Sequence[bytes]) -> None:
        """The records that block `height` must have put here."""
        if not expected:
            return
        missing = dict.fromkeys(expected)
        while missing and (record := self._records.next_for(height)) is not None:
            value = record.value
            if value in missing:
                del missing[value]
                self._matched(record, height)
            elif value not in self._last and value not in expected:
                missing.pop(self._complain(record, height, list(missing)), None)
        for _ in missing:
            what = f"{self._topic.topic_name} of block {height} are missing; they belong before this offset"
            self._say(FindingKind.OUTPUT_MISSING, height, self._records.position, what)
        self._last = frozenset(expected)

    def finish(self) -> None:
        """No block follows: what is left may only repeat the last one's outputs."""
        for record in self._records.rest(self._settled):
            if record.value not in self._last:
                what = f"{self._topic.topic_name} that no block produced"
                self._say(FindingKind.OUTPUT_FOREIGN, None, record.offset, what)

    def _matched(self, record: LogRecord, height: int) -> None:
        if record.offset < self._reached:
            what = f"{self._topic.topic_name} of block {height} stand before those of an earlier block"
            self._say(FindingKind.OUTPUT_FOREIGN, height, record.offset, what)
        self._reached = max(self._reached, record.offset)

    def _number_of(self, record: LogRecord) -> int:
        try:
            output = OUTPUTS[self._topic].from_record(record.value)
        except PoisonRecord:
            return -1
        return output.height if (output.chain_id, output.shard) == (self._chain_id, self._shard) else -1

    def _complain(self, record: LogRecord, height: int, missing: list[bytes]) -> bytes:
        """What is wrong with this record; and which of the missing ones stood in its place, if any (else b"")."""
        try:
            # Unreadable now: the record that is looked for was damaged.
            is_this_block = OUTPUTS[self._topic].from_record(record.value).height == height
        except PoisonRecord:
            is_this_block = True
        if is_this_block:
            kind, what = FindingKind.OUTPUT_ALTERED, f"{self._topic.topic_name} of block {height} are not what it gave"
        else:
            kind, what = FindingKind.OUTPUT_FOREIGN, f"{self._topic.topic_name} that no block produced in this place"
        self._say(kind, height, record.offset, what)
        return missing[0] if is_this_block else b""

    def _say(self, kind: FindingKind, height: int | None, offset: int, message: str) -> None:
        self._report(Finding(kind, message, self._shard, height, self._topic, offset))
