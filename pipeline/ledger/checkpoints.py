"""Checkpoints: consistent cuts of all shards, and the signed state roots that subscribers verify."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import error as StructError  # noqa: N812 - the module has no class of its own name
from typing import Any

from pipeline.codec.avro import codec
from pipeline.codec.types import ZERO32, BlockHash, ChainId, Hash32, tagged_hash
from pipeline.errors import PoisonRecord
from pipeline.ledger.control import KeySignature
from pipeline.ledger.packing import ADVANCED_ENTRY
from pipeline.tree.rfc6962 import merkle_root


class Assurance(IntEnum):
    """What a signer did before it signed: checked headers, or executed every block again."""

    HEADERS = 0
    EXECUTION = 1


@dataclass(frozen=True, slots=True)
class StateRoot:
    """The head of one shard; height -1 and zero hashes where it has no signed block."""

    shard: int
    height: int = -1
    block_hash: BlockHash = BlockHash(ZERO32)  # noqa: RUF009 - a constant
    state_root: Hash32 = ZERO32
    timestamp_ms: int = 0
    previous_height: int = -1
    previous_block_hash: BlockHash = BlockHash(ZERO32)  # noqa: RUF009 - a constant

    def to_bytes(self) -> bytes:
        """The bare datum: a leaf of `heads_root` at index = shard."""
        return codec("StateRoot").encode({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_bytes(cls, datum: bytes) -> "StateRoot":
        """Decode a canonical datum. Raises `PoisonRecord`."""
        return cls(**codec("StateRoot").decode(datum))


def heads_root(heads: Sequence[StateRoot]) -> Hash32:
    """RFC 6962 root over the heads of all active shards, index = shard."""
    assert all(head.shard == index for index, head in enumerate(heads)), "heads stand at their shard's index"
    return merkle_root([head.to_bytes() for head in heads])


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One round: what signers sign, under the context `hauptbuch/checkpoint/v1`.

    `previous_hash` is the chain id in round 0.
    """

    chain_id: ChainId
    round: int
    previous_hash: Hash32
    timestamp_ms: int
    control_sequence: int
    assurance: Assurance
    ledger_root: Hash32
    heads_root: Hash32

    def to_bytes(self) -> bytes:
        """The bare datum."""
        value: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return codec("Checkpoint").encode({**value, "assurance": int(self.assurance)})

    @classmethod
    def from_bytes(cls, datum: bytes) -> "Checkpoint":
        """Decode a canonical datum. Raises `PoisonRecord`."""
        value = codec("Checkpoint").decode(datum)
        try:
            return cls(**{**value, "assurance": Assurance(value["assurance"])})
        except ValueError:
            raise PoisonRecord(f"unknown assurance {value['assurance']}") from None


def checkpoint_hash(datum: bytes) -> Hash32:
    """H(`checkpoint`, bare datum)."""
    return tagged_hash("checkpoint", datum)


@dataclass(frozen=True, slots=True)
class CheckpointProposal:
    """A round's cut; `advanced` lists (shard, height), ascending: heads not listed stay."""

    checkpoint: bytes
    advanced: tuple[tuple[int, int], ...]

    def to_record(self) -> bytes:
        """The framed record value for `checkpoints`."""
        c = codec("CheckpointProposal")
        packed = b"".join([ADVANCED_ENTRY.pack(*item) for item in self.advanced])
        return c.frame(c.encode({"checkpoint": self.checkpoint, "advanced": packed}))

    @classmethod
    def from_record(cls, record: bytes | None) -> "CheckpointProposal":
        """Decode a framed canonical record. Raises `PoisonRecord`."""
        c = codec("CheckpointProposal")
        value = c.decode(c.unframe(record))
        try:
            advanced = tuple((shard, height) for shard, height in ADVANCED_ENTRY.iter_unpack(value["advanced"]))
        except StructError:
            raise PoisonRecord("a proposal's packed heads are ragged") from None
        return cls(value["checkpoint"], advanced)


@dataclass(frozen=True, slots=True)
class CheckpointSignature:
    """One attestor's signature of a round's proposal."""

    round: int
    checkpoint_hash: Hash32
    signer: Hash32
    suite: int
    signature: bytes

    def to_record(self) -> bytes:
        """The framed record value for `checkpoints`."""
        c = codec("CheckpointSignature")
        return c.frame(c.encode({name: getattr(self, name) for name in self.__slots__}))

    @classmethod
    def from_record(cls, record: bytes | None) -> "CheckpointSignature":
        """Decode a framed canonical record. Raises `PoisonRecord`."""
        c = codec("CheckpointSignature")
        return cls(**c.decode(c.unframe(record)))


@dataclass(frozen=True, slots=True)
class SignedStateRoot:
    """A shard's head under a quorum: self-contained.

    `path`: RFC 6962 inclusion of `state_root` among `heads` leaves, index = shard.
    """

    state_root: bytes
    heads: int
    path: tuple[Hash32, ...]
    checkpoint: bytes
    signatures: tuple[KeySignature, ...]

    def to_bytes(self) -> bytes:
        """The bare datum."""
        value: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        value["path"] = b"".join(self.path)
        value["signatures"] = [signature.to_dict() for signature in self.signatures]
        return codec("SignedStateRoot").encode(value)

    @classmethod
    def from_bytes(cls, datum: bytes) -> "SignedStateRoot":
        """Decode a canonical datum. Raises `PoisonRecord`."""
        value = codec("SignedStateRoot").decode(datum)
        packed = value["path"]
        if len(packed) % 32:
            raise PoisonRecord("a signed state root's path is ragged")
        path = tuple(Hash32(packed[i : i + 32]) for i in range(0, len(packed), 32))
        signatures = tuple(KeySignature(**item) for item in value["signatures"])
        return cls(**{**value, "path": path, "signatures": signatures})

    def to_record(self) -> bytes:
        """The framed record value for `state-roots`."""
        return codec("SignedStateRoot").frame(self.to_bytes())

    @classmethod
    def from_record(cls, record: bytes | None) -> "SignedStateRoot":
        """Decode a framed canonical record. Raises `PoisonRecord`."""
        return cls.from_bytes(codec("SignedStateRoot").unframe(record))


def key_signatures(signatures: Iterable[CheckpointSignature]) -> tuple[KeySignature, ...]:
    """The signatures as state roots carry them."""
    return tuple(KeySignature(item.signer, item.suite, item.signature) for item in signatures)
