"""The key-value port: an ordered map of bytes with atomic batches.

`scan` returns a list, page by page, because an iterator that lives longer than its database keeps the lock.
The writes of this port are the fault points of the whole system: whatever survives a crash was in a batch
whose `write` returned (always, if `sync`; usually, if not). Batches survive in order: one that was lost takes
every later one with it, never an earlier one.

Stores are safe to share between threads. Keys beginning with the byte FF belong to `pipeline.kv.format`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class KeyValue(Protocol):
    """An ordered map of byte strings, keys compared as unsigned bytes.

    Every call raises `Fatal` where the store is closed or its bytes are damaged: a read never takes damage
    for absence.
    """

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of `keys`."""

    def scan(self, start: bytes, end: bytes, limit: int, *, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        """Up to `limit` pairs with start <= key < end, ascending (or descending from the end if `reverse`).

        A page is one moment's view; two pages are not. To go on, start at the last key + a zero byte.
        """

    def write(self, batch: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        """Apply all or nothing; None deletes. With `sync`, durable when it returns, and so is all before it.

        An empty batch with `sync` makes earlier batches durable. Raises `Fatal` on disk full or on a
        secondary; after a failed write close the store: only opening it again tells what was kept.
        """

    def refresh(self) -> None:
        """For a read-only secondary: catch up with the primary. Elsewhere nothing to do."""

    def close(self) -> None:
        """Release the lock. Idempotent; every later call raises `Fatal`."""
