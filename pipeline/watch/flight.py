"""Bundles under way between shards, as checked blocks tell: how many, how old, and what they carry.

The driver's thread notes a few numbers a block. What bundles carry is read from relay only when somebody asks, from
where their destination stands: all that follows there is under way.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from pipeline.codec.topics import LogRecord, Topic
from pipeline.codec.types import AssetId, ShardId
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import DeadLetterReason
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.inbound import read_bundle
from pipeline.shards.traffic import ChannelName, bundle_value
from pipeline.watch.log_meter import MeasuredLog

_MAX_TIMES: Final = 4_096
_MAX_BUNDLES: Final = 16_384
_PAGE: Final = 256
_PAGE_BYTES: Final = 4 << 20


class Underway(NamedTuple):
    """A channel with bundles in flight: sequences in (`executed`, `sent`]; `since_ms`: block time of the oldest."""

    channel: ChannelName
    executed: int
    sent: int
    since_ms: int


class FlightBook:
    """Written by the driver's thread, read by others."""

    def __init__(self) -> None:
        """No shard is known yet."""
        self.heads: dict[ShardId, ShardCursor] = {}
        self._times: defaultdict[ChannelName, deque[tuple[int, int]]] = defaultdict(deque)
        self._began_ms: dict[ShardId, int] = {}

    def begin(self, cursors: Iterable[ShardCursor]) -> None:
        """Where shards stand that are not known yet; what they left under way counts from their time."""
        for cursor in cursors:
            self.heads.setdefault(cursor.shard, cursor)
            self._began_ms.setdefault(cursor.shard, cursor.timestamp_ms)

    def checked(self, header: BlockHeader, cursor: ShardCursor) -> None:
        """A shard's next block; one that was told before changes nothing."""
        shard = cursor.shard
        known = self.heads.get(shard)
        if known is not None and known.height >= cursor.height:
            return
        self.heads[shard] = cursor
        self._began_ms.setdefault(shard, header.timestamp_ms)
        for head in header.channels_out:
            name = ChannelName(shard, ShardId(head.peer))
            times = self._times[name]
            # A destination's block may be checked before its source's.
            if len(times) < _MAX_TIMES and head.sequence > self._executed(name):
                times.append((head.sequence, header.timestamp_ms))
        for head in header.channels_in:
            times = self._times[ChannelName(ShardId(head.peer), shard)]
            while times and times[0][0] <= head.sequence:
                times.popleft()

    def underway(self) -> Iterator[Underway]:
        """Channels with bundles in flight, ascending."""
        for shard, cursor in sorted(dict(self.heads).items()):
            for peer, head in sorted(cursor.channels_out.items()):
                name = ChannelName(shard, ShardId(peer))
                executed = self._executed(name)
                if head.sequence > executed:
                    known = [at_ms for sequence, at_ms in list(self._times.get(name, ())) if sequence > executed]
                    yield Underway(name, executed, head.sequence, known[0] if known else self._began_ms[shard])

    def _executed(self, name: ChannelName) -> int:
        destination = self.heads.get(name.destination)
        last = None if destination is None else destination.channels_in.get(name.source)
        return 0 if last is None else last.sequence


class _Bundle(NamedTuple):
    offset: int
    source: ShardId
    sequence: int
    value: tuple[tuple[AssetId, int], ...]


class FlightValues:
    """What bundles in flight carry. Keeps what it read of them until they are executed; of one thread."""

    def __init__(self, chain: Chain) -> None:
        """Nothing read yet."""
        self._chain = chain
        self._next: dict[ShardId, int] = {}
        self._read: defaultdict[ShardId, deque[_Bundle]] = defaultdict(deque)

    def measure(self, log: MeasuredLog, book: FlightBook) -> Mapping[tuple[ChannelName, AssetId], int]:
        """Value under way by channel and asset, in minor units, of up to 16,384 bundles to a shard.

        Raises as `MeasuredLog.read`.
        """
        wanted = {entry.channel: entry for entry in book.underway()}
        totals: defaultdict[tuple[ChannelName, AssetId], int] = defaultdict(int)
        for shard in sorted({channel.destination for channel in wanted}):
            self._read_on(log, book.heads.get(shard) or ShardCursor.start(self._chain, shard))
            counted: defaultdict[ChannelName, int] = defaultdict(int)
            for bundle in self._read[shard]:
                name = ChannelName(bundle.source, shard)
                entry = wanted.get(name)
                # A recovered leader's repeat is under way once; what no checked block sent, not at all.
                if entry is None or not max(entry.executed, counted[name]) < bundle.sequence <= entry.sent:
                    continue
                counted[name] = bundle.sequence
                for asset, amount in bundle.value:
                    totals[name, asset] += amount
        return totals

    def _read_on(self, log: MeasuredLog, cursor: ShardCursor) -> None:
        shard, position = cursor.shard, cursor.positions[1]
        bundles = self._read[shard]
        while bundles and bundles[0].offset < position:
            bundles.popleft()
        start = max(self._next.get(shard, 0), position)
        source = cursor.source(Topic.RELAY)
        while len(bundles) < _MAX_BUNDLES and (records := log.read(source, start, _PAGE, _PAGE_BYTES)):
            bundles.extend(self._decode(shard, records))
            start = records[-1].offset + 1
        self._next[shard] = start

    def _decode(self, shard: ShardId, records: Iterable[LogRecord]) -> Iterator[_Bundle]:
        for record in records:
            read = read_bundle(self._chain, shard, record)
            if not isinstance(read, DeadLetterReason):
                yield _Bundle(record.offset, read.bundle.source, read.bundle.sequence, bundle_value(read))
