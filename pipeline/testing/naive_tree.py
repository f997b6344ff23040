"""The authenticated tree straight from its definition, all hashed each time: the reference of tests."""

from collections.abc import Mapping
from hashlib import sha256


def naive_slot_root(leaves: Mapping[bytes, bytes]) -> bytes:
    """The root of a slot from leaf key -> value hash (32 bytes each)."""
    return _subtree(sorted((f"{int.from_bytes(key):0256b}", key, value) for key, value in leaves.items()))


def _subtree(leaves: list[tuple[str, bytes, bytes]]) -> bytes:
    """The hash of leaves (bits yet to come, leaf key, value hash)."""
    if not leaves:
        return bytes(32)
    if len(leaves) <= 16:
        return sha256(b"\x02" + b"".join(key + value for _, key, value in leaves)).digest()
    halves = [[(bits[1:], key, value) for bits, key, value in leaves if bits[0] == side] for side in "01"]
    return sha256(b"\x03" + _subtree(halves[0]) + _subtree(halves[1])).digest()


def naive_shard_root(slot_roots: list[bytes]) -> bytes:
    """The root over the slot roots; all 4,096, or on the way down a power of two of them."""
    if len(slot_roots) == 1:
        return slot_roots[0]
    half = len(slot_roots) // 2
    left, right = naive_shard_root(slot_roots[:half]), naive_shard_root(slot_roots[half:])
    return bytes(32) if left == right == bytes(32) else sha256(b"\x03" + left + right).digest()


def naive_list_root(leaves: list[bytes]) -> bytes:
    """The RFC 6962 root of a list, by its recursive definition."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + naive_list_root(leaves[:split]) + naive_list_root(leaves[split:])).digest()
