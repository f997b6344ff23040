"""Whether the log still holds the inputs that a store consumed.

A header commits to what its block consumed, but whoever goes on from a store at the log's end reads none of that again.
So a store keeps, of each input, where the last consumed record stands and its digest, and that record is read before
anything is executed on top of it.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

from pipeline.codec.topics import LogRecord, TopicPartition
from pipeline.errors import Fatal, TaskDiverged
from pipeline.ledger.blocks import input_digest
from pipeline.ledger.cursor import INPUT_TOPICS, ShardCursor
from pipeline.ledger.engine import BlockInputs
from pipeline.log.port import EventLog
from pipeline.state.store import StateStore

CONSUMED: Final = b"consumed"
_LAST: Final = Struct(">q32s")
_RECORD_BYTES: Final = 64 << 20


class LastRecord(NamedTuple):
    """The last consumed record of an input."""

    offset: int
    digest: bytes

    @classmethod
    def of(cls, record: LogRecord) -> "LastRecord":
        """Of a record on the log."""
        return cls(record.offset, input_digest(record))


_NONE: Final = LastRecord(-1, bytes(32))


@dataclass(frozen=True, slots=True)
class Consumed:
    """The last consumed record of each input, in the order of `INPUT_TOPICS`; offset -1 where none is known."""

    last: tuple[LastRecord, LastRecord, LastRecord] = (_NONE, _NONE, _NONE)

    def after(self, inputs: BlockInputs) -> "Consumed":
        """After a block that consumed these."""
        control, relay, transactions = (
            LastRecord.of(batch.records[-1]) if batch.records else last
            for last, batch in zip(self.last, (inputs.control, inputs.relay, inputs.transactions), strict=True)
        )
        return Consumed((control, relay, transactions))

    def to_bytes(self) -> bytes:
        """As the store keeps it: three times offset 8 ‖ digest 32."""
        return b"".join([_LAST.pack(*last) for last in self.last])


def stored_consumed(store: StateStore) -> Consumed:
    """What the store keeps. Raises `Fatal` for bytes that no shard wrote."""
    raw = store.meta(CONSUMED)
    if raw is None:
        return Consumed()
    if len(raw) != 3 * _LAST.size:
        raise Fatal("the last consumed records kept by the state store are damaged: restore it from a copy or the log")
    control, relay, transactions = (LastRecord(*fields) for fields in _LAST.iter_unpack(raw))
    return Consumed((control, relay, transactions))


def check_consumed(log: EventLog, cursor: ShardCursor, store: StateStore) -> Consumed:
    """The last records that the store consumed, each of which the log holds.

    A store whose last block was written by a version that kept no digests is taken for true where there is a record at
    all; it keeps them from its next block on. Raises `TaskDiverged` where the log holds another record or none,
    `Retryable` while that can't be told.
    """
    found = []
    for topic, position, kept in zip(INPUT_TOPICS, cursor.positions, stored_consumed(store).last, strict=True):
        if position == 0:
            found.append(_NONE)
            continue
        # Inputs of a block end behind a record, so there is no hole here.
        offset = position - 1
        record = _record_at(log, cursor.source(topic), offset)
        last = None if record is None else LastRecord.of(record)
        if last is None or (kept.offset == offset and kept != last):
            raise TaskDiverged(
                f"shard {cursor.shard} height {cursor.height}: {topic.topic_name} offset {offset} does not hold the "
                "record that was consumed there; the topic was cut or made again, restore it"
            )
        found.append(last)
    control, relay, transactions = found
    return Consumed((control, relay, transactions))


def _record_at(log: EventLog, source: TopicPartition, offset: int) -> LogRecord | None:
    records = log.read(source, offset, 1, _RECORD_BYTES)
    if not records:
        # It was seen before it was consumed; but a broker that has just become the leader may not show it yet.
        log.settle(source)
        records = log.read(source, offset, 1, _RECORD_BYTES)
    return records[0] if records and records[0].offset == offset else None
