"""Assurance EXECUTION: every block is executed again, as a follower with a state store of its own."""

from typing import Final

from pipeline.codec.topics import TopicPartition
from pipeline.crypto.verifier import Verifier
from pipeline.errors import TaskDiverged
from pipeline.ledger.chain import Chain
from pipeline.ledger.cursor import ShardCursor
from pipeline.log.port import EventLog
from pipeline.shards.block_reader import BlockReader, CommittedBlock
from pipeline.shards.follower import follow, read_inputs
from pipeline.shards.recovery import find_block
from pipeline.state.store import StateStore

CURSOR: Final = b"cursor"
_BATCH: Final = 16


class Executor:
    """Executes one shard's blocks, in order, into its own store.

    The store is a view of the log like any other: it may be ahead of the signed head, or behind it after a power cut.
    Of the blocks below its own it kept no hashes: they are those that it executed if they lead to the block it is at.
    """

    def __init__(self, chain: Chain, log: EventLog, shard: int, store: StateStore, verifier: Verifier) -> None:
        """Goes on where the store stands."""
        self._chain = chain
        self._log = log
        self._store = store
        self._verifier = verifier
        raw = store.meta(CURSOR)
        self._cursor = ShardCursor.start(chain, shard) if raw is None else ShardCursor.from_bytes(raw)
        self._catching_up: BlockReader | None = None
        self._vouched = raw is None

    @property
    def is_vouched(self) -> bool:
        """Whether the block that the store is at was seen: what was read before leads to it, and was executed."""
        return self._vouched

    @property
    def height(self) -> int:
        """Height of the newest executed block."""
        return self._cursor.height

    def is_behind(self, signed: ShardCursor) -> bool:
        """Whether blocks up to the signed head are still to be executed."""
        cursor = self._cursor
        if cursor.height == signed.height:
            if cursor.block_hash != signed.block_hash:
                raise TaskDiverged(
                    f"shard {cursor.shard} height {cursor.height}: the attesting store executed another block than was "
                    "signed; audit the shard"
                )
            self._vouched = True
        return cursor.height < signed.height

    def catch_up(self, signed: ShardCursor) -> bool:
        """Execute some blocks on the way to the signed head; False where their inputs are not visible yet.

        Raises `TaskDiverged`, as `execute`.
        """
        cursor = self._cursor
        reader, self._catching_up = self._catching_up, None  # kept only where all that it gave was executed
        if reader is None:
            offset = find_block(self._log, cursor.shard, cursor.height) if cursor.height >= 0 else 0
            reader = BlockReader(self._log, cursor.shard, cursor.height + 1, cursor.block_hash, start_offset=offset)
        blocks = reader.read(min(_BATCH, signed.height - cursor.height))
        if not blocks:
            raise TaskDiverged(
                f"shard {cursor.shard}: block {cursor.height + 1} is signed but not on the log: restore the topics"
            )
        for block in blocks:
            if not self.execute(block):
                return False
        self._catching_up = reader
        return True

    def execute(self, block: CommittedBlock) -> bool:
        """Execute the block, unless the store has it already; False where its inputs are not visible yet.

        A block below the store's own is taken as it is: until `is_vouched`, nobody may say that it was executed.
        Raises `TaskDiverged` where the result is another, or an input does not even begin to hold what was consumed.
        """
        cursor = self._cursor
        if block.header.height <= cursor.height:
            if block.header.height == cursor.height:
                if block.block_hash != cursor.block_hash:
                    raise TaskDiverged(
                        f"shard {cursor.shard} height {cursor.height} offset {block.offset}: the attesting store "
                        "executed another block of this height; audit the shard"
                    )
                self._vouched = True
            return True
        inputs = read_inputs(self._log, cursor, block)
        if inputs is None:
            for item in block.header.inputs:
                require_end(self._log, block, item.source, item.next)
            return False
        executed = follow(self._chain, cursor, self._store.view(), block, inputs, self._verifier)
        self._store.commit(executed.prepared, {CURSOR: executed.cursor.to_bytes()})
        self._cursor = executed.cursor
        self._vouched = True  # it names the hash of the block that the store was at
        return True


def require_end(log: EventLog, block: CommittedBlock, source: TopicPartition, next_offset: int) -> None:
    """Halt where a block that stands on the log consumed what its input has not even begun to hold.

    The end counts open transactions, which hide records from readers: those are waited for.
    """
    end = log.end_offset(source)
    if next_offset > end:
        raise TaskDiverged(
            f"shard {block.header.shard} height {block.header.height} offset {block.offset}: the block consumed "
            f"{source.topic.topic_name}-{source.partition} to {next_offset}, which ends at {end}: restore that "
            "topic if it was cut, else audit the shard"
        )
