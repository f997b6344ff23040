"""The tree of one slot: a binary trie over the bits of leaf keys, a function of its content alone.

No leaf: 32 zero bytes. 1 to 16 leaves: a *page*, SHA-256(0x02 ‖ for each leaf in order: leaf_key ‖
value_hash). More: SHA-256(0x03 ‖ left ‖ right), split at the next bit, most significant first; a zero child
is hashed there like any other. `pipeline.testing.naive_tree` says the same in a few lines and is what the tests
compare with.

Trees are immutable and share what did not change. A page is kept as the very bytes that are hashed; an inner
node as a plain tuple, because it is made in a fraction of the time of an object with attributes, and the
garbage collector stops tracking it.
"""

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

from pipeline.codec.types import ZERO32, Hash32, LeafKey

PAGE_LEAVES: Final = 16
ENTRY_BYTES: Final = 64
KEY_BITS: Final = 256

Change: TypeAlias = tuple[LeafKey, Hash32 | None]
# A page: 0x02 ‖ entries. An inner node: left, right, hash of left, hash of right.
_Inner: TypeAlias = "tuple[_Node, _Node, bytes, bytes]"
_Node: TypeAlias = "bytes | _Inner"
_Hashed: TypeAlias = "tuple[_Node, bytes]"

_EMPTY_PAGE: Final = b"\x02"
_FULL_PAGE: Final = 1 + PAGE_LEAVES * ENTRY_BYTES
# The 8 turns of a byte of a leaf key, most significant bit first: 0 left, 1 right.
_SIDES: Final = tuple(tuple(byte >> bit & 1 for bit in range(7, -1, -1)) for byte in range(256))
# Measured: pages, hashes and tuples come to so many bytes a leaf, and a nearly empty slot to so many in all.
_BYTES_A_LEAF: Final = 90
_BYTES_A_TREE: Final = 400


class SlotTree(NamedTuple):
    """One slot's tree. `root` is 32 bytes; `leaf_count` counts leaves."""

    node: _Node
    root: Hash32
    leaf_count: int

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the tree holds, roughly, not counting what it shares with others."""
        return _BYTES_A_TREE + _BYTES_A_LEAF * self.leaf_count


EMPTY_SLOT_TREE: Final = SlotTree(_EMPTY_PAGE, ZERO32, 0)


def build(entries: bytes) -> SlotTree:
    """The tree of packed leaves (leaf_key ‖ value_hash, 64 bytes each), strictly ascending."""
    count, rest = divmod(len(entries), ENTRY_BYTES)
    assert rest == 0, "entries are 64 bytes each"
    keys = [entries[at : at + 32] for at in range(0, len(entries), ENTRY_BYTES)]
    assert all(map(bytes.__lt__, keys, keys[1:])), "leaf keys are not strictly ascending"
    node, root = _build(entries, 0, count, 0)
    return SlotTree(node, Hash32(root), count)


def update(tree: SlotTree, changes: Sequence[Change]) -> SlotTree:
    """The tree after `changes`, strictly ascending by leaf key. None deletes; deleting the absent is nothing.

    Every touched node is hashed once.
    """
    size = len(changes)
    if size == 1:
        key, value_hash = changes[0]
        node, root, grown = _update_one(tree.node, tree.root, 0, key, value_hash)
    elif size:
        for before, after in pairwise(changes):
            assert before[0] < after[0], "leaf keys are not strictly ascending"
        node, root, grown = _update_many(tree.node, tree.root, 0, changes)
    else:
        return tree
    # A call of NewType costs as much as a tenth of a hash, so none in here.
    return SlotTree(node, root, tree.leaf_count + grown // ENTRY_BYTES)  # type: ignore[arg-type]


def prove(tree: SlotTree, key: LeafKey) -> tuple[bytes, bytes]:
    """The page where `key` is or would be (packed 64-byte entries), and its siblings, page upward."""
    node, depth, siblings = tree.node, 0, []
    while not isinstance(node, bytes):
        left, right, left_hash, right_hash = node
        if key[depth >> 3] & 128 >> (depth & 7):
            node = right
            siblings.append(left_hash)
        else:
            node = left
            siblings.append(right_hash)
        depth += 1
    return node[1:], b"".join(reversed(siblings))


def _build(entries: bytes, start: int, end: int, depth: int) -> _Hashed:
    """Node and hash of the entries number `start` to `end`, which share the first `depth` bits."""
    if end - start <= PAGE_LEAVES:
        return _hashed_page(b"\x02" + entries[start * ENTRY_BYTES : end * ENTRY_BYTES])
    assert depth < KEY_BITS, "more leaves than keys"
    byte, mask = depth >> 3, 128 >> (depth & 7)
    low, high = start, end
    while low < high:
        middle = (low + high) >> 1
        if entries[middle * ENTRY_BYTES + byte] & mask:
            high = middle
        else:
            low = middle + 1
    left, left_hash = _build(entries, start, low, depth + 1)
    right, right_hash = _build(entries, low, end, depth + 1)
    return (left, right, left_hash, right_hash), sha256(b"\x03" + left_hash + right_hash).digest()


def _hashed_page(page: bytes) -> _Hashed:
    return page, sha256(page).digest() if len(page) > 1 else ZERO32


def _joined(left: _Node, right: _Node, left_hash: bytes, right_hash: bytes) -> _Hashed:
    """The node over two children, one of which may have shrunk: 16 leaves or fewer are always one page."""
    if isinstance(left, bytes) and isinstance(right, bytes) and len(left) + len(right) <= _FULL_PAGE + 1:
        return _hashed_page(left + right[1:])
    return (left, right, left_hash, right_hash), sha256(b"\x03" + left_hash + right_hash).digest()


def _update_one(
    node: _Node, node_hash: bytes, depth: int, key: LeafKey, value_hash: Hash32 | None
) -> tuple[_Node, bytes, int]:
    """Node, hash and growth in bytes after one change: down to the page, then up again without recursion."""
    top = node
    path: list[_Inner] = []
    byte = depth >> 3
    sides = _SIDES[key[byte]][depth & 7 :]
    while not isinstance(node, bytes):
        for side in sides:
            path.append(node)
            node = node[side]  # the children come first
            depth += 1
            if isinstance(node, bytes):
                break
        else:
            byte += 1
            sides = _SIDES[key[byte]]
    page = _changed_page(node, key, value_hash)
    if page is node:
        return top, node_hash, 0
    grown = len(page) - len(node)
    shrunk = grown < 0
    below: _Node = page
    if len(page) > _FULL_PAGE:
        below, below_hash = _build(page[1:], 0, PAGE_LEAVES + 1, depth)
    elif len(page) > 1:
        below_hash = sha256(page).digest()
    else:
        below_hash = ZERO32
    # Siblings are never one object, so identity tells the side that we came from.
    for parent in reversed(path):
        left, right, left_hash, right_hash = parent
        if left is node:
            left, left_hash = below, below_hash
        else:
            right, right_hash = below, below_hash
        node = parent
        if shrunk:
            below, below_hash = _joined(left, right, left_hash, right_hash)
        else:
            below = (left, right, left_hash, right_hash)
            below_hash = sha256(b"\x03" + left_hash + right_hash).digest()
    return below, below_hash, grown


def _update_many(node: _Node, node_hash: bytes, depth: int, changes: Sequence[Change]) -> tuple[_Node, bytes, int]:
    """Node, hash and growth in bytes after two or more `changes`, which share the first `depth` bits."""
    if isinstance(node, bytes):
        page = _merged(node, changes)
        grown = len(page) - len(node)
        if len(page) <= _FULL_PAGE:
            return *_hashed_page(page), grown
        return *_build(page[1:], 0, len(page) // ENTRY_BYTES, depth), grown
    left, right, left_hash, right_hash = node
    split = _split(changes, depth)
    depth += 1
    grown = more = 0
    if split == 1:
        left, left_hash, grown = _update_one(left, left_hash, depth, *changes[0])
    elif split:
        left, left_hash, grown = _update_many(left, left_hash, depth, changes[:split])
    rest = len(changes) - split
    if rest == 1:
        right, right_hash, more = _update_one(right, right_hash, depth, *changes[-1])
    elif rest:
        right, right_hash, more = _update_many(right, right_hash, depth, changes[split:])
    if grown + more < 0:
        return *_joined(left, right, left_hash, right_hash), grown + more
    if left is node[0] and right is node[1]:
        return node, node_hash, 0
    above = sha256(b"\x03" + left_hash + right_hash).digest()
    return (left, right, left_hash, right_hash), above, grown + more


def _split(changes: Sequence[Change], depth: int) -> int:
    """How many of the changes go left at this depth."""
    byte, mask = depth >> 3, 128 >> (depth & 7)
    if changes[0][0][byte] & mask:
        return 0
    low, high = 1, len(changes)
    if not changes[-1][0][byte] & mask:
        return high
    while low < high:
        middle = (low + high) >> 1
        if changes[middle][0][byte] & mask:
            high = middle
        else:
            low = middle + 1
    return low


def _merged(page: bytes, changes: Sequence[Change]) -> bytes:
    """The page after `changes`, however many, so that it may overflow."""
    if len(changes) <= PAGE_LEAVES:
        for key, value_hash in changes:
            page = _changed_page(page, key, value_hash)
        return page
    leaves = {page[at : at + 32]: page[at + 32 : at + 64] for at in range(1, len(page), ENTRY_BYTES)}
    for key, value_hash in changes:
        if value_hash is None:
            leaves.pop(key, None)
        else:
            leaves[key] = value_hash
    return b"\x02" + b"".join([key + leaves[key] for key in sorted(leaves)])


def _changed_page(page: bytes, key: LeafKey, value_hash: Hash32 | None) -> bytes:
    """The page with one leaf set or removed; the same object if there is nothing to do. It may overflow."""
    at = page.find(key, 1)
    while at > 0 and at & 63 != 1:  # the bytes of a key can also straddle two fields
        at = page.find(key, at + 1)
    if at > 0:
        if value_hash is None:
            return page[:at] + page[at + ENTRY_BYTES :]
        return b"".join((page[: at + 32], value_hash, page[at + ENTRY_BYTES :]))
    if value_hash is None:
        return page
    low, high = 0, len(page) >> 6
    while low < high:
        middle = (low + high) >> 1
        if page[middle * ENTRY_BYTES + 1 : middle * ENTRY_BYTES + 33] < key:
            low = middle + 1
        else:
            high = middle
    at = low * ENTRY_BYTES + 1
    return page[:at] + key + value_hash + page[at:]
