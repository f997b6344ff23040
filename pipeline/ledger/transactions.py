"""Signed transactions: what producers publish.

`tx_id` = H(`transaction`, bare datum of the body); the signature covers that datum under the FIPS 204/205 context
`hauptbuch/transaction/v1`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

from pipeline.codec.avro import NAMESPACE, codec
from pipeline.codec.types import Address, AssetId, ChainId, TxId, tagged_hash
from pipeline.codec.varint import NotCanonical, read_int, read_long, read_prefixed
from pipeline.errors import PoisonRecord
from pipeline.ledger.genesis import PROTOCOL


class Mode(IntEnum):
    """What the first failing entry does."""

    ATOMIC = 0
    INDEPENDENT = 1


@dataclass(frozen=True, slots=True)
class Transfer:
    """Moves amounts of `asset`; `entries` is n x (to 32 ‖ amount 16)."""

    asset: AssetId
    entries: bytes
    reference: bytes = b""


@dataclass(frozen=True, slots=True)
class CreateAsset:
    """Creates the asset whose issuer is the sender. `symbol`: UTF-8 bytes."""

    symbol: bytes
    decimals: int = 0


@dataclass(frozen=True, slots=True)
class Mint:
    """Issues amounts of `asset`; `entries` is n x (to 32 ‖ amount 16). Issuer only."""

    asset: AssetId
    entries: bytes
    reference: bytes = b""


@dataclass(frozen=True, slots=True)
class Burn:
    """Destroys `amount` of the issuer's own balance."""

    asset: AssetId
    amount: int


@dataclass(frozen=True, slots=True)
class Freeze:
    """Freezes or thaws one account's balance of one asset. Issuer only."""

    asset: AssetId
    account: Address
    frozen: bool


@dataclass(frozen=True, slots=True)
class RotateKey:
    """Replaces the sender's key. `signature`: by the new key over `rotation_message`."""

    suite: int
    public_key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class PutData:
    """Writes the sender's record `name`."""

    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class DeleteData:
    """Deletes the sender's record `name`."""

    name: bytes


Operation = Transfer | CreateAsset | Mint | Burn | Freeze | RotateKey | PutData | DeleteData
MAX_OPERATIONS: Final = 65_535
"""An entry index has two bytes, so a body of more operations is no body at all."""


class TransactionBody(NamedTuple):
    """What a sender asks for. `gas_price`: fee asset minor units per gas; `mode`: a `Mode` if valid."""

    chain_id: ChainId
    sender: Address
    nonce: int
    operations: tuple[Operation, ...]
    mode: int = Mode.ATOMIC
    gas_limit: int = 2**62
    gas_price: int = 0
    valid_until_ms: int | None = None
    protocol: int = PROTOCOL

    def to_bytes(self) -> bytes:
        """The bare datum: what is signed."""
        return codec("TransactionBody").encode(
            {
                "protocol": self.protocol,
                "chain_id": self.chain_id,
                "sender": self.sender,
                "nonce": self.nonce,
                "valid_until_ms": self.valid_until_ms,
                "gas_limit": self.gas_limit,
                "gas_price": self.gas_price.to_bytes(16, "big"),
                "mode": int(self.mode),
                "operations": [_operation_value(operation) for operation in self.operations],
            }
        )

    @classmethod
    def from_bytes(cls, datum: bytes) -> "TransactionBody":
        """Decode a canonical datum. Raises `PoisonRecord`."""
        try:
            return _read_body(datum)
        except (NotCanonical, IndexError):
            raise PoisonRecord("undecodable TransactionBody: not a canonical datum") from None


class SignedTransaction(NamedTuple):
    """A body's datum and its sender's signature over it."""

    body: bytes
    suite: int
    public_key: bytes | None
    signature: bytes

    def to_record(self) -> bytes:
        """The framed record value for `transactions`."""
        c = codec("SignedTransaction")
        return c.frame(
            c.encode(
                {
                    "body": self.body,
                    "suite": self.suite,
                    "public_key": self.public_key,
                    "signature": self.signature,
                }
            )
        )

    @classmethod
    def from_record(cls, record: bytes | None) -> "SignedTransaction":
        """Decode a framed canonical record. Raises `PoisonRecord`."""
        c = codec("SignedTransaction")
        if record is None or not record.startswith(c.framing):
            record = c.framing + c.unframe(record)  # raises
        try:
            return _read_signed(record, len(c.framing))
        except (NotCanonical, IndexError):
            raise PoisonRecord("undecodable SignedTransaction: not a canonical datum") from None

    @property
    def tx_id(self) -> TxId:
        """H(`transaction`, body)."""
        return tx_id_of(self.body)


def tx_id_of(body: bytes) -> TxId:
    """H(`transaction`, bare datum of a body)."""
    return tagged_hash("transaction", body)  # type: ignore[return-value]  # no call of NewType per transaction


def asset_id_of(issuer: Address, symbol: bytes) -> AssetId:
    """The issuer's first 12 bits (so it lives in its slot), then the last 244 of H(`asset`, issuer ‖ symbol)."""
    digest = tagged_hash("asset", issuer, symbol)
    return AssetId(issuer[:1] + bytes([issuer[1] & 0xF0 | digest[1] & 0x0F]) + digest[2:])


def rotation_message(chain_id: ChainId, sender: Address, nonce: int) -> bytes:
    """What a new key signs to take over: chain ‖ address ‖ nonce (8 bytes, big-endian)."""
    return chain_id + sender + nonce.to_bytes(8, "big")


# These two records come once a transaction and from anybody, so they are read by hand: a fifth of the generic codec's
# time, and hostile bytes are refused at the first one that is not canonical. Tests hold both to the generic codec.


_BRANCH_1: Final = 2  # a union's second branch: the zigzag of 1 in one byte


def _read_signed(datum: bytes, position: int) -> SignedTransaction:
    body, position = read_prefixed(datum, position)
    suite, position = read_int(datum, position)
    branch = datum[position]
    key: bytes | None = None
    if branch == _BRANCH_1:
        key, position = read_prefixed(datum, position + 1)
    elif branch:
        raise NotCanonical
    else:
        position += 1
    signature, position = read_prefixed(datum, position)
    if position != len(datum):
        raise NotCanonical
    return SignedTransaction(body, suite, key, signature)


def _read_body(datum: bytes) -> TransactionBody:
    protocol, start = read_int(datum, 0)
    nonce, position = read_long(datum, start + 64)
    valid_until_ms: int | None = None
    branch = datum[position]
    if branch == _BRANCH_1:
        valid_until_ms, position = read_long(datum, position + 1)
    elif branch:
        raise NotCanonical
    else:
        position += 1
    gas_limit, price_at = read_long(datum, position)
    mode, position = read_int(datum, price_at + 16)
    count, position = read_long(datum, position)
    if not 0 <= count <= MAX_OPERATIONS:
        raise NotCanonical
    operations: list[Operation] = []
    for _ in range(count):
        branch = datum[position]
        if branch & 1 or branch >= 2 * len(_READERS):
            raise NotCanonical
        operation, position = _READERS[branch >> 1](datum, position + 1)
        operations.append(operation)
    # The array's end, which also stands for an empty one; and so every slice above was whole.
    if datum[position - (not count) :] != b"\x00":
        raise NotCanonical
    chain_id, sender = ChainId(datum[start : start + 32]), Address(datum[start + 32 : start + 64])
    gas_price = int.from_bytes(datum[price_at : price_at + 16], "big")
    return TransactionBody(
        chain_id, sender, nonce, tuple(operations), mode, gas_limit, gas_price, valid_until_ms, protocol
    )


def _read_entries(kind: type[Transfer] | type[Mint]) -> Callable[[bytes, int], tuple[Operation, int]]:
    def read(datum: bytes, position: int) -> tuple[Operation, int]:
        asset = AssetId(datum[position : position + 32])
        entries, position = read_prefixed(datum, position + 32)
        reference, position = read_prefixed(datum, position)
        return kind(asset, entries, reference), position

    return read


def _read_create_asset(datum: bytes, position: int) -> tuple[Operation, int]:
    symbol, position = read_prefixed(datum, position)
    decimals, position = read_int(datum, position)
    return CreateAsset(symbol, decimals), position


def _read_burn(datum: bytes, position: int) -> tuple[Operation, int]:
    amount = int.from_bytes(datum[position + 32 : position + 48], "big")
    return Burn(AssetId(datum[position : position + 32]), amount), position + 48


def _read_freeze(datum: bytes, position: int) -> tuple[Operation, int]:
    frozen = datum[position + 64]
    if frozen > 1:
        raise NotCanonical
    asset, account = AssetId(datum[position : position + 32]), Address(datum[position + 32 : position + 64])
    return Freeze(asset, account, bool(frozen)), position + 65


def _read_rotate_key(datum: bytes, position: int) -> tuple[Operation, int]:
    suite, position = read_int(datum, position)
    key, position = read_prefixed(datum, position)
    signature, position = read_prefixed(datum, position)
    return RotateKey(suite, key, signature), position


def _read_put_data(datum: bytes, position: int) -> tuple[Operation, int]:
    name, position = read_prefixed(datum, position)
    value, position = read_prefixed(datum, position)
    return PutData(name, value), position


def _read_delete_data(datum: bytes, position: int) -> tuple[Operation, int]:
    name, position = read_prefixed(datum, position)
    return DeleteData(name), position


_READERS: Final = (
    _read_entries(Transfer),
    _read_create_asset,
    _read_entries(Mint),
    _read_burn,
    _read_freeze,
    _read_rotate_key,
    _read_put_data,
    _read_delete_data,
)
"""By branch of the schema's union."""


def _operation_value(operation: Operation) -> tuple[str, dict[str, Any]]:
    fields = {name: getattr(operation, name) for name in operation.__slots__}
    if isinstance(operation, Burn):
        fields["amount"] = operation.amount.to_bytes(16, "big")
    return NAMESPACE + type(operation).__name__, fields
