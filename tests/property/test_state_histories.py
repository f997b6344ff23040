"""The state store beside a plain dict: any history, any cache size, dropped and stacked proposals, restarts."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.types import SLOTS, UNOWNED_SLOT, ShardId, Slot, StateKey
from pipeline.errors import VerificationFailed
from pipeline.kv.memory import MemoryKeyValue
from pipeline.state.store import StateStore
from pipeline.testing.naive_tree import naive_shard_root, naive_slot_root
from pipeline.tree.keys import leaf_key_of, slot_of_key
from pipeline.tree.proofs import root_of

SHARD = ShardId(0)
OWNED = frozenset(Slot(slot) for slot in range(SLOTS // 2))


def key_in(slot: int, number: int) -> StateKey:
    head = (slot << 4).to_bytes(2)
    if number % 3 == 0:
        return StateKey(b"account/" + head + number.to_bytes(30))
    if number % 3 == 1:
        return StateKey(b"data/" + head + bytes(30) + b"/%d" % number)
    return StateKey(b"balance/" + head + bytes(30) + b"/" + number.to_bytes(32))


keys = st.builds(key_in, st.sampled_from([0, 1, 700, 2047]), st.integers(0, 30))
values = st.one_of(st.none(), st.binary(max_size=4), st.just(b"x" * 4096))
blocks = st.dictionaries(keys, values, max_size=40)
Model = dict[StateKey, bytes]


def after(model: Model, block: dict[StateKey, bytes | None]) -> Model:
    return {key: value for key, value in {**model, **block}.items() if value is not None}


def naive_root(model: Model) -> bytes:
    slots: dict[int, dict[bytes, bytes]] = {}
    for key, value in model.items():
        slots.setdefault(slot_of_key(key), {})[leaf_key_of(key)] = sha256(value).digest()
    return naive_shard_root([naive_slot_root(slots.get(s, {})) if s in OWNED else UNOWNED_SLOT for s in range(SLOTS)])


def reads_as(store: StateStore, model: Model, asked: list[StateKey]) -> None:
    view = store.view()
    assert view.get_many(asked) == [model.get(key) for key in asked]
    assert [view.get(key) for key in asked] == [model.get(key) for key in asked]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(blocks, st.sampled_from(["commit", "drop", "stack", "reopen"])), max_size=8),
    st.sampled_from([0, 3_000, 1 << 20]),
    st.lists(keys, max_size=20),
)
def test_any_history_reads_as_a_dict(
    history: list[tuple[dict[StateKey, bytes | None], str]], cache: int, asked: list[StateKey]
) -> None:
    kv = MemoryKeyValue()
    store, model = StateStore(kv, SHARD, OWNED, cache), Model()
    for block, fate in history:
        prepared = store.view().prepare(block)
        wanted = after(model, block)
        assert [slot for slot, _ in prepared.slots] == sorted({slot_of_key(key) for key in block})
        ahead = prepared.view()
        assert ahead.get_many(asked) == [wanted.get(key) for key in asked]
        reads_as(store, model, asked)
        if fate == "drop":
            continue
        if fate == "stack":
            second = dict.fromkeys(asked, b"second")
            on_top = ahead.prepare(second)
            store.commit(prepared, {})
            assert ahead.get_many(asked) == [wanted.get(key) for key in asked]
            assert store.state_root == prepared.state_root == naive_root(wanted)
            store.commit(on_top, {b"height": b"2"})
            wanted, prepared = after(wanted, second), on_top
            assert store.meta(b"height") == b"2"
        else:
            store.commit(prepared, {})
        model = wanted
        assert store.state_root == prepared.state_root == naive_root(model)
        if fate == "reopen":
            kv.close()
            kv = kv.reopen()
            store = StateStore(kv, SHARD, OWNED, cache)
            assert store.state_root == prepared.state_root
        reads_as(store, model, asked)
    assert dict(store.scan_keys()) == model
    assert dict(store.scan_keys(b"account/")) == {k: v for k, v in model.items() if k.startswith(b"account/")}
    for key in asked:
        proof = store.prove(key)
        assert proof.value == model.get(key)
        assert root_of(proof) == store.state_root


@settings(max_examples=30, deadline=None)
@given(st.lists(blocks, min_size=2, max_size=5), st.data())
def test_a_crash_loses_whole_blocks_from_the_end(
    history: list[dict[StateKey, bytes | None]], data: st.DataObject
) -> None:
    kv = MemoryKeyValue()
    store, model = StateStore(kv, SHARD, OWNED, 1 << 20), Model()
    states = [(model, store.state_root)]
    for number, block in enumerate(history, 1):
        store.commit(store.view().prepare(block), {b"height": b"%d" % number})
        model = after(model, block)
        states.append((model, store.state_root))
    kept = data.draw(st.integers(0, len(history)))
    kv.crash(kept)
    store = StateStore(kv.reopen(), SHARD, OWNED, 1 << 20)
    model, root = states[kept]
    assert store.state_root == root
    assert dict(store.scan_keys()) == model
    assert store.meta(b"height") == (b"%d" % kept if kept else None)


def test_absence_in_a_foreign_shard_does_not_verify() -> None:
    """The other half's store can't be made to prove anything about a key of this one."""
    mine = StateStore(MemoryKeyValue(), SHARD, OWNED, 1 << 20)
    key = key_in(5, 0)
    mine.commit(mine.view().prepare({key: b"1"}), {})
    other = StateStore(MemoryKeyValue(), ShardId(1), set(map(Slot, range(SLOTS))) - OWNED, 1 << 20)
    proof = mine.prove(key_in(6, 0))
    assert root_of(proof) == mine.state_root
    forged = type(proof)(key, None, b"", b"", other.shard_tree.siblings(Slot(5)))
    try:
        assert root_of(forged) != other.state_root
    except VerificationFailed as error:
        pytest.fail(f"the shape of the forgery is right, only its root is not: {error}")
