"""Disks that outlive the processes that write them, and lose what was not synced when those die."""

from random import Random

from pipeline.kv.memory import MemoryKeyValue
from pipeline.testing.faulty_kv import FaultyKeyValue


class Drive:
    """One disk. `open` gives a process a handle that may be armed with a crash at one of its next writes."""

    def __init__(self, random: Random) -> None:
        """Empty."""
        self._random = random
        self._kv = MemoryKeyValue()
        self._kv.close()

    def open(self, crash_chance: float) -> FaultyKeyValue:
        """A handle of the disk as it is now; the one before must have been closed or crashed."""
        random = self._random
        armed = random.random() < crash_chance
        self._kv = self._kv.reopen()
        if not armed:
            return FaultyKeyValue(self._kv)
        return FaultyKeyValue(
            self._kv, crash_at=random.randint(1, 40), when="after" if random.random() < 0.5 else "before"
        )

    def crash(self) -> None:
        """The process died or the power went: a suffix of what was not synced is lost."""
        self._kv.crash(self._random.randint(0, self._kv.unsynced))

    def wipe(self) -> None:
        """All is lost."""
        self._kv.close()
        self._kv = MemoryKeyValue()
        self._kv.close()
