"""The key-value port: an ordered map of bytes with atomic batches.

`scan` returns a list, page by page, because an iterator that lives longer than its database keeps the lock.
The writes of this port are the fault points of the whole system: whatever survives a crash was in a batch whose
`write` returned (always, if `sync`; usually, if not).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class KeyValue(Protocol):
    """An ordered map of byte strings."""

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of `keys`."""

    def scan(self, start: bytes, end: bytes, limit: int, *, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        """Up to `limit` pairs with start <= key < end, ascending (or descending from the end if `reverse`)."""

    def write(self, batch: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        """Apply all or nothing; None deletes. With `sync`, durable when it returns. Raises `Fatal` on disk full."""

    def refresh(self) -> None:
        """For a read-only secondary: catch up with the primary. Elsewhere nothing to do."""

    def close(self) -> None:
        """Release the lock. Idempotent; every later call raises `Fatal`."""
