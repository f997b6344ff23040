"""What is under way between shards: per channel, sent and not yet executed, from committed blocks and bundles.

The newest header's time is the only clock. Blocks and bundles are read apart, so a report may miss what was committed
while it was being made; it never counts a bundle that no committed block sent.
"""

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pipeline.codec.topics import LogRecord, Topic
from pipeline.codec.types import AssetId, ShardId
from pipeline.errors import CrossShardCommunicationFailed, TaskDiverged
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import DeadLetterReason
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.inbound import ReadBundle, read_bundle
from pipeline.ledger.packing import RELAY_ENTRY
from pipeline.log.port import EventLog
from pipeline.shards.block_reader import BlockReader
from pipeline.shards.recovery import find_block

_PAGE: Final = 256
_PAGE_BYTES: Final = 16 << 20


class ChannelName(NamedTuple):
    """A relay channel."""

    source: ShardId
    destination: ShardId


class ChannelTraffic(NamedTuple):
    """One channel. `sent` and `executed` are sequences; `age_ms` is that of the oldest bundle in flight, 0 if none.

    `bytes_read`: of the distinct bundles read so far; `bytes_in_flight`: of those under way.
    """

    channel: ChannelName
    sent: int
    executed: int
    age_ms: int
    bytes_read: int
    bytes_in_flight: int

    @property
    def in_flight(self) -> int:
        """Bundles sent and not executed."""
        return self.sent - self.executed


@dataclass(frozen=True, slots=True)
class TrafficReport:
    """All channels ever used, ascending, as of the newest header's time; value under way by asset, in minor units."""

    at_ms: int
    channels: tuple[ChannelTraffic, ...]
    value: Mapping[AssetId, int]

    @property
    def in_flight(self) -> int:
        """Bundles sent and not executed, over all channels."""
        return sum(channel.in_flight for channel in self.channels)


class _Underway(NamedTuple):
    """A bundle read from relay: its bytes, and what it carries."""

    size: int
    value: tuple[tuple[AssetId, int], ...]


@dataclass(slots=True)
class _Channel:
    """Sequences ascend in both queues: what was sent and not executed with its source's block time, and as read."""

    sent: int = 0
    executed: int = 0
    read: int = 0
    bytes_read: int = 0
    unexecuted: deque[tuple[int, int]] = field(default_factory=deque)
    bundles: deque[tuple[int, _Underway]] = field(default_factory=deque)

    def send(self, sequence: int, timestamp_ms: int) -> None:
        if sequence <= self.sent:
            return
        self.sent = sequence
        if sequence > self.executed:
            self.unexecuted.append((sequence, timestamp_ms))

    def execute(self, sequence: int) -> None:
        self.executed = max(self.executed, sequence)
        while self.unexecuted and self.unexecuted[0][0] <= sequence:
            self.unexecuted.popleft()
        while self.bundles and self.bundles[0][0] <= sequence:
            self.bundles.popleft()

    def carry(self, sequence: int, bundle: _Underway) -> None:
        # Not the next one: a recovered leader's repeat, or a forgery that no shard executes.
        if sequence != self.read + 1:
            return
        self.read = sequence
        self.bytes_read += bundle.size
        if sequence > self.executed:
            self.bundles.append((sequence, bundle))

    def underway(self) -> list[_Underway]:
        return [bundle for sequence, bundle in self.bundles if sequence <= self.sent]


class TrafficFold:
    """Folds blocks and bundles, each shard's in the order of the log, into channels. Pure; repeats change nothing."""

    def __init__(self, chain: Chain) -> None:
        """Nothing folded yet."""
        self._chain = chain
        self._now_ms = 0
        self._channels: defaultdict[ChannelName, _Channel] = defaultdict(_Channel)

    def begin(self, cursor: ShardCursor) -> None:
        """Go on from where a shard stood; what it left under way counts from its time."""
        shard = cursor.shard
        self._now_ms = max(self._now_ms, cursor.timestamp_ms)
        for head in cursor.channels_in.values():
            channel = self._channels[ChannelName(ShardId(head.peer), shard)]
            channel.execute(head.sequence)
            channel.read = head.sequence
        for head in cursor.channels_out.values():
            self._channels[ChannelName(shard, ShardId(head.peer))].send(head.sequence, cursor.timestamp_ms)

    def block(self, header: BlockHeader) -> None:
        """A committed block."""
        self._now_ms = max(self._now_ms, header.timestamp_ms)
        for head in header.channels_out:
            self._channels[ChannelName(header.shard, ShardId(head.peer))].send(head.sequence, header.timestamp_ms)
        for head in header.channels_in:
            self._channels[ChannelName(ShardId(head.peer), header.shard)].execute(head.sequence)

    def relayed(self, destination: ShardId, record: LogRecord) -> bool:
        """A record of `relay`; False for one that is no bundle."""
        read = read_bundle(self._chain, destination, record)
        if isinstance(read, DeadLetterReason):
            return False
        assert record.value is not None, "decoded"
        name = ChannelName(read.bundle.source, destination)
        self._channels[name].carry(read.bundle.sequence, _Underway(len(record.value), bundle_value(read)))
        return True

    def values(self) -> dict[ChannelName, dict[AssetId, int]]:
        """Value under way in minor units, by channel and asset; nothing that is 0."""
        found: dict[ChannelName, dict[AssetId, int]] = {}
        for name in sorted(self._channels):
            totals: defaultdict[AssetId, int] = defaultdict(int)
            for bundle in self._channels[name].underway():
                for asset, amount in bundle.value:
                    totals[asset] += amount
            if totals:
                found[name] = dict(totals)
        return found

    def report(self) -> TrafficReport:
        """All channels as of the newest header's time."""
        value: defaultdict[AssetId, int] = defaultdict(int)
        for totals in self.values().values():
            for asset, amount in totals.items():
                value[asset] += amount
        channels = [self._traffic(name, self._channels[name]) for name in sorted(self._channels)]
        return TrafficReport(self._now_ms, tuple(channels), dict(value))

    def _traffic(self, name: ChannelName, channel: _Channel) -> ChannelTraffic:
        oldest_ms = channel.unexecuted[0][1] if channel.unexecuted else self._now_ms
        return ChannelTraffic(
            name,
            # A destination's block may have been read before its source's.
            max(channel.sent, channel.executed),
            channel.executed,
            self._now_ms - oldest_ms,
            channel.bytes_read,
            sum(bundle.size for bundle in channel.underway()),
        )


class CommunicationMonitor:
    """Follows `blocks` and `relay` of the watched shards; each call reads on where the last one ended."""

    def __init__(self, chain: Chain, log: EventLog) -> None:
        """Watches nothing yet."""
        self._chain = chain
        self._log = log
        self._fold = TrafficFold(chain)
        self._blocks: dict[ShardId, BlockReader] = {}
        self._relay: dict[ShardId, int] = {}

    def watch(self, cursor: ShardCursor) -> None:
        """Follow a shard from `cursor` on; what it left under way counts from its time. Nothing to do where watched.

        Raises `CrossShardCommunicationFailed` where the log does not hold the cursor's block.
        """
        shard = cursor.shard
        if shard in self._blocks:
            return
        try:
            offset = find_block(self._log, shard, cursor.height) if cursor.height >= 0 else 0
        except TaskDiverged as error:
            raise CrossShardCommunicationFailed(f"shard {shard} can't be monitored: {error}") from error
        self._blocks[shard] = BlockReader(self._log, shard, cursor.height + 1, cursor.block_hash, start_offset=offset)
        self._relay[shard] = cursor.positions[1]
        self._fold.begin(cursor)

    def report(self) -> TrafficReport:
        """Read on, and report.

        Raises `CrossShardCommunicationFailed`, naming shard, height and offset, where blocks contradict each other.
        """
        for shard in self._blocks:
            self._read_blocks(shard)
            self._read_relay(shard)
        return self._fold.report()

    def _read_blocks(self, shard: ShardId) -> None:
        try:
            while blocks := self._blocks[shard].read(_PAGE):
                for block in blocks:
                    self._fold.block(block.header)
        except TaskDiverged as error:
            raise CrossShardCommunicationFailed(f"traffic can't be followed: {error}") from error

    def _read_relay(self, shard: ShardId) -> None:
        source = ShardCursor.start(self._chain, shard).source(Topic.RELAY)
        while records := self._log.read(source, self._relay[shard], _PAGE, _PAGE_BYTES):
            for record in records:
                self._fold.relayed(shard, record)
            self._relay[shard] = records[-1].offset + 1


def bundle_value(read: ReadBundle) -> tuple[tuple[AssetId, int], ...]:
    """What a bundle carries, by asset; none of them 0."""
    totals: defaultdict[AssetId, int] = defaultdict(int)
    for group in read.groups:
        for _, _, amount in RELAY_ENTRY.iter_unpack(group.entries):
            totals[group.asset] += int.from_bytes(amount, "big")
    return tuple([(asset, amount) for asset, amount in totals.items() if amount])
