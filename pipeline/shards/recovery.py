"""Recovery: follow the log to its end, see that the store is an ancestor of what was signed, publish once more.

A store that is behind catches up; one that is ahead of the log, or on another branch, halts its shard: state is never
deleted to make a disagreement go away.
"""

from typing import Final

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import BlockHash
from pipeline.crypto.verifier import Verifier
from pipeline.errors import PoisonRecord, TaskDiverged
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Checkpoint, SignedStateRoot, StateRoot
from pipeline.ledger.cursor import ShardCursor
from pipeline.log.port import Append, EventLog
from pipeline.shards.block_reader import BlockReader
from pipeline.shards.follower import follow, read_inputs
from pipeline.shards.leader import CURSOR, OUTPUTS
from pipeline.shards.outputs import block_appends, decode_appends, encode_appends
from pipeline.shards.tail import last_record
from pipeline.state.store import StateStore

_BLOCKS_A_STEP: Final = 16
_RECORD_BYTES: Final = 64 << 20


def stored_cursor(chain: Chain, shard: int, store: StateStore) -> ShardCursor:
    """Where the store stands; before block 0 where it is empty. Raises `TaskDiverged` for another shard's store."""
    raw = store.meta(CURSOR)
    if raw is None:
        return ShardCursor.start(chain, shard)
    cursor = ShardCursor.from_bytes(raw)
    if cursor.shard != shard:
        raise TaskDiverged(f"shard {shard}: the state store holds shard {cursor.shard}; check the directories")
    return cursor


class Recovery:
    """Catches one shard up. Create it only after the writer is fenced: an older tail could still grow."""

    def __init__(self, chain: Chain, shard: int, log: EventLog, store: StateStore, verifier: Verifier) -> None:
        """Reads where the store stands. Raises `Retryable` while an open transaction could hide blocks."""
        log.settle(TopicPartition(Topic.BLOCKS, shard))
        self._chain = chain
        self._log = log
        self._store = store
        self._verifier = verifier
        self.cursor = stored_cursor(chain, shard, store)
        offset = find_block(log, shard, self.cursor.height) if self.cursor.height >= 0 else 0
        self._reader = BlockReader(log, shard, self.cursor.height + 1, self.cursor.block_hash, start_offset=offset)

    def step(self) -> bool:
        """Follow some blocks; False at the log's end. Raises `TaskDiverged` on any disagreement."""
        blocks = self._reader.read(_BLOCKS_A_STEP)
        for block in blocks:
            inputs = read_inputs(self._log, self.cursor, block)
            if inputs is None:
                raise TaskDiverged(
                    f"shard {block.header.shard} height {block.header.height} offset {block.offset}: its inputs are "
                    "not on the log; the input topics were truncated or replaced, restore them"
                )
            executed = follow(self._chain, self.cursor, self._store.view(), block, inputs, self._verifier)
            outputs = encode_appends(block_appends(executed))
            self._store.commit(executed.prepared, {CURSOR: executed.cursor.to_bytes(), OUTPUTS: outputs})
            self.cursor = executed.cursor
        return bool(blocks)

    def check_signed(self) -> None:
        """The highest signed state root on the log must be an ancestor of this shard, or its head."""
        shard, root = self.cursor.shard, last_signed_root(self._log, self.cursor.shard)
        if root is None:
            return
        if root.height > self.cursor.height:
            raise TaskDiverged(
                f"shard {shard}: block {root.height} is signed but blocks end at {self.cursor.height}; the blocks "
                "topic was restored from an old backup, restore the newer one"
            )
        hashed = self.cursor.block_hash
        if root.height < self.cursor.height:
            hashed = block_at(self._log, shard, root.height)
        if hashed != root.block_hash:
            raise TaskDiverged(f"shard {shard}: block {root.height} is not the one that was signed; audit the log")

    def outputs(self) -> list[Append]:
        """What the last block put on the log, to be published once more."""
        raw = self._store.meta(OUTPUTS)
        return decode_appends(raw) if raw else []


def last_signed_root(log: EventLog, shard: int) -> StateRoot | None:
    """The newest state root on `state-roots[shard]`. Raises `TaskDiverged` for a record that is none."""
    signed = last_signed(log, shard)
    return None if signed is None else StateRoot.from_bytes(signed.state_root)


def last_signed(log: EventLog, shard: int) -> SignedStateRoot | None:
    """The newest record on `state-roots[shard]`, not verified. Raises `TaskDiverged` for a record that is none."""
    record = last_record(log, TopicPartition(Topic.STATE_ROOTS, shard))
    if record is None:
        return None
    try:
        signed = SignedStateRoot.from_record(record.value)
        StateRoot.from_bytes(signed.state_root)
        Checkpoint.from_bytes(signed.checkpoint)
    except PoisonRecord as error:
        raise TaskDiverged(f"shard {shard}: state-roots offset {record.offset}: {error}") from None
    return signed


def find_block(log: EventLog, shard: int, height: int) -> int:
    """The first offset of block `height` on `blocks[shard]`, by bisection: heights never fall but for one repeat.

    Raises `TaskDiverged` where the log does not hold it: the store is ahead of the log.
    """
    source = TopicPartition(Topic.BLOCKS, shard)
    low, high = 0, log.end_offset(source)
    while low < high:
        middle = (low + high) // 2
        records = log.read(source, middle, 1, _RECORD_BYTES)
        if records and _header(shard, records[0])[0].height < height:
            low = records[0].offset + 1
        else:
            high = middle
    records = log.read(source, low, 1, _RECORD_BYTES)
    if not records or _header(shard, records[0])[0].height != height:
        raise TaskDiverged(
            f"shard {shard}: the state store is at block {height}, which the log does not hold; "
            "the blocks topic was truncated or replaced, restore it"
        )
    return records[0].offset


def block_at(log: EventLog, shard: int, height: int) -> BlockHash:
    """The hash of a committed block. Raises `TaskDiverged` where the log does not hold it."""
    offset = find_block(log, shard, height)
    record = log.read(TopicPartition(Topic.BLOCKS, shard), offset, 1, _RECORD_BYTES)[0]
    return _header(shard, record)[1]


def _header(shard: int, record: LogRecord) -> tuple[BlockHeader, BlockHash]:
    try:
        return BlockHeader.from_record(record.value)
    except PoisonRecord as error:
        message = f"shard {shard} offset {record.offset}: {error}; blocks are written by workers only"
        raise TaskDiverged(message) from None
