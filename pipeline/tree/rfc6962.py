"""Merkle trees of lists as in Certificate Transparency (RFC 6962, section 2.1; RFC 9162 for checking proofs).

A leaf hashes as SHA-256(0x00 ‖ leaf), a node as SHA-256(0x01 ‖ left ‖ right), the empty list as SHA-256 of
nothing. The left subtree of n leaves has the largest power of two below n, which is the same as hashing level
by level from the left and letting the odd node out rise unhashed.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final

from pipeline.codec.types import Hash32
from pipeline.errors import VerificationFailed

EMPTY_ROOT: Final = Hash32(sha256(b"").digest())


def leaf_hash(leaf: bytes) -> Hash32:
    """SHA-256(0x00 ‖ leaf)."""
    return Hash32(sha256(b"\x00" + leaf).digest())


def _node_hash(left: bytes, right: bytes) -> Hash32:
    return Hash32(sha256(b"\x01" + left + right).digest())


def _parents(level: list[bytes]) -> list[bytes]:
    nodes = iter(level)
    parents = [sha256(b"\x01" + left + right).digest() for left, right in zip(nodes, nodes, strict=False)]
    if len(level) % 2:
        parents.append(level[-1])
    return parents


def merkle_root(leaves: Sequence[bytes]) -> Hash32:
    """The root of a list of byte strings."""
    if not leaves:
        return EMPTY_ROOT
    level = [sha256(b"\x00" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        level = _parents(level)
    return Hash32(level[0])


def inclusion_path(leaves: Sequence[bytes], index: int) -> tuple[Hash32, ...]:
    """The siblings from leaf `index` upward. Raises `IndexError` if there is no such leaf."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of a list of {len(leaves)}")
    level = [sha256(b"\x00" + leaf).digest() for leaf in leaves]
    path = []
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(Hash32(level[index ^ 1]))
        level = _parents(level)
        index >>= 1
    return tuple(path)


def inclusion_paths(leaves: Sequence[bytes]) -> list[tuple[Hash32, ...]]:
    """The inclusion path of every leaf; hashes the list once."""
    levels = [[sha256(b"\x00" + leaf).digest() for leaf in leaves]]
    while len(levels[-1]) > 1:
        levels.append(_parents(levels[-1]))
    return [
        tuple(
            [
                Hash32(level[index >> height ^ 1])
                for height, level in enumerate(levels)
                if index >> height ^ 1 < len(level)
            ]
        )
        for index in range(len(leaves))
    ]


def root_from_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> Hash32:
    """The root of a list of `size` leaves that holds `leaf` at `index`, if `path` is its inclusion path.

    The caller compares it with a root that it trusts. Raises `VerificationFailed` if no list has such a path.
    """
    return root_from_leaf_hash(index, size, leaf_hash(leaf), path)


def root_from_leaf_hash(index: int, size: int, hashed: bytes, path: Sequence[bytes]) -> Hash32:
    """As `root_from_inclusion`, for one who knows only the hash of the leaf."""
    if not 0 <= index < size:
        raise VerificationFailed(f"inclusion path for leaf {index} of a list of {size}: there is no such leaf")
    _require_hashes((hashed, *path), "inclusion path")
    node, last, steps = Hash32(hashed), size - 1, iter(path)
    while last:
        # Without a right neighbour the node rises unhashed, so this level has no sibling in the path.
        if index & 1 or index < last:
            sibling = _next_hash(steps)
            node = _node_hash(sibling, node) if index & 1 else _node_hash(node, sibling)
        index, last = index >> 1, last >> 1
    if next(steps, None) is not None:
        raise VerificationFailed("inclusion path is too long for this index and size")
    return node


def verify_consistency(size1: int, size2: int, root1: bytes, root2: bytes, path: Sequence[bytes]) -> None:
    """Check that a list of `size2` leaves with `root2` begins with the `size1` leaves of `root1`.

    Both sizes are at least 1: nothing follows from an empty list. Raises `VerificationFailed`.
    """
    if not 0 < size1 <= size2:
        raise VerificationFailed(f"consistency of a list of {size2} with one of {size1} can't be proved")
    if size1 == size2:
        if path or root1 != root2:
            raise VerificationFailed("lists of one size are consistent only with one root and an empty path")
        return
    _require_hashes((root1, root2, *path), "consistency path")
    index, last = size1 - 1, size2 - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    # `index` is now a whole subtree of both lists; if it is the whole first list, its hash is root1 itself.
    steps = iter(path if index else (root1, *path))
    first = second = _next_hash(steps)
    while last:
        if index & 1 or index < last:
            sibling = _next_hash(steps)
            if index & 1:
                first, second = _node_hash(sibling, first), _node_hash(sibling, second)
            else:
                second = _node_hash(second, sibling)
        index, last = index >> 1, last >> 1
    if next(steps, None) is not None:
        raise VerificationFailed("consistency path is too long for these sizes")
    if first != root1 or second != root2:
        raise VerificationFailed("consistency path does not lead to both roots")


def _next_hash(steps: Iterator[bytes]) -> bytes:
    for step in steps:
        return step
    raise VerificationFailed("path is too short for these sizes")


def _require_hashes(values: tuple[bytes, ...], what: str) -> None:
    for value in values:
        if len(value) != 32:
            raise VerificationFailed(f"{what} has a hash of {len(value)} bytes; 32 are needed")
