"""The relay topic: every bundle sent is there byte for byte, in order, once or as a repeat, and nothing else is.

What was sent stands in the headers of the sources, which re-execution confirmed; what was executed, in those of the
destinations. Between the two is in flight.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pipeline.audit.findings import Finding, FindingKind, Report
from pipeline.audit.streams import RecordStream
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import AssetId, ShardId
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import DeadLetterReason
from pipeline.ledger.inbound import ReadBundle, read_bundle
from pipeline.ledger.packing import RELAY_ENTRY, ChannelHead
from pipeline.ledger.relay import EffectKind
from pipeline.log.port import EventLog

_MOST_FINDINGS: Final = 100
_HASH_BYTES: Final = 32
_VALUE_KINDS: Final = frozenset({EffectKind.CREDIT, EffectKind.REFUND, EffectKind.FEES})


class SentBundles:
    """What one shard sent on one channel: head and height of each bundle, 40 bytes apiece. Sequences start at 1."""

    __slots__ = ("_heads", "_heights")

    def __init__(self) -> None:
        """Nothing sent."""
        self._heads = bytearray()
        self._heights = array("q")

    def add(self, head: bytes, height: int) -> None:
        """The next bundle."""
        self._heads += head
        self._heights.append(height)

    def __len__(self) -> int:
        """The last sequence."""
        return len(self._heights)

    def head(self, sequence: int) -> bytes:
        """H(`channel`, bundle)."""
        return bytes(self._heads[(sequence - 1) * _HASH_BYTES : sequence * _HASH_BYTES])

    def height(self, sequence: int) -> int:
        """The block that sent it."""
        return self._heights[sequence - 1]


@dataclass(frozen=True, slots=True)
class Peer:
    """A source as the destination's check sees it. `complete`: all its blocks were executed again, through `height`.

    Blocks above `height` were committed while the audit ran, and only their headers were read.
    """

    sent: SentBundles
    height: int
    complete: bool


class InFlight(NamedTuple):
    """A bundle that was sent and not executed yet; `value`: minor units by asset."""

    source: int
    destination: int
    sequence: int
    height: int
    value: Mapping[AssetId, int]


@dataclass(slots=True)
class RelayCheck:
    """One destination's partition. `executed`: the last bundle executed of each source, None where not known.

    After `run`: `in_flight`, and `early`, the bundles executed here that blocks behind the audited ones of their source
    sent.
    """

    log: EventLog
    chain: Chain
    destination: ShardId
    peers: Mapping[int, Peer]
    executed: Mapping[int, ChannelHead] | None
    settled: int
    report: Report
    in_flight: list[InFlight] = field(default_factory=list)
    early: list[InFlight] = field(default_factory=list)
    _seen: dict[int, int] = field(default_factory=dict)
    _gaps: dict[tuple[int, int], int] = field(default_factory=dict)
    _unreadable: int | None = None
    _told: set[tuple[int, int]] = field(default_factory=set)
    _counted: set[tuple[int, int]] = field(default_factory=set)

    def run(self) -> None:
        """Read the partition to its end. `settled`: its end before any block was read; only what stands below it must
        have been sent by a block that was read since."""
        stream = RecordStream(self.log, TopicPartition(Topic.RELAY, self.destination), self.report)
        while (record := stream.pop()) is not None:
            read = read_bundle(self.chain, self.destination, record)
            if isinstance(read, DeadLetterReason):
                self._unreadable = record.offset
                continue
            self._bundle(record, read)
        self._finish(stream.position)

    def _bundle(self, record: LogRecord, read: ReadBundle) -> None:
        source, sequence = read.bundle.source, read.bundle.sequence
        peer = self.peers.get(source)
        sent = len(peer.sent) if peer else 0
        if peer is None or not 1 <= sequence <= sent:
            if (peer is None or peer.complete) and record.offset < self.settled:
                what = f"bundle {sequence} of shard {source}, which never sent it"
                self._tell(FindingKind.BUNDLE_FORGED, source, sequence, None, record.offset, what)
            return
        height = peer.sent.height(sequence)
        if read.head != peer.sent.head(sequence):
            what = f"bundle {sequence} of shard {source} is not what block {height} of that shard sent"
            self._tell(FindingKind.BUNDLE_ALTERED, source, sequence, height, record.offset, what)
            return
        self._place(record.offset, source, sequence, height)
        self._unreadable = None
        if self.executed is None or (source, sequence) in self._counted:
            return
        self._counted.add((source, sequence))
        is_sent, is_executed = height <= peer.height, sequence <= self._executed(source)
        if is_sent != is_executed:
            flight = InFlight(source, self.destination, sequence, height, value_of(read))
            (self.in_flight if is_sent else self.early).append(flight)

    def _place(self, offset: int, source: int, sequence: int, height: int) -> None:
        seen = self._seen.get(source, 0)
        if sequence > seen:
            place = offset if self._unreadable is None else self._unreadable
            for skipped in range(seen + 1, min(sequence, seen + 1 + _MOST_FINDINGS)):
                self._gaps[source, skipped] = place
            self._seen[source] = sequence
        elif self._gaps.pop((source, sequence), None) is not None:
            what = f"bundle {sequence} of shard {source} stands behind bundle {seen}"
            self._tell(FindingKind.BUNDLE_ORDER, source, sequence, height, offset, what)

    def _finish(self, end: int) -> None:
        for source, peer in sorted(self.peers.items()):
            seen = self._seen.get(source, 0)
            for sequence in range(seen + 1, min(len(peer.sent), seen + _MOST_FINDINGS) + 1):
                self._gaps[source, sequence] = end if self._unreadable is None else self._unreadable
        for (source, sequence), offset in self._gaps.items():
            peer = self.peers[source]
            height = peer.sent.height(sequence)
            if (source, sequence) in self._told or height > peer.height:
                continue
            what = (
                f"bundle {sequence} of shard {source}, sent by its block {height}, is missing; it belongs before here"
            )
            self._tell(FindingKind.BUNDLE_MISSING, source, sequence, height, offset, what)
        for source, head in sorted((self.executed or {}).items()):
            self._check_executed(source, head)

    def _check_executed(self, source: int, head: ChannelHead) -> None:
        """Bundles are chained, so the last one executed stands for all before it."""
        peer = self.peers.get(source)
        if (source, head.sequence) in self._told or (peer is not None and not peer.complete):
            return
        if peer is None or head.sequence > len(peer.sent) or peer.sent.head(head.sequence) != head.head:
            what = f"shard {self.destination} executed bundle {head.sequence} of shard {source}, which never sent it"
            self._tell(FindingKind.BUNDLE_FORGED, source, head.sequence, None, None, what)

    def _executed(self, source: int) -> int:
        head = (self.executed or {}).get(source)
        return head.sequence if head else 0

    def _tell(
        self, kind: FindingKind, source: int, sequence: int, height: int | None, offset: int | None, what: str
    ) -> None:
        self._told.add((source, sequence))
        self.report(Finding(kind, what, self.destination, height, Topic.RELAY, offset))


def value_of(read: ReadBundle) -> dict[AssetId, int]:
    """What a bundle carries, in minor units by asset."""
    value: dict[AssetId, int] = {}
    for group in read.groups:
        if group.kind in _VALUE_KINDS:
            amounts = sum(int.from_bytes(raw, "big") for _, _, raw in RELAY_ENTRY.iter_unpack(group.entries))
            value[group.asset] = value.get(group.asset, 0) + amounts
    return value
