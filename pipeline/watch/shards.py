"""One shard of a worker as seen from outside.

The driver's thread writes plain fields; a scrape reads them from another one. The series of a shard go with it.
"""

from collections.abc import Callable, Iterable, Iterator
from operator import add
from time import perf_counter

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from pipeline.codec.types import ShardId
from pipeline.errors import HauptbuchError
from pipeline.ledger.blocks import Counts
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.engine import ExecutedBlock
from pipeline.shards.life import TaskState
from pipeline.shards.observer import ShardObserver
from pipeline.watch.copies import percent
from pipeline.watch.incidents import Incidents
from pipeline.watch.lasting import GAP_S, Lasting
from pipeline.watch.names import family, histogram


class BlockTimes:
    """Histograms of what a block takes, by shard."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers them."""
        self.execution = histogram("hauptbuch_shard_execution_seconds", registry)
        self.commit = histogram("hauptbuch_shard_commit_seconds", registry)
        self.store = histogram("hauptbuch_shard_store_seconds", registry)

    def remove(self, shard: ShardId) -> None:
        """Forget a shard."""
        for times in (self.execution, self.commit, self.store):
            times.remove(str(shard))


class ShardWatch(ShardObserver):
    """Logs a shard's life and keeps its numbers."""

    def __init__(self, shard: ShardId, times: BlockTimes, incidents: Incidents, clock_s: Callable[[], float]) -> None:
        """Of a shard that has come here; its numbers begin at 0."""
        self.shard = shard
        self.state = TaskState.UNASSIGNED
        self.error: HauptbuchError | None = None
        self.cursor: ShardCursor | None = None
        self.blocks = self.gas = 0
        self.counts = Counts()
        self._incidents = incidents
        self._times = times
        self._execution = times.execution.labels(str(shard))
        self._commit = times.commit.labels(str(shard))
        self._store = times.store.labels(str(shard))
        self._held_up = Lasting(clock_s, GAP_S)
        self._executing_s = self._committing_s = self._storing_s = 0.0
        self._log = structlog.get_logger("hauptbuch").bind(shard=shard)

    @property
    def standing(self) -> str:
        """Its state in words, and why it halted."""
        at = "" if self.cursor is None else f", block {self.cursor.height}"
        return f"shard {self.shard}: {self.state.value}{at}{'' if self.error is None else f': {self.error}'}"

    def moved(self, state: TaskState, error: HauptbuchError | None) -> None:
        """As the observer."""
        self.state, self.error = state, error
        if error is None:
            self._log.info(self.standing, state=state.value, height=self._height)
        else:
            self._incidents.halts += 1
            self._log.error(self.standing, state=state.value, height=self._height)

    def setback(self, error: HauptbuchError) -> None:
        """As the observer."""
        self._incidents.fenced_anew(error)
        self._log.warning(f"shard {self.shard}: fenced anew: {error}", height=self._height)

    def held_up(self, error: HauptbuchError) -> None:
        """As the observer: where it lasts."""
        if self._held_up.is_due(None):
            self._log.warning(f"shard {self.shard}: held up: {error}", height=self._height)

    def stands(self, cursor: ShardCursor) -> None:
        """As the observer."""
        self.cursor = cursor

    def catching_up(self, height: int, end: int) -> None:
        """As the observer."""
        far = percent(height, end)
        self._log.info(f"shard {self.shard}: {self.state.value}, block {height} of {end}, {far} %", height=height)

    def executing(self) -> None:
        """As the observer."""
        self._executing_s = perf_counter()

    def executed(self) -> None:
        """As the observer."""
        self._execution.observe(perf_counter() - self._executing_s)

    def committing(self) -> None:
        """As the observer."""
        self._committing_s = perf_counter()

    def committed(self) -> None:
        """As the observer."""
        self._storing_s = perf_counter()
        self._commit.observe(self._storing_s - self._committing_s)

    def stored(self, block: ExecutedBlock) -> None:
        """As the observer."""
        self._store.observe(perf_counter() - self._storing_s)
        self.cursor = block.cursor
        self.blocks += 1
        self.gas += block.header.gas_used
        self.counts = Counts(*map(add, self.counts, block.header.counts))

    def gone(self) -> None:
        """As the observer."""
        self._times.remove(self.shard)

    @property
    def _height(self) -> int | None:
        return None if self.cursor is None else self.cursor.height


def collect_shards(shards: Iterable[ShardWatch]) -> Iterator[Metric]:
    """What needs no answer from the log."""
    shards = list(shards)
    states = [([shard.shard, state.value], float(shard.state is state)) for shard in shards for state in TaskState]
    yield family("hauptbuch_shard_state", states)
    standing = [(shard.shard, cursor) for shard in shards if (cursor := shard.cursor) is not None]
    yield family("hauptbuch_shard_height", [([shard], cursor.height) for shard, cursor in standing])
    times = [([shard], cursor.timestamp_ms / 1000) for shard, cursor in standing if cursor.height >= 0]
    yield family("hauptbuch_shard_block_timestamp_seconds", times)
    yield family("hauptbuch_shard_blocks_total", [([shard.shard], shard.blocks) for shard in shards])
    yield family("hauptbuch_shard_gas_total", [([shard.shard], shard.gas) for shard in shards])
    fates = [([shard.shard, fate], count) for shard in shards for fate, count in shard.counts._asdict().items()]
    yield family("hauptbuch_shard_records_total", fates)
