"""A replica: follows every shard of a chain on a cluster into state stores of its own.

It executes each block again, so whoever reads from it trusts no worker. Commands that publish or read do so beside it.
"""

from collections.abc import Callable, Sequence
from typing import Final

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.config import Config
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import PoolVerifier
from pipeline.errors import LogStalled, Retryable
from pipeline.log.port import EventLog
from pipeline.node.bootstrap import check_suites, require_topics
from pipeline.node.driving import drive
from pipeline.node.layout import DirectoryLock, NodeLayout
from pipeline.node.node import wall_clock_ms
from pipeline.node.reader import LedgerView
from pipeline.node.stores import Stores
from pipeline.shards.progress import Idle, Progress
from pipeline.shards.recovery import Following, inputs_are_gone
from pipeline.state.store import StateStore
from pipeline.sync.control_feed import ControlFeed

_RETRY_MS: Final = 200


class Replica:
    """Owns a directory until `close`, beside the cluster that its settings name."""

    def __init__(self, layout: NodeLayout, config: Config, log: EventLog) -> None:
        """Opens stores; nothing is read yet. `log` stays the caller's.

        Raises `ConfigError` where another process has the directory.
        """
        self.layout = layout
        self.chain = layout.chain()
        self.config = config
        check_suites(self.chain, STANDARD_SUITES)
        self._lock = DirectoryLock(layout)
        self.verifier = PoolVerifier(STANDARD_SUITES)
        self._stores = Stores(self.chain, config.store.cache_bytes)
        self.log = log
        self.tasks: list[Following] = []
        try:
            require_topics(self.log)
            self._control = ControlFeed(self.chain, self.log, self.verifier)
            self._follow(self.chain.genesis.shards)
        except BaseException:
            self.close()
            raise

    def step(self, now_ms: int) -> Progress | Idle:
        """Read on. Raises `TaskDiverged` where a block does not follow from its inputs, `LogStalled`."""
        try:
            progressed = self._control.poll()
            self._follow(self._control.newest.active_shards)
            for shard in self.tasks:
                progressed = shard.step() or progressed
        except LogStalled:
            raise  # whoever waits for it hears why
        except Retryable:
            return Idle(now_ms + _RETRY_MS)
        return Progress() if progressed else Idle()

    def run_until(self, condition: Callable[[], bool], timeout_ms: int | None = None) -> bool:
        """Follow until `condition` holds; False where `timeout_ms` passed first."""
        return drive(self.step, self.log, wall_clock_ms, condition, timeout_ms)

    def catch_up(self) -> None:
        """Follow up to where the log ends now."""
        while self._control.poll():
            pass
        self._follow(self._control.newest.active_shards)
        for task in self.tasks:
            self.log.end_offset(TopicPartition(Topic.BLOCKS, task.shard))  # then reads hide nothing before it
            while task.step():
                pass
            if task.blocked is not None:  # its inputs stood on the log before it did
                raise inputs_are_gone(task.blocked)

    def close(self) -> None:
        """Idempotent."""
        self._stores.close()
        self.verifier.close()
        self._lock.release()

    def _follow(self, active_shards: int) -> None:
        for number in range(len(self.tasks), active_shards):
            shard = ShardId(number)
            store = self._stores.open_shard(self.layout.shard(number), shard)
            try:
                self.tasks.append(Following(self.chain, shard, self.log, store, self.verifier))
            except BaseException:  # of a log that does not answer too: then it is opened once more
                self._stores.close_one(self.layout.shard(number))
                raise


class ReplicaReader(LedgerView):
    """The ledger as a replica sees it, caught up when opened."""

    def __init__(self, layout: NodeLayout, config: Config, log: EventLog) -> None:
        """Open and catch up; closes `log` with itself.

        Raises as `Replica`, and `TaskDiverged` where a block does not follow from its inputs.
        """
        self._replica = Replica(layout, config, log)
        self.layout = layout
        self.chain = self._replica.chain
        try:
            self._replica.catch_up()
        except BaseException:
            self.close()
            raise

    @property
    def stores(self) -> Sequence[StateStore]:
        """As the view."""
        return [task.store for task in self._replica.tasks]

    @property
    def log(self) -> EventLog:
        """As the view."""
        return self._replica.log

    def refresh(self) -> None:
        """As the view."""
        self._replica.catch_up()

    def refresh_log(self) -> None:
        """Nothing to do: a cluster is always read as it is."""

    def close(self) -> None:
        """As the view."""
        self._replica.close()
        self._replica.log.close()
