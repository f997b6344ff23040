"""Control records: governance of the chain by k of n operators.

The control topic holds genesis at offset 0, then records numbered from 1 and chained by `previous_hash` =
H(`control`, previous datum) (chain_id for the first). Anything else there becomes a dead letter. What signers sign
is the datum up to the signatures, under the context `hauptbuch/control/v1`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.codec.avro import NAMESPACE, codec
from pipeline.codec.types import Address, Hash32, tagged_hash
from pipeline.errors import PoisonRecord
from pipeline.ledger.genesis import SignerKey


@dataclass(frozen=True, slots=True)
class CreateShard:
    """Activates the lowest idle partition."""

    shard: int


@dataclass(frozen=True, slots=True)
class SetAttestors:
    """Replaces the attestors; also signed by the old quorum."""

    attestors: tuple[SignerKey, ...]
    threshold: int


@dataclass(frozen=True, slots=True)
class SetProtocol:
    """Changes the protocol after the block that consumes it."""

    protocol: int


@dataclass(frozen=True, slots=True)
class CollectFees:
    """Moves every shard's gathered fees to one account."""

    to: Address


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Turns one not yet executed record into a dead letter; `sha256` of its value must match."""

    topic: int
    partition: int
    offset: int
    sha256: Hash32


@dataclass(frozen=True, slots=True)
class SetShardMap:
    """Moves slots; refused in protocol 1. `owners`: 4,096 x shard 2."""

    epoch: int
    owners: bytes


Action = CreateShard | SetAttestors | SetProtocol | CollectFees | Quarantine | SetShardMap
_ACTIONS: dict[str, type[Any]] = {
    NAMESPACE + kind.__name__: kind
    for kind in (CreateShard, SetAttestors, SetProtocol, CollectFees, Quarantine, SetShardMap)
}


@dataclass(frozen=True, slots=True)
class KeySignature:
    """A signature by a listed key; `signer` is its key_id."""

    signer: Hash32
    suite: int
    signature: bytes

    def to_dict(self) -> dict[str, Any]:
        """The Avro value."""
        return {"signer": self.signer, "suite": self.suite, "signature": self.signature}


def encode_action(protocol: int, action: Action) -> bytes:
    """The bare datum of `ControlBody`."""
    fields: dict[str, Any] = {name: getattr(action, name) for name in action.__slots__}
    if isinstance(action, SetAttestors):
        fields["attestors"] = [key.to_dict() for key in action.attestors]
    return codec("ControlBody").encode({"protocol": protocol, "action": (NAMESPACE + type(action).__name__, fields)})


def decode_action(body: bytes) -> tuple[int, Action]:
    """Protocol and action of a `ControlBody` datum. Raises `PoisonRecord`."""
    value = codec("ControlBody").decode(body)
    name, fields = value["action"]
    if name == NAMESPACE + "SetAttestors":
        fields["attestors"] = tuple(SignerKey(**key) for key in fields["attestors"])
    action: Action = _ACTIONS[name](**fields)
    return value["protocol"], action


@dataclass(frozen=True, slots=True)
class SignedControl:
    """One governance record."""

    chain_id: bytes
    sequence: int
    previous_hash: Hash32
    body: bytes
    signatures: tuple[KeySignature, ...] = ()

    def to_bytes(self) -> bytes:
        """The bare datum."""
        value: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        value["signatures"] = [signature.to_dict() for signature in self.signatures]
        return codec("SignedControl").encode(value)

    def message(self) -> bytes:
        """What is signed: the datum up to the signatures (an empty Avro array is one zero byte)."""
        unsigned = SignedControl(self.chain_id, self.sequence, self.previous_hash, self.body)
        return unsigned.to_bytes()[:-1]

    def to_record(self) -> bytes:
        """The framed record value for `control`."""
        return codec("SignedControl").frame(self.to_bytes())

    @classmethod
    def from_record(cls, record: bytes | None) -> tuple["SignedControl", bytes]:
        """Decode a framed canonical record; with its datum. Raises `PoisonRecord`."""
        c = codec("SignedControl")
        datum = c.unframe(record)
        value = c.decode(datum)
        signatures = tuple(KeySignature(**item) for item in value["signatures"])
        return cls(**{**value, "signatures": signatures}), datum


def control_hash(datum: bytes) -> Hash32:
    """H(`control`, bare datum): the next record's `previous_hash`, and the tx_id of its effects."""
    return tagged_hash("control", datum)


def signers_of(keys: Sequence[SignerKey], signatures: Sequence[KeySignature]) -> list[tuple[SignerKey, KeySignature]]:
    """Signatures that name a listed key and its suite. Raises `PoisonRecord` where one signer stands twice."""
    listed = {key.key_id: key for key in keys}
    if len({signature.signer for signature in signatures}) != len(signatures):
        raise PoisonRecord("a signer signed twice")
    return [
        (listed[signature.signer], signature)
        for signature in signatures
        if signature.signer in listed and listed[signature.signer].suite == signature.suite
    ]
