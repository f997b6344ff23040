"""Where a leader's block ends: how much of the waiting input fits.

At most half of a block's gas is inbound while transactions wait; one bundle always fits; a transaction that does not
fit opens the next block. Gas counted here is the declared gas of all decodable transactions, executed or not.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.codec.topics import LogRecord, Topic
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import DeadLetterReason
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.engine import BlockInputs, InputBatch
from pipeline.ledger.inbound import ReadBundle, follows, inbound_entry_gas
from pipeline.ledger.reading import InputReader


class Waiting(NamedTuple):
    """Committed records that no block has consumed, by input topic, each from the cursor's position on."""

    control: Sequence[LogRecord]
    relay: Sequence[LogRecord]
    transactions: Sequence[LogRecord]


class Awaited(NamedTuple):
    """The bundle at the head of relay waits for a control record. `offset`: the bundle's on relay."""

    control_sequence: int
    source: int
    sequence: int
    offset: int


class Composition(NamedTuple):
    """A block's inputs, how many waiting records of each topic they take, and what relay waits for."""

    inputs: BlockInputs
    taken: tuple[int, int, int]
    awaited: Awaited | None = None


def compose(
    chain: Chain, cursor: ShardCursor, waiting: Waiting, reader: InputReader, *, control_at_least: int = 0
) -> Composition:
    """The next block's inputs; decodes what it takes, through `reader`, so that the engine need not again.

    `control_at_least`: how many control records it must take, whatever the limits (block 0 reaches its CreateShard).
    Raises `TaskDiverged` where the bundle at the head of relay waits for control and is not its channel's next.
    """
    limits = chain.genesis.limits
    control = max(min(len(waiting.control), limits.block_records), control_at_least)
    records_left = max(limits.block_records - control, 0)
    inbound_gas, inbound_records = limits.block_gas, records_left
    if waiting.transactions:
        inbound_gas, inbound_records = inbound_gas // 2, (records_left + 1) // 2
    relay, gas, awaited = _take_relay(chain, cursor, waiting.relay[:inbound_records], inbound_gas, reader)
    # What waits on control can set the bundle aside, or be what it waits for.
    if awaited is not None and not waiting.control:
        read = reader.bundle(waiting.relay[0])
        assert not isinstance(read, DeadLetterReason), "it was read before"
        follows(chain, cursor.shard, cursor.channels_in.get(read.bundle.source), read)
    records_left -= relay
    room_bytes = limits.block_bytes - sum(len(record.value or b"") for record in waiting.relay[:relay])
    transactions = 0
    for record in waiting.transactions[:records_left]:
        room_bytes -= len(record.value or b"") + len(record.key or b"")
        prepared = reader.transaction(record)
        gas += 0 if isinstance(prepared, DeadLetterReason) else prepared.gas
        if (transactions and room_bytes < 0) or gas > limits.block_gas:
            break
        transactions += 1
    taken = (control, relay, transactions)
    batches = [
        InputBatch(records[count - 1].offset + 1 if count else position, tuple(records[:count]))
        for records, count, position in zip(waiting, taken, cursor.positions, strict=True)
    ]
    return Composition(BlockInputs(*batches), taken, awaited)


def awaited_control(reader: InputReader, cursor: ShardCursor, record: LogRecord) -> Awaited | None:
    """What the next record of relay waits for: the control records that its source had seen.

    None where it waits for nothing: it is no bundle, a repeat, or operators set it aside.
    """
    read = reader.bundle(record)
    if isinstance(read, DeadLetterReason) or not _is_ahead(cursor, read, record):
        return None
    last = cursor.channels_in.get(read.bundle.source)
    if last is not None and (
        read.bundle.sequence < last.sequence or (read.bundle.sequence, read.head) == (last.sequence, last.head)
    ):
        return None
    return Awaited(read.bundle.control_sequence, read.bundle.source, read.bundle.sequence, record.offset)


def _is_ahead(cursor: ShardCursor, read: ReadBundle, record: LogRecord) -> bool:
    ahead = read.bundle.control_sequence > cursor.control.sequence
    return ahead and not cursor.control.is_quarantined(cursor.source(Topic.RELAY), record)


def _take_relay(
    chain: Chain, cursor: ShardCursor, records: Sequence[LogRecord], limit: int, reader: InputReader
) -> tuple[int, int, Awaited | None]:
    """How many bundles fit `limit` gas and a block's bytes, their gas, and what the first waits for."""
    entry_gas, gas, room_bytes = inbound_entry_gas(chain), 0, chain.genesis.limits.block_bytes
    for index, record in enumerate(records):
        room_bytes -= len(record.value or b"")
        if index and room_bytes < 0:
            return index, gas, None
        read = reader.bundle(record)
        if isinstance(read, DeadLetterReason):
            continue
        cost = read.effects * entry_gas
        ahead = _is_ahead(cursor, read, record)
        if index and (gas + cost > limit or ahead):
            return index, gas, None
        if ahead and (awaited := awaited_control(reader, cursor, record)) is not None:
            return 0, 0, awaited
        gas += cost
    return len(records), gas, None
