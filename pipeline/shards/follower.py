"""The follower: executes a committed block again, with exactly the inputs that its header names, and compares.

Recovery, standby, attestation, query replicas and audit are followers; there is no second implementation of a rule.
"""

from typing import Final

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.crypto.verifier import Verifier
from pipeline.errors import TaskDiverged
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.cursor import INPUT_TOPICS, ShardCursor
from pipeline.ledger.engine import BlockInputs, ExecutedBlock, InputBatch, execute
from pipeline.ledger.overlay import StateView
from pipeline.log.port import EventLog
from pipeline.shards.block_reader import CommittedBlock

_MAX_BYTES: Final = 64 << 20


class BlockDiverged(TaskDiverged):
    """A committed block that re-execution contradicts. `part` names the header's field that differs."""

    def __init__(self, shard: int, height: int, offset: int, part: str, detail: str) -> None:
        """`offset`: of the header on `blocks`."""
        super().__init__(f"shard {shard} height {height} offset {offset}: {detail}; keep the store, audit the log")
        self.shard = shard
        self.height = height
        self.offset = offset
        self.part = part
        self.detail = detail


def read_inputs(log: EventLog, cursor: ShardCursor, block: CommittedBlock) -> BlockInputs | None:
    """The records that a header names; None while the log does not hold all of them yet.

    Raises `BlockDiverged` where the ranges do not continue the cursor's positions.
    """
    header = block.header
    if [item.topic for item in header.inputs] != list(INPUT_TOPICS):
        raise _diverged(block, "inputs", "the header does not list control, relay and transactions")
    batches: list[InputBatch] = []
    for topic, first, item in zip(INPUT_TOPICS, cursor.positions, header.inputs, strict=True):
        source = cursor.source(topic)
        if item.partition != source.partition or item.first != first or item.next < first:
            raise _diverged(
                block, "inputs", f"{topic.topic_name} was consumed to {first}, the header says {item.first}-{item.next}"
            )
        records = read_range(log, source, first, item.next)
        if (records[-1].offset + 1 if records else first) != item.next:
            # Inputs end behind a record, so something is missing. To ask for the end costs a cluster's client a round
            # trip, but what is read after it is all that there is.
            if item.next > log.end_offset(source):
                return None
            records = read_range(log, source, first, item.next)
        batches.append(InputBatch(item.next, tuple(records)))
    return BlockInputs(*batches)


def read_range(log: EventLog, source: TopicPartition, first: int, end: int) -> list[LogRecord]:
    """All committed records in [first, end)."""
    found: list[LogRecord] = []
    position = first
    while position < end:
        records = log.read(source, position, end - position, _MAX_BYTES)
        if not records:
            break
        found += records if records[-1].offset < end else [item for item in records if item.offset < end]
        position = records[-1].offset + 1
    return found


def follow(
    chain: Chain,
    cursor: ShardCursor,
    view: StateView,
    block: CommittedBlock,
    inputs: BlockInputs,
    verifier: Verifier,
) -> ExecutedBlock:
    """Execute the block again. Raises `BlockDiverged` where the result is not byte for byte the committed header."""
    header = block.header
    if header.height != cursor.height + 1 or header.previous_hash != cursor.block_hash:
        raise _diverged(block, "previous_hash", f"does not follow block {cursor.height}")
    if header.chain_id != chain.chain_id:
        raise _diverged(block, "chain_id", "a block of another chain")
    for topic, batch in zip(INPUT_TOPICS, (inputs.control, inputs.relay, inputs.transactions), strict=True):
        if len(batch.records) != header.input(topic).count:
            raise _diverged(
                block,
                "inputs",
                f"{topic.topic_name} holds {len(batch.records)} records where the header counted "
                f"{header.input(topic).count}",
            )
    for first, batch in zip(cursor.positions, (inputs.control, inputs.relay, inputs.transactions), strict=True):
        # Offsets behind the last record may still be an open transaction's: two readers could find different inputs.
        if batch.next != (batch.records[-1].offset + 1 if batch.records else first):
            raise _diverged(block, "inputs", f"its inputs end at {batch.next}, which is not behind a record")
    try:
        executed = execute(chain, cursor, view, inputs, header.timestamp_ms, verifier)
    except BlockDiverged:
        raise
    except TaskDiverged as error:
        raise _diverged(block, "inputs", f"its inputs can't be executed: {error}") from None
    if executed.datum != block.datum:
        raise _difference(block, executed.header)
    return executed


def _difference(block: CommittedBlock, found: BlockHeader) -> BlockDiverged:
    """Names the field that tells most: inputs before results."""
    stated = block.header
    for ours, theirs in zip(found.inputs, stated.inputs, strict=True):
        if ours != theirs:
            name = Topic(ours.topic).topic_name
            return _diverged(
                block, "inputs", f"records of {name} in [{ours.first}, {ours.next}) are not those that were executed"
            )
    fields = ("counts", "channels_in", "channels_out", "receipts_root", "state_root", "slots", "cursors_root")
    for name in fields:
        if getattr(found, name) != getattr(stated, name):
            return _diverged(block, name, f"re-execution gives another {name}")
    return _diverged(block, "header", "re-execution gives other header bytes")


def _diverged(block: CommittedBlock, part: str, detail: str) -> BlockDiverged:
    return BlockDiverged(block.header.shard, block.header.height, block.offset, part, detail)
