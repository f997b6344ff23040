"""The 12 levels above the slot roots: a shard's state root, or the ledger root over every slot's owner.

Node = SHA-256(0x03 ‖ left ‖ right), or 32 zero bytes if both children are zero. A slot that the shard
does not own is the constant `UNOWNED_SLOT`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Final, TypeAlias

from pipeline.codec.types import SLOTS, UNOWNED_SLOT, ZERO32, Hash32, Slot

LEVELS: Final = 12
_HALF: Final = LEVELS // 2
_WIDTH: Final = 1 << _HALF  # parts, and slots of a part
_IN_PART: Final = _WIDTH - 1
assert _WIDTH * _WIDTH == SLOTS

_Part: TypeAlias = list[Hash32]
"""A tree of 64 leaves as in a binary heap: the root at 1, children of i at 2i and 2i + 1, leaf j at 64 + j."""


class ShardTree:
    """An immutable tree over 4,096 slot roots; `update` makes a new one.

    A part for each run of 64 slots, and one over the roots of those. An update copies the parts that it changes:
    copying 8,192 references, all of whose targets it counts, would take longer than a small block's hashes.
    """

    __slots__ = ("_parts", "_top")

    def __init__(self, roots: Sequence[Hash32]) -> None:
        """From one root a slot, in their order. Equal pairs are hashed once, so long runs cost little."""
        assert len(roots) == SLOTS, f"{len(roots)} slot roots"
        assert all(len(root) == 32 for root in roots), "a slot root is not 32 bytes"
        known: dict[bytes, Hash32] = {bytes(64): ZERO32}
        self._parts = [_plant(roots[first : first + _WIDTH], known) for first in range(0, SLOTS, _WIDTH)]
        self._top = _plant([part[1] for part in self._parts], known)

    @classmethod
    def of_owned(cls, owned: Iterable[Slot], roots: Mapping[Slot, Hash32]) -> "ShardTree":
        """The tree of a shard: `roots` of owned slots (zero if missing), the constant for all others."""
        own = frozenset(owned)
        used = {slot: root for slot, root in roots.items() if slot in own and root != ZERO32}
        return _without_leaves(own).update(used)

    @property
    def root(self) -> Hash32:
        """The node above all slots."""
        return self._top[1]

    def slot_root(self, slot: Slot) -> Hash32:
        """The root of one slot."""
        return self._parts[_checked(slot) >> _HALF][_WIDTH | slot & _IN_PART]

    def slot_roots(self) -> list[Hash32]:
        """The roots of all slots, in order."""
        return [root for part in self._parts for root in part[_WIDTH:]]

    def update(self, roots: Mapping[Slot, Hash32]) -> "ShardTree":
        """The tree with these slot roots replaced; every node above one is hashed once."""
        if not roots:
            return self
        assert {32}.issuperset(map(len, roots.values())), "a slot root is not 32 bytes"
        _checked(min(roots))
        _checked(max(roots))
        parts, touched = self._parts.copy(), dict[int, set[int]]()
        for slot, root in roots.items():
            number, leaf = slot >> _HALF, _WIDTH | slot & _IN_PART
            if number in touched:
                touched[number].add(leaf >> 1)
            else:
                touched[number] = {leaf >> 1}
                parts[number] = parts[number].copy()
            parts[number][leaf] = root
        zeros = ZERO32 in roots.values()  # without one of them no node becomes zero
        top = self._top.copy()
        for number, above in touched.items():
            _climb(parts[number], above, zeros)
            top[_WIDTH | number] = parts[number][1]
        _climb(top, {(_WIDTH | number) >> 1 for number in touched}, zeros)
        tree = object.__new__(ShardTree)
        tree._parts, tree._top = parts, top
        return tree

    def siblings(self, slot: Slot) -> bytes:
        """The 12 siblings of a slot, 32 bytes each, from the slot upward."""
        number = _checked(slot) >> _HALF
        return _siblings(self._parts[number], slot & _IN_PART) + _siblings(self._top, number)


def _plant(leaves: Sequence[Hash32], known: dict[bytes, Hash32]) -> _Part:
    """A part of these 64 leaves. `known`: pairs that were hashed already."""
    part = [ZERO32] * _WIDTH + list(leaves)
    for node in range(_IN_PART, 0, -1):
        pair = part[2 * node] + part[2 * node + 1]
        value = known.get(pair)
        if value is None:
            value = known[pair] = Hash32(sha256(b"\x03" + pair).digest())
        part[node] = value
    return part


def _climb(part: _Part, above: set[int], zeros: bool) -> None:
    """Hash the nodes `above` changed leaves, then those above them, up to the root, each once."""
    for _ in range(_HALF):
        for node in above:
            left, right = part[2 * node], part[2 * node + 1]
            if zeros and left == ZERO32 == right:
                part[node] = ZERO32
            else:
                part[node] = sha256(b"\x03" + left + right).digest()  # type: ignore[call-overload] # NewType is slow
        above = {node >> 1 for node in above}


def _siblings(part: _Part, leaf: int) -> bytes:
    """From a leaf upward."""
    node = _WIDTH | leaf
    return b"".join([part[(node >> level) ^ 1] for level in range(_HALF)])


@lru_cache(maxsize=16)
def _without_leaves(owned: frozenset[Slot]) -> ShardTree:
    """The tree of an empty shard, 64 KiB: opening a store or following a shard begins with it."""
    return ShardTree([ZERO32 if slot in owned else UNOWNED_SLOT for slot in range(SLOTS)])


def _checked(slot: Slot) -> Slot:
    assert 0 <= slot < SLOTS, f"slot {slot}"
    return slot
