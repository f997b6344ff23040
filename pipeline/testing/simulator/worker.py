"""Worker processes: shard tasks over disks of their own, with a clock of their own."""

from collections.abc import Callable
from random import Random

from pipeline.codec.types import ShardId
from pipeline.crypto.verifier import Verifier
from pipeline.ledger.chain import Chain
from pipeline.log.port import EventLog
from pipeline.shards.life import TaskState
from pipeline.shards.progress import Idle, Progress
from pipeline.shards.task import ShardTask, TaskConfig
from pipeline.state.store import StateStore
from pipeline.testing.faulty_kv import SimulatedCrash
from pipeline.testing.simulator.drives import Drive
from pipeline.testing.simulator.report import Trace

OpenLog = Callable[[], EventLog]


class Worker:
    """One process. `owners` is the directory of all workers: shard -> name."""

    def __init__(
        self,
        name: str,
        chain: Chain,
        open_log: OpenLog,
        verifier: Verifier,
        owners: dict[int, str],
        random: Random,
        trace: Trace,
        crash_chance: Callable[[], float],
    ) -> None:
        """Without tasks."""
        self.name = name
        self.tasks: dict[int, ShardTask] = {}
        self.skew_ms = random.randint(-500, 500)
        self._crash_chance = crash_chance
        self._chain, self._open_log, self._verifier = chain, open_log, verifier
        self._owners, self._random, self._trace = owners, random, trace
        self._drives: dict[int, Drive] = {}
        self._seen: dict[int, tuple[TaskState, int]] = {}
        self._config = TaskConfig(linger_ms=random.choice((1, 5, 20)))

    def owns(self, shard: ShardId) -> bool:
        """As the directory says."""
        return self._owners.get(shard) == self.name

    def assign(self, shard: int) -> None:
        """Start the shard's task, or start it again."""
        if shard not in self.tasks:
            self._open(shard)
        self.tasks[shard].assign()

    def _open(self, shard: int) -> None:
        drive = self._drives.setdefault(shard, Drive(self._random))
        store = None
        while store is None:
            try:
                kv = drive.open(self._crash_chance())
                store = StateStore(kv, ShardId(shard), self._chain.shard_map.slots_of(shard), 1 << 20)
            except SimulatedCrash:
                drive.crash()
        log, config = self._open_log(), self._config
        self.tasks[shard] = ShardTask(self._chain, ShardId(shard), log, store, self._verifier, self, config)

    def step(self, shard: int, now_ms: int) -> Progress | Idle:
        """One step of one task; tells what changed. Raises `SimulatedCrash` where it died of it."""
        task = self.tasks[shard]
        before = task.state
        answer = task.step(now_ms + self.skew_ms)
        fenced = before is TaskState.FENCING and task.state is TaskState.RECOVERING
        assert not fenced or self.owns(task.shard), f"shard {shard}: {self.name} fenced the worker that owns it"
        seen = task.state, task.committed.height
        if self._seen.get(shard) != seen:
            self._seen[shard] = seen
            self._trace.note(f"{self.name} shard {shard} {seen[0].value} at block {seen[1]}")
        if task.error is not None:
            raise task.error
        return answer

    def crash(self, *, wiped: int | None = None) -> None:
        """The process dies; the disk of shard `wiped` with it. It starts again with the shards that it still owns."""
        shards = list(self.tasks)
        self.tasks.clear()
        self._seen.clear()
        for shard in shards:
            self._drives[shard].crash()
            if shard == wiped:
                self._drives[shard].wipe()
        for shard in shards:
            if self._owners.get(shard) == self.name:
                self.assign(shard)
