"""The quick slot tree beside the naive one, through any history."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.types import ZERO32, Hash32, LeafKey
from pipeline.errors import VerificationFailed
from pipeline.testing.naive_tree import naive_slot_root
from pipeline.tree import slot_tree
from pipeline.tree.proofs import slot_root_of
from pipeline.tree.slot_tree import SlotTree


def key_of(branch: int, number: int) -> LeafKey:
    """32 bytes that share a prefix of some length with many others, so that splits go deep."""
    shared = (0, 1, 7, 8, 15, 200, 239)[branch]
    ones = ((1 << shared) - 1) << (256 - shared)
    return LeafKey((ones | number << (256 - shared - 9)).to_bytes(32))


keys = st.builds(key_of, st.integers(0, 6), st.integers(0, 255))
values = st.integers(0, 3).map(lambda n: Hash32(bytes([n]) * 32))
blocks = st.lists(st.dictionaries(keys, st.one_of(st.none(), values), max_size=60), min_size=1, max_size=8)


def apply(tree: SlotTree, model: dict[LeafKey, Hash32], block: dict[LeafKey, Hash32 | None]) -> None:
    for key, value in block.items():
        if value is None:
            model.pop(key, None)
        else:
            model[key] = value
    assert tree.update(sorted(block.items())) == tree.root


def checked(tree: SlotTree, model: dict[LeafKey, Hash32]) -> None:
    assert tree.root == naive_slot_root(model)
    assert tree.leaf_count == len(model)
    assert tree.nodes == SlotTree(b"".join(key + model[key] for key in sorted(model))).nodes


@settings(max_examples=300, deadline=None)
@given(blocks)
def test_any_history_gives_the_root_of_its_content(history: list[dict[LeafKey, Hash32 | None]]) -> None:
    tree, model = SlotTree(), dict[LeafKey, Hash32]()
    for block in history:
        before, root = dict(model), tree.root
        apply(tree, model, block)
        checked(tree, model)
        apply(tree, dict(model), {key: before.get(key) for key in block})
        assert tree.root == root
        checked(tree, before)
        apply(tree, model, block)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(keys, values, min_size=17, max_size=120), st.data())
def test_one_by_one_down_to_nothing(model: dict[LeafKey, Hash32], data: st.DataObject) -> None:
    tree = SlotTree(b"".join(key + model[key] for key in sorted(model)))
    model = dict(model)
    for key in data.draw(st.permutations(sorted(model))):
        apply(tree, model, {key: None})
        assert tree.root == naive_slot_root(model)
    assert tree.nodes == SlotTree().nodes
    assert tree.root == ZERO32


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(keys, values, max_size=120), keys)
def test_every_key_has_a_proof_of_presence_or_absence(model: dict[LeafKey, Hash32], other: LeafKey) -> None:
    tree = SlotTree(b"".join(key + model[key] for key in sorted(model)))
    for key in {*model, other}:
        page, siblings = tree.prove(key)
        assert slot_root_of(key, model.get(key), page, siblings) == tree.root
        lie = None if key in model else Hash32(b"x" * 32)
        with pytest.raises(VerificationFailed):
            slot_root_of(key, lie, page, siblings)


def test_a_page_becomes_a_node_at_the_seventeenth_leaf_and_back() -> None:
    tree, model = SlotTree(), dict[LeafKey, Hash32]()
    numbered = [LeafKey(sha256(bytes([n])).digest()) for n in range(40)]
    for key in numbered:
        apply(tree, model, {key: Hash32(key)})
        checked(tree, model)
        assert (len(tree.nodes) == 1) is (len(model) <= 16)
    for key in numbered:
        apply(tree, model, {key: None})
        checked(tree, model)
        assert (len(tree.nodes) == 1) is (len(model) <= 16)


def test_a_key_that_straddles_two_fields_is_not_found_there() -> None:
    """The bytes of one key, seen across another leaf's key and value, must not be taken for its leaf."""
    wanted = LeafKey(b"\x77" * 16 + b"\x11" * 16)
    other = LeafKey(b"\x01" * 16 + b"\x77" * 16)
    page = other + b"\x11" * 16 + bytes(16)
    tree = SlotTree(page)
    root = tree.root
    assert tree.update([(wanted, None)]) == root
    assert slot_root_of(wanted, None, page, b"") == root
    assert tree.update([(wanted, Hash32(bytes(32)))]) == naive_slot_root({other: page[32:], wanted: bytes(32)})
    assert tree.update([(wanted, Hash32(b"x" * 32))]) == naive_slot_root({other: page[32:], wanted: b"x" * 32})
    with pytest.raises(VerificationFailed):
        slot_root_of(wanted, Hash32(page[48:64] + other[:16]), page, b"")


def test_changing_nothing_keeps_the_nodes() -> None:
    tree = SlotTree(b"".join(sorted(sha256(bytes([n])).digest() + bytes(32) for n in range(100))))
    absent = sorted((LeafKey(sha256(b"absent%d" % n).digest()), None) for n in range(30))
    before, root = list(tree.nodes.items()), tree.root
    for changes in ([], absent[:1], absent):
        assert tree.update(changes) == root
    after = list(tree.nodes.items())
    assert all(old[1] is new[1] for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("leaves", [0, 10, 100])
def test_as_many_changes_as_leaves_build_the_tree_anew(leaves: int) -> None:
    model = {LeafKey(sha256(b"%d" % n).digest()): Hash32(bytes(32)) for n in range(leaves)}
    tree = SlotTree(b"".join(sorted(key + value for key, value in model.items())))
    block = {LeafKey(sha256(b"%d" % n).digest()): Hash32(b"y" * 32) if n % 3 else None for n in range(50, 400)}
    apply(tree, model, block)
    checked(tree, model)


def test_every_touched_node_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    numbered = [LeafKey(sha256(b"%d" % n).digest()) for n in range(1000)]
    tree = SlotTree(b"".join(sorted(key + bytes(32) for key in numbered)))
    hashed: list[bytes] = []
    monkeypatch.setattr(slot_tree, "sha256", lambda data: hashed.append(data) or sha256(data))
    for count in (1, 2, 30, 900):
        before = dict(tree.nodes)
        hashed.clear()
        block = {key: Hash32(count.to_bytes(32)) for key in numbered[:count]}
        tree.update(sorted(block.items()))
        touched = [node for place, node in tree.nodes.items() if before[place] != node]
        assert sorted(hashed) == sorted(touched)


def test_unsorted_or_repeated_keys_are_caught() -> None:
    a, b = LeafKey(bytes(32)), LeafKey(b"\x01" * 32)
    for bad in ([(b, ZERO32), (a, ZERO32)], [(a, ZERO32), (a, None)]):
        with pytest.raises(AssertionError, match="ascending"):
            SlotTree().update(bad)
    with pytest.raises(AssertionError, match="ascending"):
        SlotTree(b + ZERO32 + a + ZERO32)
    with pytest.raises(AssertionError, match="64 bytes"):
        SlotTree(a)


def test_memory_grows_with_leaves() -> None:
    tree = SlotTree(b"".join(sorted(sha256(bytes([n])).digest() + bytes(32) for n in range(100))))
    assert tree.memory_bytes > SlotTree().memory_bytes > 0
