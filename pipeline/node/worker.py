"""A worker: one member of the group, and a task for each active shard that the group assigned to it.

Its state stores are views of the log, each opened when its shard comes and closed when it goes. Of some shards that
others lead it keeps a warm copy.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final, Protocol

from pipeline.codec.types import ShardId
from pipeline.config import Config
from pipeline.crypto.suites import STANDARD_SUITES, SuiteSet
from pipeline.crypto.verifier import PoolVerifier
from pipeline.errors import HauptbuchError, Retryable, ShardAllocationFailed, TaskDiverged
from pipeline.ledger.chain import Chain
from pipeline.log.membership import Revoked
from pipeline.log.port import EventLog
from pipeline.node.bootstrap import check_suites, require_topics
from pipeline.node.driving import drive
from pipeline.node.layout import DirectoryLock, NodeLayout
from pipeline.node.node import wall_clock_ms
from pipeline.node.standby import Standbys
from pipeline.node.stores import Stores
from pipeline.shards.allocator import ShardAllocator
from pipeline.shards.life import TaskState
from pipeline.shards.observer import CopyObserver, ShardObserver
from pipeline.shards.progress import Idle, Progress, earliest
from pipeline.shards.task import Ownership, ShardTask, TaskConfig
from pipeline.state.store import StateStore
from pipeline.sync.control_feed import ControlFeed

_FINISH_S: Final = 2.0
"""How long a block that is being committed may hold up a rebalance; then the next owner's fence decides."""
_PAUSE_S: Final = 0.002
_REPORT_MS: Final = 1_000
_RETRY_MS: Final = 200


class Membership(Ownership, Protocol):
    """A place in the group of workers, as `pipeline.log.kafka.group.ShardGroup`."""

    @property
    def shards(self) -> frozenset[ShardId]:
        """The current assignment, idle partitions included."""

    def copies(self, count: int) -> frozenset[ShardId]:
        """Shards of others of which to keep a copy, where each has `count` of them; idle partitions too."""

    def poll(self) -> None:
        """Let rebalances happen."""

    def report(self, positions: Mapping[ShardId, int]) -> None:
        """Tell lag tools the next offset of each shard."""

    def close(self) -> None:
        """Leave."""


def _unobserved(_shard: ShardId) -> ShardObserver:
    return ShardObserver()


def _unobserved_copy(_shard: ShardId) -> CopyObserver:
    return CopyObserver()


class Worker:
    """Owns `data` until `close`."""

    def __init__(
        self,
        chain: Chain,
        config: Config,
        data: Path,
        log: EventLog,
        join: Callable[[Revoked], Membership],
        *,
        accept_time: bool = False,
        observe: Callable[[ShardId], ShardObserver] = _unobserved,
        observe_copy: Callable[[ShardId], CopyObserver] = _unobserved_copy,
        suites: SuiteSet = STANDARD_SUITES,
    ) -> None:
        """Joins; nothing runs yet. `log` stays the caller's. `join` is given what to call before shards go.
        `observe` makes who is told what happens to a shard that came, `observe_copy` to a copy that is kept here.

        Raises `ConfigError` where another process has `data`, or the chain's topics are not on the log.
        """
        check_suites(chain, suites)
        self.chain = chain
        self._layout = NodeLayout(data)
        self._observe = observe
        self._config = TaskConfig(linger_ms=config.shard.linger_ms, accept_time=accept_time)
        self._lock = DirectoryLock(self._layout)
        self._verifier = PoolVerifier(suites)
        self._stores = Stores(chain, config.store.cache_bytes)
        self._allocator = ShardAllocator(chain, self._open_store, config.system.max_shards)
        self.tasks: dict[ShardId, ShardTask] = {}
        self._unopened: set[ShardId] = set()
        """Shards that came here and have no task: halted, since their stores can't be opened."""
        self._retry_at_ms: dict[ShardId, int] = {}
        self._observers: dict[ShardId, ShardObserver] = {}
        self._reported_ms = 0
        self._tell_at_ms: dict[ShardId, int] = {}
        """When to say how far a shard is that recovers."""
        self._copies = config.shard.standby_copies
        self.standbys = Standbys(chain, log, self._verifier, self._allocator.allocate, self._close_store, observe_copy)
        self.log = log
        try:
            require_topics(self.log)
            self._control = ControlFeed(chain, self.log, self._verifier)
            self._group = join(self._revoked)
        except BaseException:
            self._verifier.close()
            self._lock.release()
            raise

    def signatures_verified(self) -> int:
        """How many signatures this process has checked."""
        return self._verifier.verified

    def run(self, is_done: Callable[[], bool]) -> None:
        """Drive until `is_done`. Raises `Fatal` and `ConfigError` where this process can't go on."""
        drive(self.step, self.log, wall_clock_ms, is_done)

    def step(self, now_ms: int) -> Progress | Idle:
        """Let rebalances happen, then step every task once. A shard that halts leaves the others running."""
        self._group.poll()
        progressed = self._follow_control()
        self._take_up(now_ms)
        self._tell_progress(now_ms)
        until_ms: list[int | None] = list(self._retry_at_ms.values())
        for task in self.tasks.values():
            outcome = task.step(now_ms)
            if isinstance(outcome, Progress):
                progressed = True
            else:
                until_ms.append(outcome.until_ms)
        progressed = self._stand_by(now_ms, progressed) or progressed
        if now_ms >= self._reported_ms + _REPORT_MS or now_ms < self._reported_ms:
            self._reported_ms = now_ms
            self._group.report({shard: task.committed.positions[2] for shard, task in self.tasks.items()})
        return Progress() if progressed else earliest(*until_ms)

    def _follow_control(self) -> bool:
        """Read what is new. Where it can't be true no shard is led, but the process stays, to say so and what to do."""
        try:
            return self._control.poll()
        except Retryable:
            return False
        except TaskDiverged as error:
            for task in self.tasks.values():
                task.halt(error)
            return False

    def close(self) -> None:
        """Finish what is being committed, leave the group, close everything. Idempotent."""
        self._revoked(frozenset(self.tasks) | self._unopened, False)
        self.standbys.close()
        self._group.close()
        self._stores.close()
        self._verifier.close()
        self._lock.release()

    def _take_up(self, now_ms: int) -> None:
        """Tasks for active shards that came; a shard whose ownership could not be proven is tried again."""
        for shard in self._group.shards:
            task = self.tasks.get(shard)
            if task is None:
                if shard < self._control.newest.active_shards and shard not in self._unopened:
                    self._open_task(shard)
            elif task.state is TaskState.UNASSIGNED and now_ms >= self._retry_at(shard, now_ms):
                del self._retry_at_ms[shard]
                task.assign()

    def _retry_at(self, shard: ShardId, now_ms: int) -> int:
        # Never later than a pause from now: a clock that is set back would keep the shard waiting for as long.
        at_ms = min(self._retry_at_ms.get(shard, now_ms + _RETRY_MS), now_ms + _RETRY_MS)
        self._retry_at_ms[shard] = at_ms
        return at_ms

    def _open_task(self, shard: ShardId) -> None:
        observer = self._observers[shard] = self._observe(shard)
        try:
            store = self.standbys.take(shard) or self._allocator.allocate(shard)
        except ShardAllocationFailed as error:
            self._unopened.add(shard)
            observer.moved(TaskState.HALTED, error)
            return
        task = ShardTask(self.chain, shard, self.log, store, self._verifier, self._group, self._config, observer)
        self.tasks[shard] = task
        self._group.report({owned: one.committed.positions[2] for owned, one in self.tasks.items()})
        task.assign()

    def _stand_by(self, now_ms: int, busy: bool) -> bool:
        """Follow what others lead, once every shard that came is served or pauses. Whether there was anything new."""
        if self._copies == 0:
            return False
        active = self._control.newest.active_shards
        self.standbys.keep(
            frozenset(shard for shard in self._group.copies(self._copies) if shard < active and shard not in self.tasks)
        )
        coming = [task for task in self.tasks.values() if task.state in (TaskState.FENCING, TaskState.RECOVERING)]
        if not all(task.pauses(now_ms) for task in coming):
            return False
        return self.standbys.step(now_ms, briefly=busy)

    def _tell_progress(self, now_ms: int) -> None:
        """Of recoveries that last: once a second. A single block can take longer than that."""
        for shard, task in self.tasks.items():
            if task.state is not TaskState.RECOVERING:
                self._tell_at_ms.pop(shard, None)
                continue
            latest_ms = now_ms + _REPORT_MS  # a clock that was set back must not prolong it
            at_ms = min(self._tell_at_ms.get(shard, latest_ms), latest_ms)
            if now_ms >= at_ms:
                at_ms = latest_ms
                with suppress(HauptbuchError):  # it is the recovery's to say
                    far = task.catching_up()
                    if far is not None:
                        self._observers[shard].catching_up(*far)
            self._tell_at_ms[shard] = at_ms

    def _close_store(self, shard: ShardId) -> None:
        self._stores.close_one(self._layout.shard(shard))

    def _open_store(self, shard: ShardId) -> StateStore:
        return self._stores.open_shard(self._layout.shard(shard), shard)

    def _revoked(self, shards: frozenset[ShardId], lost: bool) -> None:
        """Shards go: what is executing is dropped; what is being committed gets a moment, unless they are gone."""
        going = [self.tasks[shard] for shard in sorted(shards) if shard in self.tasks]
        deadline = monotonic() + (0.0 if lost else _FINISH_S)
        for task in going:
            while _is_committing(task) and monotonic() < deadline:
                sleep(_PAUSE_S)
            task.revoke()
            del self.tasks[task.shard]
            self._retry_at_ms.pop(task.shard, None)
            self._tell_at_ms.pop(task.shard, None)
            self._close_store(task.shard)
            self._observers.pop(task.shard).gone()
        for shard in shards & self._unopened:
            self._unopened.remove(shard)
            self._observers.pop(shard).gone()


def _is_committing(task: ShardTask) -> bool:
    try:
        return task.leader is not None and task.leader.drain()
    except HauptbuchError:
        return False  # the next owner's fence finds out what became of it
