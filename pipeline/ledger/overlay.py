"""Uncommitted state of one block: writes above a view, with an undo journal for atomic transactions."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from pipeline.codec.types import Hash32, Slot, StateKey

_MISSING: Final = object()


class PreparedState(Protocol):
    """Changes with the roots that they lead to; not yet visible to anybody."""

    @property
    def slots(self) -> tuple[tuple[Slot, Hash32], ...]:
        """Every slot with a changed key and its root afterwards, ascending."""

    @property
    def state_root(self) -> Hash32:
        """The shard root afterwards."""


class StateView(Protocol):
    """Read access to a shard's state, and the roots of proposed changes."""

    def get(self, key: StateKey) -> bytes | None:
        """The leaf's value, or None."""

    def get_many(self, keys: Sequence[StateKey]) -> list[bytes | None]:
        """The values in the order of `keys`."""

    def prepare(self, changes: Mapping[StateKey, bytes | None]) -> PreparedState:
        """The roots after `changes` (None deletes)."""


class Overlay:
    """Values as the block has made them so far."""

    __slots__ = ("_base", "_cells", "_journal", "_view")

    def __init__(self, view: StateView) -> None:
        """Over the state before the block."""
        self._view = view
        self._base: dict[StateKey, bytes | None] = {}
        self._cells: dict[StateKey, bytes | None] = {}
        self._journal: dict[StateKey, object] | None = None

    def load(self, keys: Sequence[StateKey]) -> None:
        """Read many keys at once, so that `get` finds them here."""
        wanted = [key for key in dict.fromkeys(keys) if key not in self._base]
        self._base.update(zip(wanted, self._view.get_many(wanted), strict=True))

    def get(self, key: StateKey) -> bytes | None:
        """The current value, or None."""
        try:
            return self._cells[key]
        except KeyError:
            pass
        try:
            return self._base[key]
        except KeyError:
            value = self._base[key] = self._view.get(key)
            return value

    def set(self, key: StateKey, value: bytes | None) -> None:
        """Write; None deletes."""
        journal = self._journal
        if journal is not None and key not in journal:
            journal[key] = self._cells.get(key, _MISSING)
        self._cells[key] = value

    def begin(self) -> None:
        """Start to remember what `undo` restores."""
        self._journal = {}

    def keep(self) -> None:
        """Forget the journal: what was written stays."""
        self._journal = None

    def undo(self) -> None:
        """Restore every key to what it was at `begin`."""
        journal = self._journal
        assert journal is not None, "undo without begin"
        for key, old in journal.items():
            if old is _MISSING:
                del self._cells[key]
            else:
                self._cells[key] = old  # type: ignore[assignment] # anything but _MISSING is a value
        self._journal = None

    @property
    def before(self) -> Mapping[StateKey, bytes | None]:
        """Values before the block: after `changes`, of every key that was set."""
        return self._base

    def changes(self) -> dict[StateKey, bytes | None]:
        """Every key whose value differs from the state before the block."""
        self.load(list(self._cells))
        return {key: value for key, value in self._cells.items() if value != self._base[key]}
