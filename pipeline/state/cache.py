"""Two bounded caches of committed state: slot trees, and single values."""

from collections.abc import Container, Mapping
from typing import Final

from pipeline.codec.types import Slot, StateKey
from pipeline.tree.slot_tree import SlotTree

MISSING: Final = object()
# A dict entry with its key and a small value takes about this much; only larger values are counted themselves.
_BYTES_AN_ENTRY: Final = 320
_SMALL_VALUE: Final = 96


class TreeCache:
    """Slot trees in the order of use; `shrink` drops the least recently used past `limit` bytes.

    Nothing is dropped by itself: a tree that holds a proposal's changes can't be built again from what is committed.
    """

    __slots__ = ("_trees", "limit", "memory_bytes")

    def __init__(self, limit: int) -> None:
        """Empty."""
        self.limit = limit
        self._trees: dict[Slot, SlotTree] = {}
        self.memory_bytes = 0

    def get(self, slot: Slot) -> SlotTree | None:
        """The tree, marked as used; None if it is not here."""
        tree = self._trees.pop(slot, None)
        if tree is not None:
            self._trees[slot] = tree
        return tree

    def put(self, slot: Slot, tree: SlotTree) -> None:
        """Keep the tree of a slot that had none here."""
        assert slot not in self._trees, f"slot {slot} has a tree"
        self._trees[slot] = tree
        self.memory_bytes += tree.memory_bytes

    def shrink(self, kept: Container[Slot]) -> None:
        """Drop trees down to the limit, but none of the slots `kept`."""
        if self.memory_bytes <= self.limit:
            return
        for slot in list(self._trees):
            if slot not in kept:
                self.memory_bytes -= self._trees.pop(slot).memory_bytes
                if self.memory_bytes <= self.limit:
                    return

    def clear(self) -> None:
        """Drop all."""
        self._trees.clear()
        self.memory_bytes = 0


class ValueCache:
    """Values by state key, None for an absent key, within about `limit` bytes.

    Two generations instead of an order of use: a hit in the old one moves up, and a full young one becomes the
    old one. So a hit is one or two dict lookups; the hottest path reads `young` itself.
    """

    __slots__ = ("_half", "_large", "_old", "_old_bytes", "young")

    def __init__(self, limit: int) -> None:
        """Empty."""
        self.limit(limit)
        self.clear()

    def limit(self, limit: int) -> None:
        """Change the limit."""
        self._half = limit // 2

    def clear(self) -> None:
        """Forget all."""
        self.young: dict[StateKey, bytes | None] = {}
        self._old: dict[StateKey, bytes | None] = {}
        self._large = self._old_bytes = 0

    def get(self, key: StateKey) -> object:
        """The value or None; `MISSING` if unknown."""
        value = self.young.get(key, MISSING)
        if value is MISSING and key in self._old:
            value = self._old[key]
            self.update({key: self._old[key]})
        return value

    def update(self, values: Mapping[StateKey, bytes | None]) -> None:
        """Learn values."""
        self.young.update(values)
        self._large += sum([len(value) for value in values.values() if value and len(value) > _SMALL_VALUE])
        young_bytes = len(self.young) * _BYTES_AN_ENTRY + self._large
        if young_bytes > self._half:
            self._old, self._old_bytes = self.young, young_bytes
            self.young, self._large = {}, 0

    @property
    def memory_bytes(self) -> int:
        """Bytes held, roughly."""
        return len(self.young) * _BYTES_AN_ENTRY + self._large + self._old_bytes
