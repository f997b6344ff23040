"""A key-value store in memory that can crash as a real one does.

The "disk" outlives its handles. Batches written with `sync=False` are remembered with what they replaced until
a synced write makes them durable; `crash` undoes the last of them, since a write-ahead log loses a suffix,
never a batch in the middle.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Final

from pipeline.errors import Fatal

_FEW: Final = 8  # new keys up to this many are inserted one by one; more are merged by one sort


class _Disk:
    """What survives a closed handle: the map, its keys in order, and how to undo unsynced batches."""

    __slots__ = ("data", "in_use", "keys", "lock", "pending", "undo")

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []
        self.pending: list[bytes] = []  # keys of `data` not yet in `keys`
        self.undo: list[dict[bytes, bytes | None]] = []
        self.lock = Lock()
        self.in_use = False

    def ordered(self) -> list[bytes]:
        """All keys ascending, with the pending ones merged in."""
        pending = self.pending
        if len(pending) <= _FEW:
            for key in pending:
                insort(self.keys, key)
        else:
            self.keys += pending
            self.keys.sort()  # a sorted run and a tail: nearly linear
        pending.clear()
        return self.keys

    def apply(self, batch: Mapping[bytes, bytes | None]) -> None:
        data = self.data
        for key, value in batch.items():
            if value is None:
                if data.pop(key, None) is not None:
                    keys = self.ordered()
                    del keys[bisect_left(keys, key)]
            else:
                if key not in data:
                    self.pending.append(key)
                data[key] = value


class MemoryKeyValue:
    """`KeyValue` in memory. One handle of a disk is open at a time, as with the lock of a real store."""

    __slots__ = ("_closed", "_disk")

    def __init__(self) -> None:
        """An empty store on a disk of its own."""
        self._disk = _Disk()
        self._disk.in_use = True
        self._closed = False

    @property
    def unsynced(self) -> int:
        """Number of batches that a crash may lose."""
        return len(self._disk.undo)

    def get(self, key: bytes) -> bytes | None:
        """As the port."""
        self._check_open()
        return self._disk.data.get(key)

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As the port."""
        self._check_open()
        return [*map(self._disk.data.get, keys)]

    def scan(self, start: bytes, end: bytes, limit: int, *, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        """As the port."""
        self._check_open()
        disk = self._disk
        with disk.lock:
            keys = disk.ordered()
            low = bisect_left(keys, start)
            high = bisect_left(keys, end, low)
            if reverse:
                page = keys[max(low, high - max(limit, 0)) : high]
                page.reverse()
            else:
                page = keys[low : min(high, low + max(limit, 0))]
            data = disk.data
            return [(key, data[key]) for key in page]

    def write(self, batch: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        """As the port."""
        self._check_open()
        disk = self._disk
        with disk.lock:
            if sync:
                disk.undo.clear()
            elif batch:
                disk.undo.append({key: disk.data.get(key) for key in batch})
            disk.apply(batch)

    def refresh(self) -> None:
        """Nothing to do."""
        self._check_open()

    def crash(self, keep: int = 0) -> None:
        """Pull the plug: of the unsynced batches only the first `keep` survive; this handle is closed."""
        assert keep >= 0, "a crash can't keep a negative number of batches"
        disk = self._disk
        with disk.lock:
            while len(disk.undo) > keep:
                disk.apply(disk.undo.pop())
            disk.undo.clear()  # what survived was read back from the disk
        self.close()

    def reopen(self) -> "MemoryKeyValue":
        """A new handle of the same disk. Raises `Fatal` while this or another one is open."""
        if self._disk.in_use:
            raise Fatal("the memory store is in use by another handle: close that one first")
        handle = MemoryKeyValue.__new__(MemoryKeyValue)
        handle._disk = self._disk
        handle._closed = False
        self._disk.in_use = True
        return handle

    def close(self) -> None:
        """As the port; unsynced batches stay, as with a process that ends while the machine runs on."""
        if not self._closed:
            self._closed = True
            self._disk.in_use = False

    def _check_open(self) -> None:
        if self._closed:
            raise Fatal("the memory store is closed: open it again")
