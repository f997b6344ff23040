"""The tree of one slot: a binary trie over the bits of leaf keys, a function of its content alone.

No leaf: 32 zero bytes. 1 to 16 leaves: a *page*, SHA-256(0x02 ‖ for each leaf in order: leaf_key ‖
value_hash). More: SHA-256(0x03 ‖ left ‖ right), split at the next bit, most significant first; a zero child
is hashed there like any other. `pipeline.testing.naive_tree` says the same in a few lines and is what the tests
compare with.

A node is kept as the very bytes that are hashed, in one dict a tree under its place as in a binary heap: the root
at 1, the children of i at 2i and 2i + 1. A tree changes in place. Both are for speed: what a change costs beyond
its hashes is mostly waiting for memory, an inner node's bytes hold both children's hashes side by side, and
the garbage collector follows neither bytes nor dicts of bytes. Who wants an earlier state back sets the
earlier values again: the tree depends on nothing else.
"""

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Final, TypeAlias

from pipeline.codec.types import ZERO32, Hash32, LeafKey

PAGE_LEAVES: Final = 16
ENTRY_BYTES: Final = 64
KEY_BITS: Final = 256

Change: TypeAlias = tuple[LeafKey, Hash32 | None]

_PAGE: Final = 2
_FULL_PAGE: Final = 1 + PAGE_LEAVES * ENTRY_BYTES
# The place of a page is first guessed from the number of leaves, by so many bits of the key at most.
_GUESS_BITS: Final = 16
# From so many changes on, and no fewer than there are leaves, a tree is built anew.
_MANY: Final = 64
# Measured: pages, inner nodes and their dict come to so many bytes a leaf, and an empty slot to so many in all.
_BYTES_A_LEAF: Final = 90
_BYTES_A_TREE: Final = 500


class SlotTree:
    """One slot's tree. `root` is 32 bytes; `leaf_count` counts leaves."""

    __slots__ = ("_shift", "leaf_count", "nodes", "root")

    def __init__(self, entries: bytes = b"") -> None:
        """Of packed leaves (leaf_key ‖ value_hash, 64 bytes each), strictly ascending."""
        count, rest = divmod(len(entries), ENTRY_BYTES)
        assert rest == 0, "entries are 64 bytes each"
        keys = [entries[at : at + 32] for at in range(0, len(entries), ENTRY_BYTES)]
        assert all(map(bytes.__lt__, keys, keys[1:])), "leaf keys are not strictly ascending"
        self.nodes: dict[int, bytes] = {}
        self.root = _hash(_plant(self.nodes, 1, entries, 0, count))
        self._counted(count)

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the tree holds, roughly."""
        return _BYTES_A_TREE + _BYTES_A_LEAF * self.leaf_count

    def update(self, changes: Sequence[Change]) -> Hash32:
        """Apply `changes`, strictly ascending by leaf key, and return the new root.

        None deletes; deleting the absent is nothing. Every touched node is hashed once. If this is interrupted, the
        tree is in no defined state and must be dropped.
        """
        nodes, shift = self.nodes, self._shift
        if len(changes) > 1:
            for before, after in pairwise(changes):
                assert before[0] < after[0], "leaf keys are not strictly ascending"
            if len(changes) >= _MANY and len(changes) >= self.leaf_count:
                return self._rebuild(changes)
        touched: list[int] = []
        grown, shrunk, last = 0, False, 0
        for key, value_hash in changes:
            bits = 65536 | key[0] << 8 | key[1]
            down = shift
            place = bits >> down
            page = nodes.get(place)
            while page is None:  # guessed too deep
                place >>= 1
                down += 1
                page = nodes.get(place)
            while page[0] != _PAGE:  # guessed not deep enough
                down -= 1
                place = bits >> down if down >= 0 else _place_below(place, key)
                page = nodes[place]
            at = page.find(key, 1)
            if at & 63 == 1 and value_hash is not None:
                nodes[place] = b"".join((page[: at + 32], value_hash, page[at + ENTRY_BYTES :]))
            else:
                resized = _resized(page, key, value_hash)
                if resized is page:
                    continue
                nodes[place] = resized
                grown += len(resized) - len(page)
                shrunk = shrunk or len(resized) < len(page)
            if place != last:
                last = place
                touched.append(place)
        if grown or shrunk:
            touched = self._reshape(touched, shrunk)
            self._counted(self.leaf_count + grown // ENTRY_BYTES)
        if len(touched) == 1:
            self.root = _climb(nodes, touched[0], 0)
            return self.root
        return self._rehash(touched)

    def _reshape(self, touched: list[int], shrunk: bool) -> list[int]:
        """Join and split pages whose size has changed; the nodes to hash, from left to right."""
        if shrunk:
            touched = self._merge(touched)
        nodes = self.nodes
        for place in touched:
            page = nodes[place]
            if len(page) > _FULL_PAGE:
                _plant(nodes, place, page[1:], 0, len(page) // ENTRY_BYTES)
        return touched

    def prove(self, key: LeafKey) -> tuple[bytes, bytes]:
        """The page where `key` is or would be (packed 64-byte entries), and its siblings, page upward."""
        node, place, siblings = self.nodes[1], 1, []
        while node[0] != _PAGE:
            place = _place_below(place, key)
            siblings.append(node[1:33] if place & 1 else node[33:])
            node = self.nodes[place]
        return node[1:], b"".join(reversed(siblings))

    def _counted(self, leaves: int) -> None:
        self.leaf_count = leaves
        self._shift = _GUESS_BITS - min(_GUESS_BITS, (leaves // PAGE_LEAVES).bit_length())

    def _rebuild(self, changes: Sequence[Change]) -> Hash32:
        pages = [page for page in self.nodes.values() if page[0] == _PAGE]
        leaves = {page[at : at + 32]: page[at + 32 : at + 64] for page in pages for at in range(1, len(page), 64)}
        for key, value_hash in changes:
            if value_hash is None:
                leaves.pop(key, None)
            else:
                leaves[key] = value_hash
        self.nodes.clear()
        self.root = _hash(
            _plant(self.nodes, 1, b"".join([key + leaves[key] for key in sorted(leaves)]), 0, len(leaves))
        )
        self._counted(len(leaves))
        return self.root

    def _merge(self, touched: list[int]) -> list[int]:
        """Join pages with their siblings where both have no more than 16 leaves: they are always one page."""
        nodes, merged = self.nodes, []
        for start in touched:
            place = start
            while place > 1 and place in nodes:
                page, sibling = nodes[place], nodes[place ^ 1]
                if sibling[0] != _PAGE or len(page) + len(sibling) > _FULL_PAGE + 1:
                    break
                left, right = (sibling, page) if place & 1 else (page, sibling)
                del nodes[place], nodes[place ^ 1]
                place >>= 1
                nodes[place] = left + right[1:]
            merged.append(place)
        return [place for place in dict.fromkeys(merged) if place in nodes]

    def _rehash(self, touched: list[int]) -> Hash32:
        """Write the hashes of changed nodes, none above another and from left to right, into all nodes above.

        A path ends where the next one joins it, so that each node is hashed by the last path through it.
        """
        nodes, others = self.nodes, iter(touched[1:])
        for place in touched:
            other = next(others, 0)
            root = _climb(nodes, place, _joint(place, other) if other else 0)
        if touched:
            self.root = root
        return self.root


def _climb(nodes: dict[int, bytes], place: int, joint: int) -> Hash32:
    """Write hashes of the node at `place` and of those above it into their parents, up to `joint` or the root.

    Returns the hash of the root if it came there.
    """
    node = nodes[place]
    hashed = sha256(node).digest() if len(node) > 1 else ZERO32
    while place > 1:
        above = place >> 1
        node = nodes[above]
        node = nodes[above] = node[:33] + hashed if place & 1 else b"\x03" + hashed + node[33:]
        if above == joint:
            break
        hashed = sha256(node).digest()
        place = above
    return hashed  # type: ignore[return-value]  # no call of NewType per path


def _plant(nodes: dict[int, bytes], place: int, entries: bytes, start: int, end: int) -> bytes:
    """Write the subtree at `place` of the entries number `start` to `end`; returns its top node."""
    if end - start <= PAGE_LEAVES:
        node = nodes[place] = b"\x02" + entries[start * ENTRY_BYTES : end * ENTRY_BYTES]
        return node
    depth = place.bit_length() - 1
    assert depth < KEY_BITS, "more leaves than keys"
    byte, mask = depth >> 3, 128 >> (depth & 7)
    low, high = start, end
    while low < high:
        middle = (low + high) >> 1
        if entries[middle * ENTRY_BYTES + byte] & mask:
            high = middle
        else:
            low = middle + 1
    left = _plant(nodes, 2 * place, entries, start, low)
    right = _plant(nodes, 2 * place + 1, entries, low, end)
    node = nodes[place] = b"\x03" + _hash(left) + _hash(right)
    return node


def _hash(node: bytes) -> Hash32:
    return sha256(node).digest() if len(node) > 1 else ZERO32  # type: ignore[return-value]  # NewType is slow


def _joint(place: int, other: int) -> int:
    """The lowest place above both, neither of which is above the other."""
    deeper = place.bit_length() - other.bit_length()
    if deeper > 0:
        place >>= deeper
    else:
        other >>= -deeper
    return place >> (place ^ other).bit_length()


def _place_below(place: int, key: LeafKey) -> int:
    """The child of `place` on the way to `key`."""
    depth = place.bit_length() - 1
    return 2 * place + (key[depth >> 3] >> (7 - (depth & 7)) & 1)


def _resized(page: bytes, key: LeafKey, value_hash: Hash32 | None) -> bytes:
    """The page with one leaf set or removed; the same object if there is nothing to do. It may overflow."""
    low, high = 0, len(page) >> 6
    while low < high:
        middle = (low + high) >> 1
        if page[middle * ENTRY_BYTES + 1 : middle * ENTRY_BYTES + 33] < key:
            low = middle + 1
        else:
            high = middle
    at = low * ENTRY_BYTES + 1
    after = at + ENTRY_BYTES if page[at : at + 32] == key else at
    if value_hash is None:
        return page if after == at else page[:at] + page[after:]
    return page[:at] + key + value_hash + page[after:]
