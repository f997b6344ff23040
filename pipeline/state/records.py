"""The bytes of the state store: what is kept under which key.

| key | value |
|---|---|
| `l` ‖ slot 2 ‖ leaf_key 32 | length of the state key 2 ‖ state key ‖ value |
| `r` ‖ slot 2 | root of the slot's tree, 32; none for an empty slot |
| `m` ‖ name | whatever the owner of the store keeps with its state |
| `s` | shard 2 |

Integers are big-endian. No tree nodes are kept: a slot's tree is built from its leaves.
"""

from typing import Final

from pipeline.codec.types import SLOTS, LeafKey, Slot, StateKey
from pipeline.errors import Fatal

FORMAT_KIND: Final = b"state"
FORMAT_VERSION: Final = 1

LEAF: Final = b"l"
META: Final = b"m"
ROOT: Final = b"r"
SHARD: Final = b"s"
# `l` ‖ slot, looked up for every changed key; the last one is the end of a scan of all leaves.
LEAVES_OF: Final = tuple(LEAF + slot.to_bytes(2) for slot in range(SLOTS + 1))
ROOTS_START: Final = ROOT + bytes(2)
ROOTS_END: Final = SHARD


def place_of_root(slot: Slot) -> bytes:
    """The key of a slot's root."""
    return ROOT + slot.to_bytes(2)


def place_of_leaf(slot: Slot, leaf_key: LeafKey) -> bytes:
    """The key of a leaf."""
    return LEAVES_OF[slot] + leaf_key


def pack_leaf(key: StateKey, value: bytes) -> bytes:
    """The record of a leaf."""
    return len(key).to_bytes(2) + key + value


def unpack_leaf(place: bytes, record: bytes) -> tuple[StateKey, bytes]:
    """State key and value of a leaf's record. Raises `Fatal` if it is too short to hold its key."""
    start = 2 + int.from_bytes(record[:2])
    if len(place) != 35 or len(record) < start or start == 2:
        raise damaged(f"the record at {place[:40].hex()} is not a leaf")
    return StateKey(record[2:start]), record[start:]


def damaged(what: str) -> Fatal:
    """The error for a store that contradicts itself. It says what to do; nothing here deletes or mends."""
    return Fatal(
        f"the state store is damaged: {what}; stop, keep its directory for inquiry, then restore a backup or "
        "start with an empty directory, which is filled from the log"
    )
