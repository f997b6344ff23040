"""A derived view of a chain's load, folded from records of `blocks` and `relay` in any interleaving of partitions.

It may be fed a record more than once, and partitions from their start again: what was folded before changes nothing.
"""

from typing import Any

from pipeline.codec.topics import LogRecord, Topic
from pipeline.codec.types import ShardId
from pipeline.errors import PoisonRecord
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.shards.load import DEFAULT_HOTTEST, LoadMeter
from pipeline.shards.traffic import TrafficFold


class LoadView:
    """Windows of load by shard and slot, and what is under way between shards. Pure; each shard's records in order."""

    def __init__(self, chain: Chain, window_ms: int) -> None:
        """Nothing folded yet. Raises `LoadBalancingFailed` for a window that is not positive."""
        self._chain = chain
        self._meter = LoadMeter(chain.shard_map, window_ms)
        self._traffic = TrafficFold(chain)
        self._heights: dict[ShardId, int] = {}
        self._folded: dict[tuple[Topic, int], int] = {}
        self.refused = 0
        """Records that are none of this chain's."""

    def fold(self, topic: Topic, partition: int, record: LogRecord) -> None:
        """The next record of a partition, or one that was folded before. What can't be read is only counted."""
        if record.offset <= self._folded.get((topic, partition), -1):
            return
        self._folded[topic, partition] = record.offset
        match topic:
            case Topic.BLOCKS:
                self._block(ShardId(partition), record)
            case Topic.RELAY:
                self.refused += not self._traffic.relayed(ShardId(partition), record)
            case _:
                raise AssertionError(f"nothing is folded from {topic.topic_name}")

    def _block(self, shard: ShardId, record: LogRecord) -> None:
        try:
            header, _ = BlockHeader.from_record(record.value)
        except PoisonRecord:
            self.refused += 1
            return
        if header.shard != shard or header.chain_id != self._chain.chain_id:
            self.refused += 1
            return
        if header.height <= self._heights.get(shard, -1):
            return  # a recovered leader published it again
        self._heights[shard] = header.height
        self._meter.watch(shard)
        self._meter.add(header)
        self._traffic.block(header)

    def report(self, hottest: int = DEFAULT_HOTTEST) -> dict[str, Any]:
        """The view as JSON knows it, as of the newest block's time; amounts in minor units as strings."""
        load, traffic, values = self._meter.report(hottest), self._traffic.report(), self._traffic.values()
        return {
            "at_ms": load.to_ms,
            "window_ms": load.window_ms,
            "gas": load.gas,
            "skew": round(load.skew, 3),
            "shards": [{**item._asdict(), "height": self._heights[item.shard]} for item in load.shards],
            "hottest": [item._asdict() for item in load.hottest],
            "channels": [
                {
                    **item.channel._asdict(),
                    "sent": item.sent,
                    "executed": item.executed,
                    "in_flight": item.in_flight,
                    "age_ms": item.age_ms,
                    "bytes_in_flight": item.bytes_in_flight,
                    "value": {asset.hex(): str(amount) for asset, amount in values.get(item.channel, {}).items()},
                }
                for item in traffic.channels
            ],
            "refused": self.refused,
        }
