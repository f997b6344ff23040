"""A machine whose power can be cut at any write of a node: all its disks lose what was not synced, a suffix each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from pipeline.kv.memory import MemoryKeyValue
from pipeline.kv.port import KeyValue
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import EventLog
from pipeline.testing.faulty_kv import SimulatedCrash

END = b"\xff" * 64


class Machine:
    """Disks by path. Writes of all of them are counted together, from 1."""

    def __init__(self) -> None:
        self.writes = 0
        self.cut_at: float | None = None
        self.disks: dict[Path, MemoryKeyValue] = {}

    def open(self, path: Path) -> KeyValue:
        known = self.disks.get(path)
        self.disks[path] = MemoryKeyValue() if known is None else known.reopen()
        return _Handle(self, self.disks[path])

    def cut(self, random: Random) -> None:
        """The power goes."""
        for disk in self.disks.values():
            disk.crash(random.randint(0, disk.unsynced))
        self.cut_at = None

    def forget(self, *names: str) -> None:
        """Somebody deletes directories: everything under a folder of these names."""
        for path in [*self.disks]:
            if set(names) & set(path.parts):
                self.disks[path].close()
                del self.disks[path]

    def log(self, path: Path) -> EventLog:
        """A copy of the log as it is, to be read."""
        source = self.disks[path].reopen()
        copy = MemoryKeyValue()
        copy.write(dict(source.scan(b"", END, 1 << 30)), sync=True)
        source.close()
        return EmbeddedLog(copy, read_only=True)


class _Handle:
    """A process's view of a disk. `cut_at` = n: before write n; n + 0.5: after it."""

    def __init__(self, machine: Machine, inner: MemoryKeyValue) -> None:
        self._machine = machine
        self._inner = inner

    def get(self, key: bytes) -> bytes | None:
        return self._inner.get(key)

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._inner.multi_get(keys)

    def scan(self, start: bytes, end: bytes, limit: int, *, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        return self._inner.scan(start, end, limit, reverse=reverse)

    def write(self, batch: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        machine = self._machine
        machine.writes += 1
        self._check(machine.writes)
        self._inner.write(batch, sync=sync)
        self._check(machine.writes + 0.5)

    def refresh(self) -> None:
        self._inner.refresh()

    def close(self) -> None:
        self._inner.close()

    def _check(self, moment: float) -> None:
        if self._machine.cut_at is not None and moment >= self._machine.cut_at:
            raise SimulatedCrash(f"the power went at {self._machine.cut_at}")
