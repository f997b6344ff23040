"""The 12 levels above the slot roots: a shard's state root, or the ledger root over every slot's owner.

Node = SHA-256(0x03 ‖ left ‖ right), or 32 zero bytes if both children are zero. A slot that the shard
does not own is the constant `UNOWNED_SLOT`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Final

from pipeline.codec.types import SLOTS, UNOWNED_SLOT, ZERO32, Hash32, Slot

LEVELS: Final = 12
assert 1 << LEVELS == SLOTS


class ShardTree:
    """An immutable tree over 4,096 slot roots; `update` makes a new one.

    All nodes are in one list as in a binary heap: children of i at 2i and 2i + 1, slot s at 4096 + s. An
    update copies its 8,192 references, some 10 µs: about the price of hashing one path.
    """

    __slots__ = ("_nodes",)

    def __init__(self, roots: Sequence[Hash32]) -> None:
        """From one root a slot, in their order. Equal pairs are hashed once, so long runs cost little."""
        assert len(roots) == SLOTS, f"{len(roots)} slot roots"
        assert all(len(root) == 32 for root in roots), "a slot root is not 32 bytes"
        nodes = [ZERO32] * SLOTS + list(roots)
        known: dict[bytes, Hash32] = {bytes(64): ZERO32}
        for node in range(SLOTS - 1, 0, -1):
            pair = nodes[2 * node] + nodes[2 * node + 1]
            value = known.get(pair)
            if value is None:
                value = known[pair] = Hash32(sha256(b"\x03" + pair).digest())
            nodes[node] = value
        self._nodes = nodes

    @classmethod
    def of_owned(cls, owned: Iterable[Slot], roots: Mapping[Slot, Hash32]) -> "ShardTree":
        """The tree of a shard: `roots` of owned slots (zero if missing), the constant for all others."""
        own = frozenset(owned)
        used = {slot: root for slot, root in roots.items() if slot in own and root != ZERO32}
        return _without_leaves(own).update(used)

    @property
    def root(self) -> Hash32:
        """The node above all slots."""
        return self._nodes[1]

    def slot_root(self, slot: Slot) -> Hash32:
        """The root of one slot."""
        return self._nodes[SLOTS + _checked(slot)]

    def slot_roots(self) -> list[Hash32]:
        """The roots of all slots, in order."""
        return self._nodes[SLOTS:]

    def update(self, roots: Mapping[Slot, Hash32]) -> "ShardTree":
        """The tree with these slot roots replaced; every node above one is hashed once."""
        if not roots:
            return self
        assert {32}.issuperset(map(len, roots.values())), "a slot root is not 32 bytes"
        _checked(min(roots))
        _checked(max(roots))
        nodes = self._nodes.copy()
        for slot, root in roots.items():
            nodes[SLOTS + slot] = root
        zeros = ZERO32 in roots.values()  # without one of them no node becomes zero
        lefts = {SLOTS + slot & -2 for slot in roots}
        for _ in range(LEVELS):
            for left in lefts:
                if zeros and nodes[left] == ZERO32 == nodes[left + 1]:
                    nodes[left >> 1] = ZERO32
                else:
                    hashed = sha256(b"\x03" + nodes[left] + nodes[left + 1]).digest()
                    nodes[left >> 1] = hashed  # type: ignore[call-overload]  # no call of NewType per node
            lefts = {left >> 1 & -2 for left in lefts}
        tree = object.__new__(ShardTree)
        tree._nodes = nodes
        return tree

    def siblings(self, slot: Slot) -> bytes:
        """The 12 siblings of a slot, 32 bytes each, from the slot upward."""
        node = SLOTS + _checked(slot)
        return b"".join(self._nodes[(node >> level) ^ 1] for level in range(LEVELS))


@lru_cache(maxsize=16)
def _without_leaves(owned: frozenset[Slot]) -> ShardTree:
    """The tree of an empty shard, 64 KiB: opening a store or following a shard begins with it."""
    return ShardTree([ZERO32 if slot in owned else UNOWNED_SLOT for slot in range(SLOTS)])


def _checked(slot: Slot) -> Slot:
    assert 0 <= slot < SLOTS, f"slot {slot}"
    return slot
