"""A worker as seen from outside: its shards and its place in the group."""

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Protocol

from prometheus_client.metrics_core import Metric

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.ledger.chain import Chain
from pipeline.ledger.cursor import INPUT_TOPICS
from pipeline.shards.life import TaskState
from pipeline.watch.copies import CopyWatch, collect_copies
from pipeline.watch.log_meter import MeasuredLog, hidden_records
from pipeline.watch.names import Sample, family
from pipeline.watch.process import ProcessWatch
from pipeline.watch.shards import BlockTimes, ShardWatch, collect_shards


class GroupPlace(Protocol):
    """A place in the group of workers, as far as it is looked at."""

    @property
    def shards(self) -> frozenset[ShardId]:
        """The current assignment, idle partitions included."""

    @property
    def rebalances(self) -> int:
        """How often something was assigned or revoked."""


class _Watched(ShardWatch):
    """A shard that leaves the worker's watch when it goes."""

    def __init__(self, shard: ShardId, worker: "WorkerWatch", clock_s: Callable[[], float]) -> None:
        super().__init__(shard, worker.times, worker.incidents, clock_s)
        self._worker = worker

    def gone(self) -> None:
        """As the observer."""
        super().gone()
        del self._worker.shards[self.shard]


class _WatchedCopy(CopyWatch):
    """A copy that leaves the worker's watch when it goes."""

    def __init__(self, shard: ShardId, worker: "WorkerWatch") -> None:
        super().__init__(shard)
        self._worker = worker

    def gone(self) -> None:
        """As the observer."""
        super().gone()
        del self._worker.copies[self.shard]


class WorkerWatch(ProcessWatch):
    """`group` is set by whoever joins."""

    def __init__(self, chain: Chain, clock_s: Callable[[], float] = monotonic) -> None:
        """Of a worker without shards."""
        super().__init__(clock_s)
        self.times = BlockTimes(self.registry)
        self.shards: dict[ShardId, ShardWatch] = {}
        self.copies: dict[ShardId, CopyWatch] = {}
        self.group: GroupPlace | None = None
        self._genesis_shards = chain.genesis.shards
        self.registry.register(self)

    def observe(self, shard: ShardId) -> ShardWatch:
        """Who is told what happens to a shard that has come."""
        watch = self.shards[shard] = _Watched(shard, self, self._clock_s)
        return watch

    def observe_copy(self, shard: ShardId) -> CopyWatch:
        """Who is told what happens to a copy that is kept from now on."""
        watch = self.copies[shard] = _WatchedCopy(shard, self)
        return watch

    def obstacles(self) -> list[str]:
        """Shards that came and do not lead, or no place in the group."""
        group = self.group
        if group is None or not group.rebalances:
            return ["not in the group of workers yet"]
        shards = dict(self.shards)
        waiting = sorted(shard for shard in group.shards if shard not in shards and shard < self._genesis_shards)
        missing = [f"shard {shard}: assigned, not taken up yet" for shard in waiting]
        return missing + [
            shards[shard].standing for shard in sorted(shards) if shards[shard].state is not TaskState.LEADING
        ]

    def measure(self, log: MeasuredLog) -> list[Metric]:
        """Lag of the shards here, and what open transactions hide from them."""
        cursors = [cursor for shard in list(self.shards.values()) if (cursor := shard.cursor) is not None]
        lag: list[Sample] = []
        sources: set[TopicPartition] = set()
        for cursor in cursors:
            sources.add(TopicPartition(Topic.BLOCKS, cursor.shard))
            for topic, position in zip(INPUT_TOPICS, cursor.positions, strict=True):
                source = cursor.source(topic)
                sources.add(source)
                # Relay is written in transactions, whose ends take offsets that nobody consumes.
                if topic is not Topic.RELAY:
                    lag.append(((cursor.shard, topic.topic_name), float(max(0, log.end_offset(source) - position))))
        return [family("hauptbuch_shard_lag_records", lag), hidden_records(log, sorted(sources))]

    def collect_own(self) -> Iterator[Metric]:
        """Of shards and group."""
        group = self.group
        if group is not None:
            yield family("hauptbuch_group_shards", [([], len(group.shards))])
            yield family("hauptbuch_rebalances_total", [([], group.rebalances)])
        yield from collect_shards(list(self.shards.values()))
        yield from collect_copies(list(self.copies.values()))
