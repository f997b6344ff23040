"""Who signs: the proposer and the attestors, each a role that one process has and others may think they still have."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from pipeline.codec.types import ShardId
from pipeline.crypto.port import PrivateKey
from pipeline.crypto.verifier import Verifier
from pipeline.kv.memory import MemoryKeyValue
from pipeline.kv.port import KeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance
from pipeline.log.port import EventLog
from pipeline.shards.progress import Idle, Progress
from pipeline.state.store import StateStore
from pipeline.sync.attestor import Attestor
from pipeline.sync.life import SyncState
from pipeline.sync.round_task import RoundTask
from pipeline.sync.settings import SyncConfig
from pipeline.sync.signer import Signer
from pipeline.sync.synchronizer import Synchronizer
from pipeline.testing.simulator.drives import Drive
from pipeline.testing.simulator.report import Trace

Start = Callable[[KeyValue, Callable[[], bool]], RoundTask]
"""Starts a process over a directory; the second asks whether it still has the role."""


@dataclass(slots=True)
class _Process:
    drive: Drive
    task: RoundTask
    is_dead: bool = False
    told: tuple[SyncState, int] | None = None


class Seat:
    """The owner is the last process; those before it are zombies, which go on until they are fenced or die.

    A zombie that died stays dead: its key is at work elsewhere by now, and its guard would say so and halt.
    """

    def __init__(
        self, name: str, start: Start, random: Random, trace: Trace, crash_chance: Callable[[], float]
    ) -> None:
        """With one process, on an empty disk."""
        self.name, self.is_away = name, False
        self._start_task, self._random, self._trace, self._crash_chance = start, random, trace, crash_chance
        self._processes: list[_Process] = []
        self.replace()

    @property
    def count(self) -> int:
        """How many processes there are."""
        return len(self._processes)

    @property
    def owner(self) -> RoundTask:
        """The process that has the role."""
        return self._processes[-1].task

    def replace(self) -> None:
        """A new owner on an empty disk; the old one is not told."""
        drive = Drive(self._random)
        self._processes.append(_Process(drive, self._start(drive, len(self._processes))))

    def _start(self, drive: Drive, number: int) -> RoundTask:
        return self._start_task(drive.open(self._crash_chance()), lambda: number == len(self._processes) - 1)

    def any_number(self) -> int:
        """One of the processes, more often the owner."""
        return self._random.choice((-1, self._random.randrange(len(self._processes))))

    def step(self, now_ms: int, number: int = -1) -> Progress | Idle:
        """One step of a process, the owner unless given. Raises what halted it."""
        process, is_owner = self._processes[number], number % len(self._processes) == len(self._processes) - 1
        if process.is_dead or self.is_away:
            return Idle()
        task, before = process.task, process.task.state
        answer = task.step(now_ms)
        fenced = before is SyncState.FENCING and task.state is SyncState.RECOVERING
        assert is_owner or not fenced, f"{self.name}: one that lost the role fenced the one that has it"
        told = task.state, -1 if task.follower is None else task.follower.ledger.round
        if told != process.told:
            process.told = told
            self._trace.note(f"{self.name}{'' if is_owner else ' (old)'} {told[0].value} at round {told[1]}")
        if is_owner and task.error is not None:
            raise task.error
        return answer

    def crash(self, number: int = -1, *, wiped: bool = False) -> None:
        """A process dies; the owner starts again on what is left of its disk, or on an empty one."""
        number %= len(self._processes)
        process = self._processes[number]
        if process.is_dead:
            return
        process.drive.crash()
        process.told = None
        process.is_dead = number < len(self._processes) - 1
        if process.is_dead:
            return
        if wiped:
            process.drive.wipe()
        process.task = self._start(process.drive, number)


class SignerStarts:
    """Makes what a seat starts."""

    def __init__(
        self, chain: Chain, open_log: Callable[[], EventLog], verifier: Verifier, random: Random, assurance: Assurance
    ) -> None:
        """`assurance`: what they do before they sign."""
        self._chain, self._open_log, self._verifier = chain, open_log, verifier
        self._random, self._assurance = random, assurance

    def _store(self, shard: int) -> StateStore:
        owned = self._chain.shard_map.slots_of(shard)
        return StateStore(MemoryKeyValue(), ShardId(shard), owned, 1 << 20)

    def _settings(self) -> SyncConfig:
        return SyncConfig(round_linger_ms=self._random.choice((1, 5, 50)))

    def proposer(self, key: PrivateKey | None) -> Start:
        """Which signs alone where it has a key."""
        return lambda kv, is_owner: Synchronizer(
            self._chain,
            self._open_log(),
            kv,
            None if key is None else Signer(key),
            self._assurance,
            self._verifier,
            self._settings(),
            self._store,
            is_owner,
        )

    def attestor(self, key: PrivateKey) -> Start:
        """One of n."""
        return lambda kv, is_owner: Attestor(
            self._chain,
            self._open_log(),
            kv,
            Signer(key),
            self._assurance,
            self._verifier,
            self._settings(),
            self._store,
            is_owner,
        )
