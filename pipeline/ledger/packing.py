"""Packed fixed-width big-endian entries: what the protocol uses for repeats of high count.

Decoding a transfer entry costs a tenth of a microsecond so, and forty times that as an Avro record.
"""

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, NamedTuple

from pipeline.codec.types import Hash32

TRANSFER_ENTRY: Final = Struct(">32s16s")
RELAY_ENTRY: Final = Struct(">H32s16s")
SLOT_ENTRY: Final = Struct(">H32sQ")
CHANNEL_ENTRY: Final = Struct(">HQ32s")
FAILURE_ENTRY: Final = Struct(">HB")
BUNDLE_FAILURE_ENTRY: Final = Struct(">HHB")
CHANNEL_USE: Final = Struct(">HQ")
ADVANCED_ENTRY: Final = Struct(">HQ")


class TransferEntry(NamedTuple):
    """An amount (unsigned, minor units) for one receiver."""

    to: bytes
    amount: int


class ChannelHead(NamedTuple):
    """The last bundle of a channel: its sequence number and the hash of its bytes."""

    peer: int
    sequence: int
    head: Hash32


def pack_transfers(entries: Iterable[tuple[bytes, int]]) -> bytes:
    """n x (to 32 ‖ amount 16). Raises `ValueError` for an amount outside 0 to 2^128 - 1 or a bad address."""
    parts = []
    for to, amount in entries:
        if len(to) != 32:
            raise ValueError(f"an address has 32 bytes, not {len(to)}")
        try:
            parts.append(to + amount.to_bytes(16, "big"))
        except OverflowError:
            raise ValueError(f"amount {amount} is not between 0 and 2^128 - 1") from None
    return b"".join(parts)


def unpack_transfers(packed: bytes) -> Iterator[TransferEntry]:
    """The entries of `pack_transfers`. Raises `struct.error` where the length is not a multiple of 48."""
    return (TransferEntry(to, int.from_bytes(raw, "big")) for to, raw in TRANSFER_ENTRY.iter_unpack(packed))


def pack_channels(heads: Iterable[ChannelHead]) -> bytes:
    """n x (peer 2 ‖ sequence 8 ‖ head 32)."""
    return b"".join(CHANNEL_ENTRY.pack(*head) for head in heads)


def unpack_channels(packed: bytes) -> list[ChannelHead]:
    """The heads of `pack_channels`. Raises `struct.error` where the length does not fit."""
    return [ChannelHead(p, s, Hash32(h)) for p, s, h in CHANNEL_ENTRY.iter_unpack(packed)]
