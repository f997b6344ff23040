"""Whether a shard's store is what the log says it should be."""

from typing import Final

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.crypto.verifier import Verifier
from pipeline.errors import Fatal, InvalidShard, StateManagementFailed, TaskDiverged
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.cursor import ShardCursor
from pipeline.log.port import EventLog
from pipeline.shards.consumed import check_consumed
from pipeline.shards.recovery import block_at, find_block, stored_cursor
from pipeline.shards.signed_roots import SignedRoots
from pipeline.state.store import StateStore

_RECORD_BYTES: Final = 64 << 20


class ShardValidator:
    """Holds a shard's store against the log."""

    def __init__(self, chain: Chain, log: EventLog, verifier: Verifier) -> None:
        """Reads only."""
        self._chain = chain
        self._log = log
        self._roots = SignedRoots(chain, log, verifier)

    def validate(self, store: StateStore) -> ShardCursor:
        """Cursor, state root and channels agree with the header of the store's last block, which is on the log, as are
        the last signed one and the inputs last consumed; the header touched slots of this shard only. Returns where
        the store stands.

        Raises `InvalidShard` where something contradicts, `StateManagementFailed` for an unreadable store.
        """
        shard = store.shard
        try:
            cursor = stored_cursor(self._chain, shard, store)
            if cursor.height >= 0:
                self._check_head(store, cursor)
                check_consumed(self._log, cursor, store)
            signed = self._roots.newest(shard)
            if signed is not None and block_at(self._log, shard, signed.height) != signed.block_hash:
                raise InvalidShard(
                    f"shard {shard}: block {signed.height} is not the one that was signed; audit the log"
                )
        except TaskDiverged as error:
            raise InvalidShard(str(error)) from error
        except Fatal as error:
            raise StateManagementFailed(f"the state store of shard {shard} can't be read: {error}") from error
        return cursor

    def _check_head(self, store: StateStore, cursor: ShardCursor) -> None:
        source = TopicPartition(Topic.BLOCKS, cursor.shard)
        offset = find_block(self._log, cursor.shard, cursor.height)
        header, hashed = BlockHeader.from_record(self._log.read(source, offset, 1, _RECORD_BYTES)[0].value)
        owners = self._chain.shard_map.owners
        rules = [
            (hashed == cursor.block_hash, "the store followed another block than the log holds"),
            (header.state_root == store.state_root, "the store's state root is not the block's"),
            (header.cursors_root == cursor.cursors_root(), "the store's positions and channels are not the block's"),
            (all(owners[slot] == cursor.shard for slot, _, _ in header.slots), "it touched a slot of another shard"),
        ]
        for holds, complaint in rules:
            if not holds:
                raise InvalidShard(
                    f"shard {cursor.shard} height {cursor.height} offset {offset}: {complaint}; keep the store for "
                    "inquiry and restore it from a copy or the log"
                )
