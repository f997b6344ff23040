"""Recovery: follow the log to its end, see that the store is an ancestor of what was signed, publish once more.

A store that is behind catches up; one that is ahead of the log, or on another branch, halts its shard: state is never
deleted to make a disagreement go away.
"""

from collections import deque
from struct import Struct
from typing import Final, NamedTuple

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import BlockHash, ShardId
from pipeline.crypto.verifier import Verifier
from pipeline.errors import PoisonRecord, TaskDiverged
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.engine import BlockInputs
from pipeline.log.port import Append, EventLog
from pipeline.shards.block_reader import BlockReader, CommittedBlock
from pipeline.shards.consumed import CONSUMED, Consumed, check_consumed
from pipeline.shards.follower import follow, read_inputs
from pipeline.shards.leader import CURSOR, OUTPUTS
from pipeline.shards.outputs import block_appends, decode_appends, encode_appends
from pipeline.shards.signed_roots import SignedRoots
from pipeline.shards.tail import last_record
from pipeline.state.store import StateStore

_BLOCKS_A_STEP: Final = 16
_BYTES_A_STEP: Final = 1 << 16
"""Of input records: at least a block, and some hundred transactions of one entry. Others wait for a step: shards that
are led by the same thread, and a rebalance."""
_NEAR_BLOCKS: Final = 256
_NEAR_SLACK: Final = 16
_RECORD_BYTES: Final = 64 << 20
PLACE: Final = b"place"
_PLACE: Final = Struct(">qq")


class Place(NamedTuple):
    """Where a block stands on `blocks`."""

    height: int
    offset: int

    def to_bytes(self) -> bytes:
        """As the store keeps it: height 8 ‖ offset 8."""
        return _PLACE.pack(*self)


def stored_place(store: StateStore) -> Place | None:
    """Where the last block stands that this store followed; its leader does not tell. Only ever a hint."""
    raw = store.meta(PLACE)
    return Place(*_PLACE.unpack(raw)) if raw is not None and len(raw) == _PLACE.size else None


def stored_cursor(chain: Chain, shard: int, store: StateStore) -> ShardCursor:
    """Where the store stands; before block 0 where it is empty. Raises `TaskDiverged` for another shard's store."""
    raw = store.meta(CURSOR)
    if raw is None:
        return ShardCursor.start(chain, shard)
    cursor = ShardCursor.from_bytes(raw)
    if cursor.shard != shard:
        raise TaskDiverged(f"shard {shard}: the state store holds shard {cursor.shard}; check the directories")
    return cursor


class Following:
    """One shard's store, block by block up to the log's end: whatever recovers, stands by or reads is this."""

    def __init__(self, chain: Chain, shard: ShardId, log: EventLog, store: StateStore, verifier: Verifier) -> None:
        """Goes on where the store stands.

        Raises `TaskDiverged` where the log does not hold its block, or not the inputs that it consumed.
        """
        self._chain = chain
        self.shard = shard
        self._log = log
        self.store = store
        self._verifier = verifier
        cursor = self.committed = stored_cursor(chain, shard, store)
        offset = find_block(log, shard, cursor.height, stored_place(store)) if cursor.height >= 0 else 0
        self.place = Place(cursor.height, offset)
        self.consumed = check_consumed(log, cursor, store)
        self._reader = BlockReader(log, shard, cursor.height + 1, cursor.block_hash, start_offset=offset)
        self._waiting: deque[CommittedBlock] = deque()
        self._end_height: int | None = None

    committed: ShardCursor
    """Where the store stands."""
    place: Place
    """Where its block stands on the log; height -1 before the first."""
    consumed: Consumed
    """The last records that the store consumed."""

    def step(self, enough_bytes: int = _BYTES_A_STEP) -> bool:
        """Execute blocks until so many bytes of input; whether there were any whose inputs are here.

        Raises `TaskDiverged`, `Retryable`.
        """
        if not self._waiting:
            self._waiting.extend(self._reader.read(_BLOCKS_A_STEP))
        done = 0
        while self._waiting and done < enough_bytes:
            block = self._waiting[0]
            inputs = read_inputs(self._log, self.committed, block)
            if inputs is None:
                break
            self._execute(block, inputs)
            self._waiting.popleft()
            batches = (inputs.control, inputs.relay, inputs.transactions)
            done += 1 + sum(len(record.value or b"") for batch in batches for record in batch.records)
        return done > 0

    def _execute(self, block: CommittedBlock, inputs: BlockInputs) -> None:
        executed = follow(self._chain, self.committed, self.store.view(), block, inputs, self._verifier)
        place = Place(block.header.height, block.offset)
        # Whoever comes to lead from this store must be able to publish its last block's outputs once more.
        outputs = encode_appends(block_appends(executed))
        consumed = self.consumed.after(inputs)
        meta = {
            CURSOR: executed.cursor.to_bytes(),
            CONSUMED: consumed.to_bytes(),
            OUTPUTS: outputs,
            PLACE: place.to_bytes(),
        }
        self.store.commit(executed.prepared, meta)
        self.committed, self.place, self.consumed = executed.cursor, place, consumed

    @property
    def blocked(self) -> CommittedBlock | None:
        """The next block, where it was read and could not be executed."""
        return self._waiting[0] if self._waiting else None

    def progress(self) -> tuple[int, int]:
        """(height of the store, height of the log as this was first asked or read since). Raises as the log."""
        if self._end_height is None or self._end_height < self.committed.height:
            record = last_record(self._log, TopicPartition(Topic.BLOCKS, self.shard))
            self._end_height = -1 if record is None else _header(self.shard, record)[0].height
        read = self._waiting[-1].header.height if self._waiting else self.committed.height
        return self.committed.height, max(self._end_height, read)


def inputs_are_gone(block: CommittedBlock) -> TaskDiverged:
    """Of a block that stands on the log without what it consumed."""
    return TaskDiverged(
        f"shard {block.header.shard} height {block.header.height} offset {block.offset}: its inputs are "
        "not on the log; the input topics were truncated or replaced, restore them"
    )


class Recovery:
    """Catches one shard up. Create it only after the writer is fenced: an older tail could still grow."""

    def __init__(self, chain: Chain, shard: ShardId, log: EventLog, store: StateStore, verifier: Verifier) -> None:
        """Reads where the store stands. Raises `Retryable` while an open transaction could hide blocks."""
        log.settle(TopicPartition(Topic.BLOCKS, shard))
        self._log = log
        self._signed = SignedRoots(chain, log, verifier)
        self._store = store
        self._following = Following(chain, shard, log, store, verifier)

    @property
    def cursor(self) -> ShardCursor:
        """Where the store stands."""
        return self._following.committed

    @property
    def consumed(self) -> Consumed:
        """The last records that the store consumed."""
        return self._following.consumed

    def step(self) -> bool:
        """Follow some blocks; False at the log's end. Raises `TaskDiverged` on any disagreement."""
        progressed = self._following.step()
        block = self._following.blocked
        if not progressed and block is not None:
            raise inputs_are_gone(block)
        return progressed

    def progress(self) -> tuple[int, int]:
        """(height of the store, height of the log)."""
        return self._following.progress()

    def check_signed(self) -> None:
        """The highest signed state root on the log must be an ancestor of this shard, or its head."""
        shard, root = self.cursor.shard, self._signed.newest(self.cursor.shard)
        if root is None:
            return
        if root.height > self.cursor.height:
            raise TaskDiverged(
                f"shard {shard}: block {root.height} is signed but blocks end at {self.cursor.height}; the blocks "
                "topic was restored from an old backup, restore the newer one"
            )
        hashed = self.cursor.block_hash
        if root.height < self.cursor.height:
            hashed = block_at(self._log, shard, root.height, self._following.place)
        if hashed != root.block_hash:
            raise TaskDiverged(f"shard {shard}: block {root.height} is not the one that was signed; audit the log")

    def outputs(self) -> list[Append]:
        """What the last block put on the log, to be published once more."""
        raw = self._store.meta(OUTPUTS)
        return decode_appends(raw) if raw else []


def find_block(log: EventLog, shard: int, height: int, near: Place | None = None) -> int:
    """The first offset of block `height` on `blocks[shard]`, by bisection: heights never fall but for one repeat.

    `near`, the place of that block or of a later one, mostly saves the search. Raises `TaskDiverged` where the log
    does not hold it: the store is ahead of the log.
    """
    source = TopicPartition(Topic.BLOCKS, shard)
    if near is not None and 0 <= near.height - height <= _NEAR_BLOCKS:
        offset = _look_near(log, source, height, near)
        if offset is not None:
            return offset
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


def _look_near(log: EventLog, source: TopicPartition, height: int, near: Place) -> int | None:
    """A block takes its own offset and its transaction's end; here and there one was published again."""
    back = near.height - height
    start = max(0, near.offset - 2 * back - _NEAR_SLACK) if back else near.offset
    if near.offset >= log.end_offset(source):
        return None
    first = True
    while start <= near.offset and (records := log.read(source, start, near.offset - start + 1, _RECORD_BYTES)):
        for record in records:
            found = _header(source.partition, record)[0].height
            # Of the first record seen nobody knows whether it is a repeat.
            if found == height and (not first or not back):
                return record.offset
            if found >= height:
                return None
            first = False
        start = records[-1].offset + 1
    return None


def block_at(log: EventLog, shard: int, height: int, near: Place | None = None) -> BlockHash:
    """The hash of a committed block. Raises `TaskDiverged` where the log does not hold it."""
    offset = find_block(log, shard, height, near)
    record = log.read(TopicPartition(Topic.BLOCKS, shard), offset, 1, _RECORD_BYTES)[0]
    return _header(shard, record)[1]


def _header(shard: int, record: LogRecord) -> tuple[BlockHeader, BlockHash]:
    try:
        return BlockHeader.from_record(record.value)
    except PoisonRecord as error:
        message = f"shard {shard} offset {record.offset}: {error}; blocks are written by workers only"
        raise TaskDiverged(message) from None
