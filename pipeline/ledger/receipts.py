"""Receipts and dead letters: what became of each input record."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from struct import error as StructError  # noqa: N812 - the module has no class of its own name
from typing import Any, Final, NamedTuple

from pipeline.codec.avro import NAMESPACE, codec
from pipeline.codec.topics import LogRecord, TopicPartition
from pipeline.codec.types import ZERO32, Address, ChainId, Hash32, TxId
from pipeline.codec.varint import long_bytes, prefixed
from pipeline.errors import PoisonRecord
from pipeline.ledger.codes import Code, DeadLetterReason
from pipeline.ledger.genesis import CHUNK_BYTES
from pipeline.ledger.packing import BUNDLE_FAILURE_ENTRY, CHANNEL_USE, FAILURE_ENTRY

_DEAD_HEAD_BYTES: Final = 1_024
_CHUNK_OVERHEAD_BYTES: Final = 128


class EntryFailure(NamedTuple):
    """An entry of a transaction that did not happen."""

    entry: int
    code: Code


class BundleFailure(NamedTuple):
    """An effect of a bundle that was refused: the group's index in the bundle, and the entry's in its transaction."""

    group: int
    entry: int
    code: Code


class ChannelUse(NamedTuple):
    """A bundle that carries effects of the receipt's record."""

    destination: int
    sequence: int


class TransactionReceipt(NamedTuple):
    """Of one decodable record of `transactions`; `fee` is what was taken, in fee-asset minor units."""

    partition: int
    offset: int
    tx_id: TxId
    sender: Address
    nonce: int
    code: Code
    nonce_consumed: bool
    gas_used: int
    fee: int
    failures: tuple[EntryFailure, ...] = ()
    channels: tuple[ChannelUse, ...] = ()


@dataclass(frozen=True, slots=True)
class BundleReceipt:
    """Of one executed relay bundle; no failures means all `count` effects settled."""

    offset: int
    source: int
    sequence: int
    count: int
    failures: tuple[BundleFailure, ...] = ()
    channels: tuple[ChannelUse, ...] = ()


@dataclass(frozen=True, slots=True)
class ControlReceipt:
    """Of one valid control record; genesis has sequence 0."""

    offset: int
    sequence: int
    code: Code
    channels: tuple[ChannelUse, ...] = ()


Receipt = TransactionReceipt | BundleReceipt | ControlReceipt


def encode_receipt(receipt: Receipt, channels: Sequence[ChannelUse] | None = None) -> bytes:
    """The bare datum: a leaf of `receipts_root`. `channels`, where given, stand for the receipt's."""
    packed = b"".join([CHANNEL_USE.pack(*use) for use in (receipt.channels if channels is None else channels)])
    if isinstance(receipt, TransactionReceipt):
        return _encode_transaction_receipt(receipt, packed)
    value: dict[str, Any] = {name: getattr(receipt, name) for name in receipt.__slots__}
    value["channels"] = packed
    match receipt:
        case BundleReceipt():
            value["failures"] = b"".join([BUNDLE_FAILURE_ENTRY.pack(*failure) for failure in receipt.failures])
        case ControlReceipt():
            value["code"] = int(receipt.code)
    return codec("Receipt").encode({"outcome": (NAMESPACE + type(receipt).__name__, value)})


def _encode_transaction_receipt(receipt: TransactionReceipt, channels: bytes) -> bytes:
    """By hand, since there is one a transaction: a third of the generic codec's time."""
    partition, offset, tx_id, sender, nonce, code, nonce_consumed, gas_used, fee, failures, _ = receipt
    return b"".join(
        [
            b"\x00",  # the union's branch
            long_bytes(partition),
            long_bytes(offset),
            tx_id,
            sender,
            long_bytes(nonce),
            long_bytes(code),
            b"\x01" if nonce_consumed else b"\x00",
            long_bytes(gas_used),
            fee.to_bytes(16, "big"),
            prefixed(b"".join([FAILURE_ENTRY.pack(*failure) for failure in failures])),
            prefixed(channels),
        ]
    )


def decode_receipt(datum: bytes) -> Receipt:
    """Decode a canonical datum. Raises `PoisonRecord`."""
    name, value = codec("Receipt").decode(datum)["outcome"]
    try:
        value["channels"] = tuple([ChannelUse(*use) for use in CHANNEL_USE.iter_unpack(value["channels"])])
        match name.removeprefix(NAMESPACE):
            case "TransactionReceipt":
                value["fee"] = int.from_bytes(value["fee"], "big")
                value["code"] = Code(value["code"])
                value["failures"] = tuple(
                    [EntryFailure(entry, Code(code)) for entry, code in FAILURE_ENTRY.iter_unpack(value["failures"])]
                )
                return TransactionReceipt(**value)
            case "BundleReceipt":
                value["failures"] = tuple(
                    [BundleFailure(g, e, Code(c)) for g, e, c in BUNDLE_FAILURE_ENTRY.iter_unpack(value["failures"])]
                )
                return BundleReceipt(**value)
            case _:
                value["code"] = Code(value["code"])
                return ControlReceipt(**value)
    except (ValueError, StructError) as error:
        raise PoisonRecord(f"a receipt that does not hold together: {error}") from None


@dataclass(frozen=True, slots=True)
class ReceiptChunk:
    """Some receipts (bare datums) of one block, the first of which has index `first_index`."""

    chain_id: ChainId
    shard: int
    height: int
    first_index: int
    receipts: tuple[bytes, ...]

    def to_record(self) -> bytes:
        """The framed record value for `receipts`."""
        c = codec("ReceiptChunk")
        return c.frame(c.encode({name: getattr(self, name) for name in self.__slots__}))

    @classmethod
    def from_record(cls, record: bytes | None) -> "ReceiptChunk":
        """Decode a framed canonical record. Raises `PoisonRecord`."""
        c = codec("ReceiptChunk")
        value = c.decode(c.unframe(record))
        return cls(**{**value, "receipts": tuple(value["receipts"])})


def chunk_receipts(chain_id: ChainId, shard: int, height: int, receipts: Sequence[bytes]) -> Iterator[ReceiptChunk]:
    """All receipts of a block, in chunks of at most `CHUNK_BYTES` encoded."""
    start, size = 0, _CHUNK_OVERHEAD_BYTES
    for index, datum in enumerate(receipts):
        cost = len(datum) + 5
        if size + cost > CHUNK_BYTES and index > start:
            yield ReceiptChunk(chain_id, shard, height, start, tuple(receipts[start:index]))
            start, size = index, _CHUNK_OVERHEAD_BYTES
        size += cost
    if start < len(receipts):
        yield ReceiptChunk(chain_id, shard, height, start, tuple(receipts[start:]))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An input record that could not be executed, and why; `length` is -1 where its value was null."""

    chain_id: ChainId
    shard: int
    height: int
    topic: int
    partition: int
    offset: int
    length: int
    sha256: Hash32
    reason: DeadLetterReason
    head: bytes

    @classmethod
    def of(
        cls,
        chain_id: ChainId,
        shard: int,
        height: int,
        source: TopicPartition,
        record: LogRecord,
        reason: DeadLetterReason,
    ) -> "DeadLetter":
        """The dead letter of a record. At most 1 KiB is kept: what fits in compressed may not fit out again."""
        body = record.value
        length, digest = (-1, ZERO32) if body is None else (len(body), Hash32(sha256(body).digest()))
        return cls(
            chain_id, shard, height, int(source.topic), source.partition, record.offset,
            length, digest, reason, (body or b"")[:_DEAD_HEAD_BYTES],
        )  # fmt: skip

    def to_record(self) -> bytes:
        """The framed record value for `dead-letters`."""
        c = codec("DeadLetter")
        value = {name: getattr(self, name) for name in self.__slots__}
        return c.frame(c.encode({**value, "reason": int(self.reason)}))

    @classmethod
    def from_record(cls, record: bytes | None) -> "DeadLetter":
        """Decode a framed canonical record. Raises `PoisonRecord`."""
        c = codec("DeadLetter")
        value = c.decode(c.unframe(record))
        try:
            return cls(**{**value, "reason": DeadLetterReason(value["reason"])})
        except ValueError:
            raise PoisonRecord(f"unknown dead letter reason {value['reason']}") from None
