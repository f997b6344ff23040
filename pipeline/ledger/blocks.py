"""Block headers: what a shard did with a range of inputs, and what came of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError  # noqa: N812 - the module has no class of its own name
from typing import Any, Final, NamedTuple

from pipeline.codec.avro import codec
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import BlockHash, ChainId, Hash32, Height, ShardId, Slot, tagged_hash
from pipeline.errors import PoisonRecord
from pipeline.ledger.packing import SLOT_ENTRY, ChannelHead, pack_channels, unpack_channels
from pipeline.tree.rfc6962 import leaf_hash, merkle_root

_LEAF_OFFSET: Final = Struct(">QI")
_LENGTH: Final = Struct(">I")
_NULL: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class InputRange:
    """The offsets of one input partition that a block consumed: all committed records in [first, next)."""

    topic: int
    partition: int
    first: int
    next: int
    count: int
    root: Hash32

    def to_dict(self) -> dict[str, Any]:
        """The Avro value."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def source(self) -> TopicPartition:
        """Where the records stand."""
        return TopicPartition(Topic(self.topic), self.partition)


class SlotUpdate(NamedTuple):
    """A slot that a block touched: its root afterwards, and the gas spent on it."""

    slot: Slot
    root: Hash32
    gas: int


class Counts(NamedTuple):
    """Input records of a block by fate.

    `transactions`: nonce consumed; `rejected`: receipt without; `repeats`: bundles executed before, ignored.
    """

    transactions: int = 0
    rejected: int = 0
    bundles: int = 0
    repeats: int = 0
    controls: int = 0
    dead_letters: int = 0


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """One block. `block_hash` = H(`block`, bare datum)."""

    protocol: int
    chain_id: ChainId
    shard: ShardId
    height: Height
    map_epoch: int
    timestamp_ms: int
    previous_hash: BlockHash
    inputs: tuple[InputRange, ...]
    receipts_root: Hash32
    state_root: Hash32
    cursors_root: Hash32
    slots: tuple[SlotUpdate, ...]
    channels_out: tuple[ChannelHead, ...]
    channels_in: tuple[ChannelHead, ...]
    counts: Counts
    gas_used: int

    def to_bytes(self) -> bytes:
        """The bare datum."""
        value: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        value["inputs"] = [item.to_dict() for item in self.inputs]
        value["slots"] = b"".join([SLOT_ENTRY.pack(*item) for item in self.slots])
        value["channels_out"] = pack_channels(self.channels_out)
        value["channels_in"] = pack_channels(self.channels_in)
        value["counts"] = self.counts._asdict()
        return codec("BlockHeader").encode(value)

    @classmethod
    def from_bytes(cls, datum: bytes) -> "BlockHeader":
        """Decode a canonical datum. Raises `PoisonRecord`."""
        value = codec("BlockHeader").decode(datum)
        try:
            value["slots"] = tuple(
                [SlotUpdate(Slot(s), Hash32(r), g) for s, r, g in SLOT_ENTRY.iter_unpack(value["slots"])]
            )
            value["channels_out"] = tuple(unpack_channels(value["channels_out"]))
            value["channels_in"] = tuple(unpack_channels(value["channels_in"]))
            value["inputs"] = tuple([InputRange(**item) for item in value["inputs"]])
            if any(item.topic > Topic.TRANSACTIONS or item.topic < 0 for item in value["inputs"]):
                raise PoisonRecord("a block header names an input topic that does not exist")
        except StructError:
            raise PoisonRecord("a block header's packed entries are ragged") from None
        value["counts"] = Counts(**value["counts"])
        return cls(**value)

    @classmethod
    def from_record(cls, record: bytes | None) -> tuple["BlockHeader", BlockHash]:
        """Decode a framed record of `blocks`; with its hash. Raises `PoisonRecord`."""
        datum = codec("BlockHeader").unframe(record)
        return cls.from_bytes(datum), block_hash(datum)

    def input(self, topic: Topic) -> InputRange:
        """The range of one input topic; every header has all three."""
        return next(item for item in self.inputs if item.topic == topic)


def block_hash(datum: bytes) -> BlockHash:
    """H(`block`, bare datum of a header)."""
    return BlockHash(tagged_hash("block", datum))


def frame_header(datum: bytes) -> bytes:
    """The framed record value for `blocks`."""
    return codec("BlockHeader").frame(datum)


def input_root(records: Iterable[LogRecord]) -> Hash32:
    """RFC 6962 root over leaves offset:u64 ‖ len:u32 (FFFFFFFF = null) ‖ key ‖ len ‖ value."""
    return merkle_root([_input_leaf(record) for record in records])


def input_digest(record: LogRecord) -> Hash32:
    """The hash of a record's leaf under `input_root`."""
    return leaf_hash(_input_leaf(record))


def _input_leaf(record: LogRecord) -> bytes:
    offset, key, value = record
    head = _LEAF_OFFSET.pack(offset, _NULL if key is None else len(key)) + (key or b"")
    if value is None:
        return head + _LENGTH.pack(_NULL)
    return head + _LENGTH.pack(len(value)) + value


def input_range(source: TopicPartition, first: int, next_offset: int, records: Sequence[LogRecord]) -> InputRange:
    """The header's entry for records consumed from [first, next_offset)."""
    return InputRange(int(source.topic), source.partition, first, next_offset, len(records), input_root(records))
