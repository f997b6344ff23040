"""A key-value store that fails on demand: every write is a fault point, every read a possible error.

Use: run once without faults and take `writes`; then once for each write, crashing before and after it, and
check after each run what the opened-again store holds.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from pipeline.errors import Fatal
from pipeline.kv.port import KeyValue


class SimulatedCrash(BaseException):
    """The process is gone. A `BaseException`, so that no handler of errors mistakes it for one."""


class FaultyKeyValue:
    """Wraps a `KeyValue`; writes and reads are counted from 1.

    `crash_at` raises `SimulatedCrash` before or after that write, and from then on at every call: a dead process
    does nothing more. From write `disk_full_at` on nothing is written and `Fatal` raised. Read `read_error_at`
    (`get`, `multi_get` and `scan` count alike) raises `Fatal` once.
    """

    def __init__(
        self,
        inner: KeyValue,
        *,
        crash_at: int | None = None,
        when: Literal["before", "after"] = "before",
        disk_full_at: int | None = None,
        read_error_at: int | None = None,
    ) -> None:
        """Wrap `inner`, which stays the caller's to crash and open again."""
        self.writes = 0
        self.reads = 0
        self.crashed = False
        self._inner = inner
        self._crash_at = crash_at
        self._when = when
        self._disk_full_at = disk_full_at
        self._read_error_at = read_error_at

    def get(self, key: bytes) -> bytes | None:
        """As the port."""
        self._count_read()
        return self._inner.get(key)

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As the port."""
        self._count_read()
        return self._inner.multi_get(keys)

    def scan(self, start: bytes, end: bytes, limit: int, *, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        """As the port."""
        self._count_read()
        return self._inner.scan(start, end, limit, reverse=reverse)

    def write(self, batch: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        """As the port, with the faults."""
        self._check_alive()
        self.writes += 1
        crashing = self.writes == self._crash_at
        if crashing and self._when == "before":
            self._crash()
        if self._disk_full_at is not None and self.writes >= self._disk_full_at:
            raise Fatal("disk full: nothing was written; free space and start again")
        self._inner.write(batch, sync=sync)
        if crashing:
            self._crash()

    def refresh(self) -> None:
        """As the port."""
        self._check_alive()
        self._inner.refresh()

    def close(self) -> None:
        """Close `inner`, unless the crash did away with the process that would have closed it."""
        if not self.crashed:
            self._inner.close()

    def _count_read(self) -> None:
        self._check_alive()
        self.reads += 1
        if self.reads == self._read_error_at:
            raise Fatal("the store is damaged: restore it from a backup or the log")

    def _crash(self) -> None:
        self.crashed = True
        raise SimulatedCrash(f"{self._when} write {self.writes}")

    def _check_alive(self) -> None:
        if self.crashed:
            raise SimulatedCrash("the process crashed earlier")
