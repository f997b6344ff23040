"""Signed transactions: what producers publish.

`tx_id` = H(`transaction`, bare datum of the body); the signature covers that datum under the FIPS 204/205 context
`hauptbuch/transaction/v1`.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pipeline.codec.avro import NAMESPACE, codec
from pipeline.codec.types import Address, AssetId, ChainId, TxId, tagged_hash
from pipeline.codec.varint import GiveUp, read_int, read_long, read_prefixed
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


_TRANSFER_BRANCH, _MINT_BRANCH = 0, 2
Operation = Transfer | CreateAsset | Mint | Burn | Freeze | RotateKey | PutData | DeleteData
_OPERATIONS: dict[str, type[Any]] = {
    NAMESPACE + kind.__name__: kind
    for kind in (Transfer, CreateAsset, Mint, Burn, Freeze, RotateKey, PutData, DeleteData)
}


@dataclass(frozen=True, slots=True)
class TransactionBody:
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
        quick = _read_payment_body(datum)
        return cls._generic(datum) if quick is None else quick

    @classmethod
    def _generic(cls, datum: bytes) -> "TransactionBody":
        value = codec("TransactionBody").decode(datum)
        return cls(
            value["chain_id"],
            value["sender"],
            value["nonce"],
            tuple([_operation(name, fields) for name, fields in value["operations"]]),
            value["mode"],
            value["gas_limit"],
            int.from_bytes(value["gas_price"], "big"),
            value["valid_until_ms"],
            value["protocol"],
        )


@dataclass(frozen=True, slots=True)
class SignedTransaction:
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
        datum = c.unframe(record)
        quick = _read_signed(datum)
        if quick is not None:
            return quick
        value = c.decode(datum)
        return cls(value["body"], value["suite"], value["public_key"], value["signature"])

    @property
    def tx_id(self) -> TxId:
        """H(`transaction`, body)."""
        return tx_id_of(self.body)


def tx_id_of(body: bytes) -> TxId:
    """H(`transaction`, bare datum of a body)."""
    return TxId(tagged_hash("transaction", body))


def asset_id_of(issuer: Address, symbol: bytes) -> AssetId:
    """The issuer's first 12 bits (so it lives in its slot), then the last 244 of H(`asset`, issuer ‖ symbol)."""
    digest = tagged_hash("asset", issuer, symbol)
    return AssetId(issuer[:1] + bytes([issuer[1] & 0xF0 | digest[1] & 0x0F]) + digest[2:])


def rotation_message(chain_id: ChainId, sender: Address, nonce: int) -> bytes:
    """What a new key signs to take over: chain ‖ address ‖ nonce (8 bytes, big-endian)."""
    return chain_id + sender + nonce.to_bytes(8, "big")


def _read_signed(datum: bytes) -> SignedTransaction | None:
    """By hand where the datum is plainly canonical; else None.

    The generic codec takes four times as long for this record and the body, and both come once a transaction.
    """
    try:
        body, position = read_prefixed(datum, 0)
        suite, position = read_int(datum, position)
        branch, position = read_long(datum, position)
        key: bytes | None = None
        if branch == 1:
            key, position = read_prefixed(datum, position)
        signature, position = read_prefixed(datum, position)
    except (GiveUp, IndexError):
        return None
    if position != len(datum) or branch not in (0, 1):
        return None
    return SignedTransaction(body, suite, key, signature)


def _read_payment_body(datum: bytes) -> TransactionBody | None:
    """A body of transfers and mints by hand, where it is plainly canonical; else None."""
    try:
        protocol, start = read_int(datum, 0)
        nonce, position = read_long(datum, start + 64)
        valid_until_ms: int | None = None
        branch, position = read_long(datum, position)
        if branch == 1:
            valid_until_ms, position = read_long(datum, position)
        gas_limit, price_at = read_long(datum, position)
        mode, position = read_int(datum, price_at + 16)
        count, position = read_long(datum, position)
        operations: list[Operation] = []
        for _ in range(count):
            kind, asset_at = read_long(datum, position)
            if kind not in (_TRANSFER_BRANCH, _MINT_BRANCH):
                return None
            entries, position = read_prefixed(datum, asset_at + 32)
            reference, position = read_prefixed(datum, position)
            asset = AssetId(datum[asset_at : asset_at + 32])
            operations.append((Transfer if kind == _TRANSFER_BRANCH else Mint)(asset, entries, reference))
        is_whole = count > 0 and datum[position:] == b"\x00" and branch in (0, 1)
    except (GiveUp, IndexError):
        return None
    if not is_whole:
        return None
    chain_id, sender = ChainId(datum[start : start + 32]), Address(datum[start + 32 : start + 64])
    gas_price = int.from_bytes(datum[price_at : price_at + 16], "big")
    return TransactionBody(
        chain_id, sender, nonce, tuple(operations), mode, gas_limit, gas_price, valid_until_ms, protocol
    )


def _operation_value(operation: Operation) -> tuple[str, dict[str, Any]]:
    fields = {name: getattr(operation, name) for name in operation.__slots__}
    if isinstance(operation, Burn):
        fields["amount"] = operation.amount.to_bytes(16, "big")
    return NAMESPACE + type(operation).__name__, fields


def _operation(name: str, fields: dict[str, Any]) -> Operation:
    kind = _OPERATIONS.get(name)
    if kind is None:
        raise PoisonRecord(f"unknown operation {name}")
    if kind is Burn:
        return Burn(fields["asset"], int.from_bytes(fields["amount"], "big"))
    operation: Operation = kind(**fields)
    return operation
