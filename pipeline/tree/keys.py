"""Where a state key lives: its slot, and its leaf key inside the slot's tree.

| key | identifier that gives the slot |
|---|---|
| `account/`A, `key/`A, `balance/`A`/`S, `data/`A`/`name | A, an address of 32 bytes |
| `asset/`S | S, an asset id of 32 bytes |
| `fees/`slot | none: the slot itself, 2 bytes big-endian |
"""

from hashlib import sha256
from typing import Final

from pipeline.codec.types import SLOTS, LeafKey, Slot, StateKey, tag_prefix

LEAF_KEY_PREFIX: Final = tag_prefix("state-key")
_SLASH: Final = 0x2F


def leaf_key_of(key: StateKey) -> LeafKey:
    """H(state-key, key): the 32 bytes whose bits lead through the slot tree."""
    return LeafKey(sha256(LEAF_KEY_PREFIX + key).digest())


def slot_of_key(key: StateKey) -> Slot:
    """The slot of a state key. Raises `ValueError` if it is none of the six kinds.

    One comparison of length and prefix a kind, the most frequent first: this runs for every touched key.
    """
    size = len(key)
    if size == 73 and key.startswith(b"balance/") and key[40] == _SLASH:
        return Slot(key[8] << 4 | key[9] >> 4)
    if size == 40 and key.startswith(b"account/"):
        return Slot(key[8] << 4 | key[9] >> 4)
    if size == 36 and key.startswith(b"key/"):
        return Slot(key[4] << 4 | key[5] >> 4)
    if size == 38 and key.startswith(b"asset/"):
        return Slot(key[6] << 4 | key[7] >> 4)
    if size > 38 and key.startswith(b"data/") and key[37] == _SLASH:
        return Slot(key[5] << 4 | key[6] >> 4)
    if size == 7 and key.startswith(b"fees/"):
        slot = key[5] << 8 | key[6]
        if slot < SLOTS:
            return Slot(slot)
    raise ValueError(f"not a state key: {key[:80].hex()}")
