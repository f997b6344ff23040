"""Identifiers that must not be mixed up, and the tagged hash that makes most of them.

`H(tag, ...)` of the protocol is SHA-256(`"hauptbuch/" tag "/v1"` ‖ 0x00 ‖ ...): the tag separates domains,
so a value hashed for one purpose can never stand for another.
"""

from functools import cache
from hashlib import sha256
from typing import Final, NewType

Hash32 = NewType("Hash32", bytes)
ChainId = NewType("ChainId", bytes)
Address = NewType("Address", bytes)
AssetId = NewType("AssetId", bytes)
TxId = NewType("TxId", bytes)
BlockHash = NewType("BlockHash", bytes)
StateKey = NewType("StateKey", bytes)
LeafKey = NewType("LeafKey", bytes)
ShardId = NewType("ShardId", int)
Slot = NewType("Slot", int)
Height = NewType("Height", int)
Offset = NewType("Offset", int)

SLOTS: Final = 4096
MAX_SHARDS: Final = 1000
ZERO32: Final = Hash32(bytes(32))
MAX_AMOUNT: Final = 2**128 - 1


# What is called many times a transaction returns plain bytes and ints: calling a NewType costs as much as a look-up.


@cache
def tag_prefix(tag: str) -> bytes:
    """Bytes that every tagged hash of `tag` begins with."""
    return b"hauptbuch/" + tag.encode() + b"/v1\x00"


def tagged_hash(tag: str, *parts: bytes) -> Hash32:
    """H(tag, parts...): 32 bytes."""
    return sha256(b"".join((tag_prefix(tag), *parts))).digest()  # type: ignore[return-value]


def slot_of_id(identifier: bytes) -> Slot:
    """The slot of a 32-byte id: its first 12 bits."""
    return identifier[0] << 4 | identifier[1] >> 4  # type: ignore[return-value]


UNOWNED_SLOT: Final = tagged_hash("unowned-slot")
