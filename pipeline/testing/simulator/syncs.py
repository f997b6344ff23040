"""Synchronizer processes: one that owns the role, and those that do not know yet that they lost it."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from pipeline.codec.types import ShardId
from pipeline.crypto.port import PrivateKey
from pipeline.crypto.verifier import Verifier
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance
from pipeline.log.port import EventLog
from pipeline.shards.progress import Idle, Progress
from pipeline.state.store import StateStore
from pipeline.sync.settings import SyncConfig
from pipeline.sync.signer import Signer
from pipeline.sync.synchronizer import Synchronizer
from pipeline.testing.simulator.drives import Drive


@dataclass(slots=True)
class _Process:
    drive: Drive
    synchronizer: Synchronizer
    is_dead: bool = False


class Syncs:
    """The owner is the last process; those before it are zombies, which go on until they are fenced or die.

    A zombie that died stays dead: its key is at work elsewhere by now, and its guard would say so and halt.
    """

    def __init__(
        self,
        chain: Chain,
        open_log: Callable[[], EventLog],
        verifier: Verifier,
        key: PrivateKey,
        random: Random,
        crash_chance: float,
        *,
        executes_again: bool,
    ) -> None:
        """With one process, on an empty disk."""
        self.crash_chance = crash_chance
        self._chain, self._open_log, self._verifier, self._key = chain, open_log, verifier, key
        self._random = random
        self._assurance = Assurance.EXECUTION if executes_again else Assurance.HEADERS
        self._processes: list[_Process] = []
        self.replace()

    def replace(self) -> None:
        """A new owner on an empty disk; the old one is not told."""
        drive = Drive(self._random)
        number = len(self._processes)
        self._processes.append(_Process(drive, self._start(drive, number)))

    def _start(self, drive: Drive, number: int) -> Synchronizer:
        def attesting_store(shard: int) -> StateStore:
            owned = self._chain.shard_map.slots_of(shard)
            return StateStore(MemoryKeyValue(), ShardId(shard), owned, 1 << 20)

        return Synchronizer(
            self._chain,
            self._open_log(),
            drive.open(self.crash_chance),
            Signer(self._key),
            self._assurance,
            self._verifier,
            SyncConfig(round_linger_ms=self._random.choice((1, 5, 50))),
            attesting_store,
            still_owner=lambda: number == len(self._processes) - 1,
        )

    def step(self, now_ms: int, number: int = -1) -> Progress | Idle:
        """One step of a process, the owner unless given. Raises what halted it."""
        if self._processes[number].is_dead:
            return Idle()
        synchronizer = self._processes[number].synchronizer
        answer = synchronizer.step(now_ms)
        if synchronizer.error is not None and number in (-1, len(self._processes) - 1):
            raise synchronizer.error
        return answer

    @property
    def count(self) -> int:
        """How many processes there are."""
        return len(self._processes)

    def any_number(self) -> int:
        """One of the processes, more often the owner."""
        return self._random.choice((-1, self._random.randrange(len(self._processes))))

    def crash(self, number: int = -1) -> None:
        """A process dies; the owner starts again on what is left of its disk."""
        number %= len(self._processes)
        process = self._processes[number]
        if process.is_dead:
            return
        process.drive.crash()
        process.is_dead = number < len(self._processes) - 1
        if not process.is_dead:
            process.synchronizer = self._start(process.drive, number)
