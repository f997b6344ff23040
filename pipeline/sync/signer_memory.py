"""What a signer remembers on its own disk: the newest round that it may have signed, and the newest block a shard.

Keys: `g/signed` → CheckpointProposal record; `g/next-offset` → offset:8; `g/head/` ‖ shard:2 → height:8 ‖ hash:32.
Integers are big-endian. Written and synced before the key is used.
"""

from collections.abc import Mapping
from struct import Struct
from typing import Final, NamedTuple

from pipeline.codec.types import BlockHash, Hash32
from pipeline.errors import Fatal, PoisonRecord, TaskDiverged
from pipeline.kv.port import KeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Checkpoint, CheckpointProposal, checkpoint_hash

_SIGNED: Final = b"g/signed"
_NEXT_OFFSET: Final = b"g/next-offset"
_HEAD: Final = Struct(">q32s")
_OFFSET: Final = Struct(">Q")


class SignedRound(NamedTuple):
    """A round that may have been signed; its proposal where it is known."""

    round: int
    checkpoint_hash: Hash32
    proposal: CheckpointProposal | None


class SignedBlock(NamedTuple):
    """A block that may have been signed, as a shard's head."""

    height: int
    block_hash: BlockHash


class SignerMemory:
    """The memory of one signer. Reading raises `Fatal` where it is damaged."""

    def __init__(self, kv: KeyValue, chain: Chain) -> None:
        """`kv`: under keys beginning with `g/`."""
        self._kv = kv
        self._chain = chain

    def last(self) -> SignedRound | None:
        """The newest round. Raises `TaskDiverged` where it is another chain's."""
        raw = self._kv.get(_SIGNED)
        if raw is None:
            return None
        try:
            proposal = CheckpointProposal.from_record(raw)
            checkpoint = Checkpoint.from_bytes(proposal.checkpoint)
        except PoisonRecord as error:
            raise _damaged(str(error)) from None
        if checkpoint.chain_id != self._chain.chain_id:
            raise TaskDiverged("the signer's local memory belongs to another chain: give each chain a directory")
        return SignedRound(checkpoint.round, checkpoint_hash(proposal.checkpoint), proposal)

    def next_offset(self) -> int:
        """Up to where `checkpoints` had been read when the newest round was signed."""
        offset = self._kv.get(_NEXT_OFFSET)
        if offset is not None and len(offset) != _OFFSET.size:
            raise _damaged(f"an offset of {len(offset)} bytes")
        number: int = 0 if offset is None else _OFFSET.unpack(offset)[0]
        return number

    def head(self, shard: int) -> SignedBlock | None:
        """The newest block of a shard."""
        raw = self._kv.get(_head_key(shard))
        if raw is None:
            return None
        if len(raw) != _HEAD.size:
            raise _damaged(f"the head of shard {shard} has {len(raw)} bytes")
        return SignedBlock(*_HEAD.unpack(raw))

    def remember_heads(self, heads: Mapping[int, SignedBlock]) -> None:
        """Shard -> its newest block; synced."""
        self._kv.write(_heads_batch(heads), sync=True)

    def remember(self, proposal: CheckpointProposal, next_offset: int, heads: Mapping[int, SignedBlock]) -> None:
        """A round that is about to be signed, with the heads that it advances; synced."""
        self._kv.write(
            {_SIGNED: proposal.to_record(), _NEXT_OFFSET: _OFFSET.pack(next_offset), **_heads_batch(heads)}, sync=True
        )


def _heads_batch(heads: Mapping[int, SignedBlock]) -> dict[bytes, bytes | None]:
    return {_head_key(shard): _HEAD.pack(*head) for shard, head in heads.items()}


def _head_key(shard: int) -> bytes:
    return b"g/head/" + shard.to_bytes(2, "big")


def _damaged(what: str) -> Fatal:
    return Fatal(f"the signer's local memory is damaged ({what}): restore its directory")
