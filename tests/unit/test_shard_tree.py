"""The 12 levels over slot roots, beside their recursive definition."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.types import SLOTS, UNOWNED_SLOT, ZERO32, Hash32, Slot
from pipeline.testing.naive_tree import naive_shard_root
from pipeline.tree.proofs import root_above
from pipeline.tree.shard_tree import ShardTree

roots = st.sampled_from([ZERO32, UNOWNED_SLOT, *(Hash32(bytes([n]) * 32) for n in range(1, 5))])
slots = st.one_of(st.integers(0, 15), st.integers(0, SLOTS - 1)).map(Slot)


def test_all_empty_is_zero() -> None:
    tree = ShardTree([ZERO32] * SLOTS)
    assert tree.root == ZERO32
    assert tree.siblings(Slot(5)) == bytes(12 * 32)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.dictionaries(slots, roots, max_size=12), max_size=4))
def test_updates_follow_the_definition_and_leave_the_old_tree(blocks: list[dict[Slot, Hash32]]) -> None:
    tree, model = ShardTree([ZERO32] * SLOTS), [ZERO32] * SLOTS
    for block in blocks:
        before = tree.root
        after = tree.update(block)
        assert tree.root == before
        tree = after
        for slot, root in block.items():
            model[slot] = root
        assert tree.root == naive_shard_root(model)
        assert tree.slot_roots() == model
        for slot in block:
            assert tree.slot_root(slot) == model[slot]
            if model[slot] != UNOWNED_SLOT:
                assert root_above(slot, model[slot], tree.siblings(slot)) == tree.root


def test_shards_together_are_the_ledger() -> None:
    """Unowned slots are the constant, and the ledger root does not depend on who owns what."""
    whole = {Slot(s): Hash32(s.to_bytes(32)) for s in range(0, SLOTS, 3)}
    owned = [frozenset(Slot(s) for s in range(SLOTS) if s % 4 == shard) for shard in range(4)]
    trees = [ShardTree.of_owned(mine, whole) for mine in owned]
    for mine, tree in zip(owned, trees, strict=True):
        expected = [whole.get(Slot(s), ZERO32) if s in mine else UNOWNED_SLOT for s in range(SLOTS)]
        assert tree.root == naive_shard_root(expected)
    ledger = ShardTree([trees[s % 4].slot_root(Slot(s)) for s in range(SLOTS)])
    assert ledger.root == naive_shard_root([whole.get(Slot(s), ZERO32) for s in range(SLOTS)])


def test_bad_input_is_caught() -> None:
    tree = ShardTree([ZERO32] * SLOTS)
    with pytest.raises(AssertionError, match="slot roots"):
        ShardTree([ZERO32])
    with pytest.raises(AssertionError, match="32 bytes"):
        tree.update({Slot(1): Hash32(b"short")})
    with pytest.raises(AssertionError, match="slot 4096"):
        tree.update({Slot(SLOTS): ZERO32})
    with pytest.raises(AssertionError, match="slot -1"):
        tree.siblings(Slot(-1))
