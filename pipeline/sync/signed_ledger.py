"""What is under a quorum: the heads of all shards, the ledger tree, and bundles in flight between signed blocks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.codec.types import Hash32
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import StateRoot
from pipeline.ledger.control import KeySignature
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.shard_map import ALL_SLOTS
from pipeline.sync.headers import CheckedHead
from pipeline.tree.shard_tree import ShardTree

Channel = tuple[int, int]
"""Source and destination of a relay channel."""


class SignedShard(NamedTuple):
    """A shard's signed head. `next_offset`: where to read `blocks` on; 0 before block 0."""

    head: StateRoot
    cursor: ShardCursor
    next_offset: int


@dataclass(frozen=True, slots=True)
class SignedLedger:
    """The ledger as of one round; round -1 is before the first. Index of `shards` = shard.

    `checkpoint` is the round's datum, `signatures` its first k by offset, `advanced` the shards that it moved.
    `in_flight`: sent by a signed block and not executed by one: channel -> sequence -> head, ascending.
    """

    round: int
    checkpoint: bytes
    checkpoint_hash: Hash32
    timestamp_ms: int
    control_sequence: int
    signatures: tuple[KeySignature, ...]
    advanced: tuple[int, ...]
    shards: tuple[SignedShard, ...]
    tree: ShardTree
    in_flight: Mapping[Channel, Mapping[int, Hash32]]

    @classmethod
    def start(cls, chain: Chain) -> "SignedLedger":
        """Before round 0."""
        return cls(
            round=-1,
            checkpoint=b"",
            checkpoint_hash=Hash32(chain.chain_id),
            timestamp_ms=chain.genesis.created_ms,
            control_sequence=0,
            signatures=(),
            advanced=(),
            shards=(),
            tree=ShardTree.of_owned(ALL_SLOTS, {}),
            in_flight={},
        )

    def shard(self, chain: Chain, shard: int) -> SignedShard:
        """A shard's signed head, also of one that has none yet."""
        if shard < len(self.shards):
            return self.shards[shard]
        return SignedShard(StateRoot(shard), ShardCursor.start(chain, shard), 0)

    def checked_head(self, chain: Chain, shard: int) -> CheckedHead:
        """Where the header checks of a shard go on."""
        owned = chain.shard_map.slots_of(shard)
        roots = self.tree.slot_roots()
        own = {slot: roots[slot] for slot in owned}
        return CheckedHead(self.shard(chain, shard).cursor, ShardTree.of_owned(owned, own))

    @property
    def heads(self) -> tuple[StateRoot, ...]:
        """The leaves of `heads_root`."""
        return tuple(item.head for item in self.shards)
