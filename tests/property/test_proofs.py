"""Proofs of state keys verify, and every forgery that comes to mind is refused."""

from dataclasses import replace
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.types import SLOTS, UNOWNED_SLOT, ZERO32, Hash32, LeafKey, Slot, StateKey
from pipeline.errors import VerificationFailed
from pipeline.tree.keys import leaf_key_of, slot_of_key
from pipeline.tree.proofs import Proof, root_above, root_of, slot_root_of
from pipeline.tree.shard_tree import ShardTree
from pipeline.tree.slot_tree import SlotTree

CROWDED = Slot(0x123)


def key_in(slot: int, number: int) -> StateKey:
    return StateKey(b"account/" + (slot << 4).to_bytes(2) + number.to_bytes(30))


def value_of(key: StateKey) -> bytes:
    return b"value of " + key


@cache
def world() -> tuple[dict[Slot, SlotTree], ShardTree]:
    """A crowded slot, a slot of one leaf, one empty slot; the shard owns even hundreds only."""
    trees = {}
    for slot, count in ((CROWDED, 300), (Slot(0x124), 1), (Slot(0x200), 16)):
        keys = [key_in(slot, number) for number in range(count)]
        leaves = sorted(leaf_key_of(key) + sha256(value_of(key)).digest() for key in keys)
        trees[slot] = SlotTree(b"".join(leaves))
    owned = [Slot(slot) for slot in range(SLOTS) if slot < 0x800]
    return trees, ShardTree.of_owned(owned, {slot: tree.root for slot, tree in trees.items()})


def proof_of(key: StateKey, value: bytes | None) -> Proof:
    trees, shard = world()
    slot = slot_of_key(key)
    page, siblings = trees.get(slot, SlotTree()).prove(leaf_key_of(key))
    return Proof(key, value, page, siblings, shard.siblings(slot))


def holds(proof: Proof) -> bool:
    try:
        return root_of(proof) == world()[1].root
    except VerificationFailed:
        return False


present = st.integers(0, 299).map(lambda n: key_in(CROWDED, n))
absent = st.integers(300, 10_000).map(lambda n: key_in(CROWDED, n))
honest = st.one_of(
    present.map(lambda key: proof_of(key, value_of(key))),
    absent.map(lambda key: proof_of(key, None)),
    st.just(proof_of(key_in(0x124, 0), value_of(key_in(0x124, 0)))),
    st.just(proof_of(key_in(0x124, 1), None)),
    st.just(proof_of(key_in(0x300, 1), None)),
)


@given(honest)
def test_honest_proofs_hold(proof: Proof) -> None:
    assert holds(proof)


@settings(max_examples=300)
@given(honest, st.data())
def test_any_changed_bit_is_refused(proof: Proof, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(["key", "page", "siblings", "slot_siblings", "value"]))
    old = getattr(proof, field)
    if not old:
        return
    bit = data.draw(st.integers(0, len(old) * 8 - 1))
    number = int.from_bytes(old) ^ 1 << bit
    forged = replace(proof, **{field: number.to_bytes(len(old))})
    assert not holds(forged) or (field == "key" and proof.value is None and honestly_absent(forged))


def honestly_absent(proof: Proof) -> bool:
    """Changing the key of a proof of absence can name another key that is truly absent from that page."""
    number = int.from_bytes(proof.key[10:])
    return slot_of_key(proof.key) != CROWDED or not 0 <= number < 300 or proof.key[9] & 15 != 0


@given(honest, st.data())
def test_wrong_lengths_are_refused(proof: Proof, data: st.DataObject) -> None:
    extra = data.draw(st.one_of(st.binary(min_size=1, max_size=70), st.just(bytes(32)), st.just(bytes(64))))
    for field in ("page", "siblings", "slot_siblings"):
        old = getattr(proof, field)
        for new in (old + extra, extra + old, old[: -len(extra)], old[len(extra) :]):
            assert new == old or not holds(replace(proof, **{field: new}))


@given(present)
def test_a_present_key_is_never_absent_nor_of_other_value(key: StateKey) -> None:
    proof = proof_of(key, value_of(key))
    for lie in (None, b"", b"other", sha256(value_of(key)).digest()):
        assert not holds(replace(proof, value=lie))
    page = proof.page
    leaf = page.index(leaf_key_of(key))
    without = page[:leaf] + page[leaf + 64 :]
    assert not holds(replace(proof, value=None, page=without))
    assert not holds(replace(proof, value=None, page=b""))


@given(absent)
def test_an_absent_key_is_never_present(key: StateKey) -> None:
    proof = proof_of(key, None)
    added = b"".join(
        sorted(
            [proof.page[i : i + 64] for i in range(0, len(proof.page), 64)] + [leaf_key_of(key) + sha256(b"v").digest()]
        )
    )
    for page in (proof.page, added, b""):
        assert not holds(replace(proof, value=b"v", page=page))


def test_a_page_out_of_order_or_repeated_is_refused() -> None:
    key = key_in(0x200, 3)
    proof = proof_of(key, value_of(key))
    assert holds(proof)
    entries = [proof.page[i : i + 64] for i in range(0, len(proof.page), 64)]
    with pytest.raises(VerificationFailed, match="ascending"):
        root_of(replace(proof, page=b"".join(reversed(entries))))
    with pytest.raises(VerificationFailed, match="ascending"):
        root_of(replace(proof, page=entries[0] * 2))
    with pytest.raises(VerificationFailed, match="page of"):
        root_of(replace(proof, page=proof.page + b"\xff" * 64))


def test_absence_by_a_page_from_elsewhere_is_refused() -> None:
    """The honest path of a key's neighbour leads to the root, but says nothing about the key."""
    trees, shard = world()
    proof = proof_of(key_in(CROWDED, 7), None)
    depth = len(proof.siblings) // 32
    bits = int.from_bytes(leaf_key_of(proof.key)) >> (256 - depth)
    foreign = next(
        key
        for key in (key_in(CROWDED, number) for number in range(300))
        if int.from_bytes(leaf_key_of(key)) >> (256 - depth) != bits
    )
    page, siblings = trees[CROWDED].prove(leaf_key_of(foreign))
    with pytest.raises(VerificationFailed, match="elsewhere"):
        root_of(Proof(proof.key, None, page, siblings, shard.siblings(CROWDED)))


def test_nothing_verifies_in_a_slot_that_is_not_owned() -> None:
    _, shard = world()
    key = key_in(0x900, 1)
    siblings = shard.siblings(Slot(0x900))
    assert shard.slot_root(Slot(0x900)) == UNOWNED_SLOT
    for page in (b"", leaf_key_of(key) + sha256(b"v").digest(), UNOWNED_SLOT * 2):
        for value in (None, b"v"):
            assert not holds(Proof(key, value, page, b"", siblings))
    with pytest.raises(VerificationFailed, match="does not own"):
        root_above(Slot(0x900), UNOWNED_SLOT, siblings)


def test_the_slot_follows_from_the_key() -> None:
    """Absence proved in another slot of the same shard is absence of another key."""
    _, shard = world()
    empty = key_in(0x300, 1)
    for key in (key_in(CROWDED, 1), key_in(0x124, 0)):
        assert not holds(Proof(key, None, b"", b"", shard.siblings(slot_of_key(empty))))
    with pytest.raises(VerificationFailed, match="not a state key"):
        root_of(Proof(StateKey(b"account/short"), None, b"", b"", bytes(384)))


def test_limits_of_length() -> None:
    key = LeafKey(bytes(32))
    assert slot_root_of(key, None, b"", bytes(244 * 32)) != ZERO32
    for siblings in (bytes(245 * 32), bytes(31)):
        with pytest.raises(VerificationFailed, match="siblings"):
            slot_root_of(key, None, b"", siblings)
    for siblings in (bytes(11 * 32), bytes(13 * 32), b""):
        with pytest.raises(VerificationFailed, match="slot siblings"):
            root_above(Slot(0), Hash32(bytes(32)), siblings)
    assert root_above(Slot(0), ZERO32, bytes(12 * 32)) == ZERO32
