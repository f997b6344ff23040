"""Proofs that a state key has a value, or has none, under a shard root or a ledger root.

A proof is checked with SHA-256 alone. The verifier trusts nothing but the root it compares with, so every
rule below is one that a forger would otherwise use.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from pipeline.codec.types import UNOWNED_SLOT, ZERO32, Hash32, LeafKey, Slot, StateKey
from pipeline.errors import VerificationFailed
from pipeline.tree.keys import leaf_key_of, slot_of_key
from pipeline.tree.shard_tree import LEVELS
from pipeline.tree.slot_tree import ENTRY_BYTES, KEY_BITS, PAGE_LEAVES

MAX_SLOT_TREE_SIBLINGS: Final = 244


@dataclass(frozen=True, slots=True)
class Proof:
    """Presence (`value`) or absence (None) of `key`.

    `page`: 0 to 16 leaves, leaf_key 32 ‖ SHA-256(value) 32 each, ascending. `siblings`: 0 to 244 hashes of
    the slot tree, 32 bytes each, from the page upward. `slot_siblings`: the 12 hashes from the slot root upward.
    """

    key: StateKey
    value: bytes | None
    page: bytes
    siblings: bytes
    slot_siblings: bytes


def root_of(proof: Proof) -> Hash32:
    """The root that the proof leads to; the caller compares it with one that it trusts.

    The slot follows from the key, never from the prover. Raises `VerificationFailed` if any rule is broken.
    """
    try:
        slot = slot_of_key(proof.key)
    except ValueError as error:
        raise VerificationFailed(f"proof for something that is {error}") from error
    value_hash = None if proof.value is None else Hash32(sha256(proof.value).digest())
    root = slot_root_of(leaf_key_of(proof.key), value_hash, proof.page, proof.siblings)
    return root_above(slot, root, proof.slot_siblings)


def slot_root_of(leaf_key: LeafKey, value_hash: Hash32 | None, page: bytes, siblings: bytes) -> Hash32:
    """The slot root under which `leaf_key` has a value of `value_hash` (None: is absent).

    `page` and `siblings` as in `Proof`. Raises `VerificationFailed`.
    """
    depth, rest = divmod(len(siblings), 32)
    if rest or depth > MAX_SLOT_TREE_SIBLINGS:
        raise VerificationFailed(f"proof has {len(siblings)} bytes of slot tree siblings")
    _check_page(page, leaf_key, depth)
    entry = page.find(leaf_key)
    while entry > 0 and entry % ENTRY_BYTES:  # the bytes of a key can also straddle two fields
        entry = page.find(leaf_key, entry + 1)
    if value_hash is None and entry >= 0:
        raise VerificationFailed("proof of absence has the key in its page")
    if value_hash is not None and (entry < 0 or page[entry + 32 : entry + ENTRY_BYTES] != value_hash):
        raise VerificationFailed("proof of presence does not have the key with this value in its page")
    node = sha256(b"\x02" + page).digest() if page else ZERO32
    path = int.from_bytes(leaf_key) >> (KEY_BITS - depth)
    for level in range(depth):
        sibling = siblings[32 * level : 32 * level + 32]
        pair = sibling + node if path >> level & 1 else node + sibling
        node = sha256(b"\x03" + pair).digest()
    return Hash32(node)


def root_above(slot: Slot, slot_root: Hash32, slot_siblings: bytes) -> Hash32:
    """The root over all slots in which `slot` has `slot_root`. Raises `VerificationFailed`."""
    if len(slot_siblings) != 32 * LEVELS:
        raise VerificationFailed(f"proof has {len(slot_siblings)} bytes of slot siblings; {32 * LEVELS} are needed")
    if slot_root == UNOWNED_SLOT:
        raise VerificationFailed(f"proof leads through slot {slot}, which the shard does not own")
    node: bytes = slot_root
    for level in range(LEVELS):
        sibling = slot_siblings[32 * level : 32 * level + 32]
        pair = sibling + node if slot >> level & 1 else node + sibling
        node = ZERO32 if pair == bytes(64) else sha256(b"\x03" + pair).digest()
    return Hash32(node)


def _check_page(page: bytes, leaf_key: LeafKey, depth: int) -> None:
    count, rest = divmod(len(page), ENTRY_BYTES)
    if rest or count > PAGE_LEAVES:
        raise VerificationFailed(f"proof has a page of {len(page)} bytes; 0 to 16 entries of 64 are allowed")
    shift = KEY_BITS - depth
    path = int.from_bytes(leaf_key) >> shift
    previous = -1
    for start in range(0, len(page), ENTRY_BYTES):
        key = int.from_bytes(page[start : start + 32])
        if key <= previous:
            raise VerificationFailed("proof has a page whose leaves are not strictly ascending")
        if key >> shift != path:
            raise VerificationFailed("proof has a page with a leaf from elsewhere in the tree")
        previous = key
