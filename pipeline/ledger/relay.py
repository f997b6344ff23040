"""Relay bundles: the effects that one shard's block has on another.

Bundles of one channel (source, destination) are numbered from 1 and chained: head = H(`channel`, bundle datum), and
the first bundle's `previous_head` = H(`channel-start`, chain_id ‖ source ‖ destination).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, NamedTuple

from pipeline.codec.avro import codec
from pipeline.codec.types import AssetId, ChainId, Hash32, ShardId, TxId, tagged_hash
from pipeline.codec.varint import NotCanonical, long_bytes, prefixed, read_int, read_long, read_prefixed
from pipeline.errors import PoisonRecord
from pipeline.ledger.genesis import CHUNK_BYTES
from pipeline.ledger.packing import RELAY_ENTRY


class EffectKind(IntEnum):
    """What an effect does at its destination."""

    CREDIT = 0
    REFUND = 1
    FREEZE = 2
    THAW = 3
    FEES = 4


_LAST_KIND: Final = int(max(EffectKind))


@dataclass(frozen=True, slots=True)
class RelayGroup:
    """Effects that share all but receiver and amount; `entries` is n x (entry index 2 ‖ to 32 ‖ amount 16)."""

    tx_id: TxId
    sender: bytes
    asset: AssetId
    kind: int
    reference: bytes
    entries: bytes


@dataclass(frozen=True, slots=True)
class RelayBundle:
    """One chunk of effects, on its way."""

    chain_id: ChainId
    source: ShardId
    destination: ShardId
    source_height: int
    control_sequence: int
    sequence: int
    previous_head: Hash32
    groups: bytes

    def to_bytes(self) -> bytes:
        """The bare datum."""
        return codec("RelayBundle").encode({name: getattr(self, name) for name in self.__slots__})

    def to_record(self) -> bytes:
        """The framed record value for `relay`."""
        return codec("RelayBundle").frame(self.to_bytes())

    @classmethod
    def from_record(cls, record: bytes | None) -> "RelayBundle":
        """Decode a framed canonical record. Raises `PoisonRecord`."""
        c = codec("RelayBundle")
        return cls(**c.decode(c.unframe(record)))


def bundle_head(datum: bytes) -> Hash32:
    """H(`channel`, bare datum of a bundle)."""
    return tagged_hash("channel", datum)


def channel_start(chain_id: ChainId, source: int, destination: int) -> Hash32:
    """`previous_head` of a channel's first bundle."""
    return tagged_hash("channel-start", chain_id, source.to_bytes(2, "big"), destination.to_bytes(2, "big"))


def encode_group(group: RelayGroup) -> bytes:
    """The bare datum of one group."""
    ids = group.tx_id + group.sender + group.asset
    return ids + long_bytes(group.kind) + prefixed(group.reference) + prefixed(group.entries)


def encode_groups(groups: Iterable[RelayGroup]) -> bytes:
    """The bare datum of `RelayGroups`."""
    return _join_groups([encode_group(group) for group in groups])


def _join_groups(groups: Sequence[bytes]) -> bytes:
    """One array block of groups that are encoded already."""
    if not groups:
        return b"\x00"
    return long_bytes(len(groups)) + b"".join(groups) + b"\x00"


def decode_groups(datum: bytes) -> tuple[RelayGroup, ...]:
    """Decode canonical groups. Raises `PoisonRecord`, also for unknown kinds and ragged or no entries."""
    try:
        groups = _read_groups(datum)
    except (NotCanonical, IndexError):
        raise PoisonRecord("undecodable RelayGroups: not a canonical datum") from None
    if not groups:
        raise PoisonRecord("a relay bundle without effects")
    return tuple(groups)


def _read_groups(datum: bytes) -> list[RelayGroup]:
    """By hand, since there is about one group a transaction: a third of the generic codec's time."""
    count, position = read_long(datum, 0)
    if count < 0:
        raise NotCanonical
    groups: list[RelayGroup] = []
    for _ in range(count):
        ids = position
        kind, position = read_int(datum, position + 96)
        reference, position = read_prefixed(datum, position)
        entries, position = read_prefixed(datum, position)
        if not 0 <= kind <= _LAST_KIND:
            raise PoisonRecord(f"unknown effect kind {kind}")
        if not entries or len(entries) % RELAY_ENTRY.size:
            raise PoisonRecord("relay entries are empty or not a multiple of 50 bytes")
        tx_id, sender, asset = (
            TxId(datum[ids : ids + 32]),
            datum[ids + 32 : ids + 64],
            AssetId(datum[ids + 64 : ids + 96]),
        )
        groups.append(RelayGroup(tx_id, sender, asset, kind, reference, entries))
    # The array's end, which also stands for an empty one; and so every slice above was whole.
    if datum[position - (not count) :] != b"\x00":
        raise NotCanonical
    return groups


class OpenGroup(NamedTuple):
    """A group while its block executes; `runs` says from which entry on which receipt caused the effects."""

    tx_id: TxId
    sender: bytes
    asset: AssetId
    kind: EffectKind
    reference: bytes
    entries: list[bytes]
    runs: list[tuple[int, int]]

    def owners(self, start: int, stop: int) -> list[int]:
        """The receipts that caused entries [start, stop), in order."""
        if len(self.runs) == 1:
            return [self.runs[0][1]]
        ends = [first for first, _ in self.runs[1:]] + [len(self.entries)]
        return [owner for (first, owner), end in zip(self.runs, ends, strict=True) if first < stop and end > start]


def chunk_groups(groups: Iterable[OpenGroup], start: RelayBundle) -> Iterator[tuple[RelayBundle, list[int]]]:
    """The bundles of one channel, and for each the owners that it serves.

    Chunks fill greedily: one closes before the entry that would take its encoding past `CHUNK_BYTES`; a split group
    repeats its fields. `start` is the first bundle with no groups yet.
    """
    packer = _Packer(start)
    for group in groups:
        done = 0
        while done < len(group.entries):
            fits = packer.entries_that_fit(group, len(group.entries) - done)
            if fits:
                packer.add(group, done, done + fits)
                done += fits
            else:
                yield packer.close()
    if packer.chunk:
        yield packer.close()


_FRAMING_BYTES: Final = 97 + 1 + 4 * 10
"""The most that a group takes beside reference and entries: ids and kind, the array's end, four lengths."""


class _Packer:
    """Fills one chunk at a time and counts its exact encoding."""

    def __init__(self, start: RelayBundle) -> None:
        self._next = start
        self._outer_bytes = len(start.to_bytes()) - 1
        self.chunk: list[bytes] = []
        self._owners: list[int] = []
        self._groups_bytes = 0

    def entries_that_fit(self, group: OpenGroup, wanted: int) -> int:
        """How many of `wanted` entries of this group the open chunk still takes."""
        most = self._outer_bytes + self._groups_bytes + len(group.reference) + wanted * RELAY_ENTRY.size
        if most + _FRAMING_BYTES <= CHUNK_BYTES or self._total(group, wanted) <= CHUNK_BYTES:
            return wanted
        count = min(wanted, max(0, CHUNK_BYTES - self._total(group, 0)) // RELAY_ENTRY.size)
        while count and self._total(group, count) > CHUNK_BYTES:
            count -= 1
        return count

    def _total(self, group: OpenGroup, entries: int) -> int:
        """The bundle's encoding with this many entries of the group."""
        packed = entries * RELAY_ENTRY.size
        body = self._groups_bytes + 97 + len(long_bytes(len(group.reference))) + len(group.reference)
        body += len(long_bytes(packed)) + packed + len(long_bytes(len(self.chunk) + 1)) + 1
        return self._outer_bytes + len(long_bytes(body)) + body

    def add(self, group: OpenGroup, start: int, stop: int) -> None:
        """Append entries [start, stop) of a group to the open chunk."""
        tx_id, sender, asset, kind, reference, entries, _ = group
        packed = b"".join(entries[start:stop])
        datum = encode_group(RelayGroup(tx_id, sender, asset, kind, reference, packed))
        self.chunk.append(datum)
        self._groups_bytes += len(datum)
        self._owners += group.owners(start, stop)

    def close(self) -> tuple[RelayBundle, list[int]]:
        """The open chunk as a bundle; the next one follows it in sequence and chain."""
        bundle, owners = replace(self._next, groups=_join_groups(self.chunk)), self._owners
        datum = bundle.to_bytes()
        assert len(datum) <= CHUNK_BYTES, "a relay bundle exceeds its limit"
        following = bundle.sequence + 1
        self._next = replace(self._next, sequence=following, previous_head=bundle_head(datum), groups=b"")
        self._outer_bytes = len(self._next.to_bytes()) - 1
        self.chunk, self._owners, self._groups_bytes = [], [], 0
        return bundle, owners
