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
    return sha256(LEAF_KEY_PREFIX + key).digest()  # type: ignore[return-value]  # a call of NewType is slow


def slot_of_key(key: StateKey) -> Slot:
    """The slot of a state key. Raises `ValueError` if it is none of the six kinds.

    One comparison of length and prefix a kind, the most frequent first: this runs for every touched key.
    """
    size = len(key)
    if (size == 73 and key.startswith(b"balance/") and key[40] == _SLASH) or (
        size == 40 and key.startswith(b"account/")
    ):
        start = 8
    elif size == 36 and key.startswith(b"key/"):
        start = 4
    elif size == 38 and key.startswith(b"asset/"):
        start = 6
    elif size > 38 and key.startswith(b"data/") and key[37] == _SLASH:
        start = 5
    elif size == 7 and key.startswith(b"fees/") and key[5] << 8 | key[6] < SLOTS:
        return Slot(key[5] << 8 | key[6])
    else:
        raise ValueError(f"not a state key: {key[:80].hex()}")
    return key[start] << 4 | key[start + 1] >> 4  # type: ignore[return-value]  # a call of NewType is slow
