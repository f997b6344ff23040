"""What the state store refuses, and what it keeps where."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.codec.types import SLOTS, Hash32, ShardId, Slot, StateKey
from pipeline.errors import ConfigError, Fatal, InvalidShard
from pipeline.kv.memory import MemoryKeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.state.cache import MISSING, TreeCache, ValueCache
from pipeline.state.store import StateStore
from pipeline.testing.faulty_kv import FaultyKeyValue, SimulatedCrash
from pipeline.tree.keys import leaf_key_of, slot_of_key
from pipeline.tree.proofs import root_of
from pipeline.tree.slot_tree import Change, SlotTree

SHARD = ShardId(3)
OWNED = [Slot(slot) for slot in range(100)]
ALICE = StateKey(b"account/" + bytes(32))
BOB = StateKey(b"account/" + bytes(31) + b"\x01")
FOREIGN = StateKey(b"account/" + b"\xff" * 32)


def opened(kv: MemoryKeyValue | FaultyKeyValue, cache: int = 1 << 20) -> StateStore:
    return StateStore(kv, SHARD, OWNED, cache)


def place_of(key: StateKey) -> bytes:
    return b"l" + slot_of_key(key).to_bytes(2) + leaf_key_of(key)


def test_records_are_where_the_format_says() -> None:
    kv = MemoryKeyValue()
    store = opened(kv)
    prepared = store.view().prepare({ALICE: b"100"})
    store.commit(prepared, {b"cursor": b"xyz"})
    assert kv.get(place_of(ALICE)) == len(ALICE).to_bytes(2) + ALICE + b"100"
    assert kv.get(b"r\x00\x00") == prepared.slots[0][1]
    assert kv.get(b"mcursor") == b"xyz"
    assert kv.get(b"s") == b"\x00\x03"
    assert kv.unsynced == 1
    store.commit(store.view().prepare({ALICE: None}), {b"cursor": None})
    assert kv.scan(b"a", b"s", 10) == []
    assert store.meta(b"cursor") is None


def test_dropped_proposals_leave_no_trace() -> None:
    kv = MemoryKeyValue()
    store = opened(kv)
    store.commit(store.view().prepare({ALICE: b"1"}), {})
    root, version, stored = store.state_root, store.version, kv.scan(b"", b"\xff", 100)
    dropped = store.view().prepare({ALICE: b"2", BOB: b"3"})
    assert dropped.view().get(BOB) == b"3"
    dropped.view().prepare({BOB: None})
    assert (store.state_root, store.version, kv.scan(b"", b"\xff", 100)) == (root, version, stored)
    assert store.view().get_many([ALICE, BOB]) == [b"1", None]
    again = store.view().prepare({ALICE: b"2", BOB: b"3"})
    assert again.state_root == dropped.state_root


def test_commits_out_of_order_are_caught() -> None:
    store = opened(MemoryKeyValue())
    start = store.view()
    first, rival = start.prepare({ALICE: b"1"}), start.prepare({ALICE: b"2"})
    second = first.view().prepare({BOB: b"2"})
    dropped = rival.view()
    with pytest.raises(AssertionError, match="another state"):
        store.commit(second, {})
    store.commit(first, {})
    for late in (first, rival):
        with pytest.raises(AssertionError, match="another state"):
            store.commit(late, {})
    for stale in (start, dropped):
        with pytest.raises(AssertionError, match="overtaken"):
            stale.get(ALICE)
        with pytest.raises(AssertionError, match="overtaken"):
            stale.get_many([ALICE])
        with pytest.raises(AssertionError, match="overtaken"):
            stale.prepare({})
    with pytest.raises(AssertionError, match="was committed"):
        first.view()
    with pytest.raises(AssertionError, match="another store"):
        store.commit(object(), {})
    store.commit(second, {})
    assert store.view().get_many([ALICE, BOB]) == [b"1", b"2"]


def test_a_view_follows_the_commits_of_its_own_proposals() -> None:
    store = opened(MemoryKeyValue())
    first = store.view().prepare({ALICE: b"1"})
    one = store.stacked(first)
    second = one.prepare({ALICE: None, BOB: b"2"})
    two = second.view()
    assert two.get_many([ALICE, BOB]) == [None, b"2"]
    store.commit(first, {})
    assert (one.get(ALICE), two.get(ALICE), two.get(BOB)) == (b"1", None, b"2")
    third = two.prepare({BOB: b"3"})
    store.commit(second, {})
    assert two.get_many([ALICE, BOB]) == [None, b"2"]
    store.commit(third, {})
    assert store.view().get(BOB) == b"3"


def test_keys_of_other_shards() -> None:
    store = opened(MemoryKeyValue())
    for call in (store.view().get, lambda key: store.view().prepare({key: b""})):
        with pytest.raises(AssertionError, match="slot 4095 is not of shard 3"):
            call(FOREIGN)
    with pytest.raises(InvalidShard, match="slot 4095"):
        store.prove(FOREIGN)
    with pytest.raises(ValueError, match="not a state key"):
        store.view().get(StateKey(b"nonsense"))


def test_another_shard_or_format_is_refused() -> None:
    kv = MemoryKeyValue()
    store = opened(kv)
    store.commit(store.view().prepare({}), {})
    with pytest.raises(ConfigError, match="shard 3, not of 4"):
        StateStore(kv, ShardId(4), OWNED)
    foreign = MemoryKeyValue()
    foreign.write({b"l": b""}, sync=True)
    with pytest.raises(ConfigError, match="stamp"):
        opened(foreign)


def _shorten(kv: MemoryKeyValue) -> None:
    kv.write({place_of(ALICE): b"\x00\x29" + ALICE}, sync=True)


def _change_value(kv: MemoryKeyValue) -> None:
    kv.write({place_of(ALICE): len(ALICE).to_bytes(2) + ALICE + b"1000"}, sync=True)


def _lose(kv: MemoryKeyValue) -> None:
    kv.write({place_of(ALICE): None}, sync=True)


def _no_leaf(kv: MemoryKeyValue) -> None:
    kv.write({b"l\x00\x00short": b"\x00\x01ab"}, sync=True)


def _stale_root(kv: MemoryKeyValue) -> None:
    kv.write({b"r\x00\x00": b"x" * 32}, sync=True)


@pytest.mark.parametrize("damage", [_shorten, _change_value, _lose, _no_leaf, _stale_root])
def test_damage_is_found_and_nothing_is_deleted(damage: Callable[[MemoryKeyValue], None]) -> None:
    kv = MemoryKeyValue()
    store = opened(kv)
    store.commit(store.view().prepare({ALICE: b"100", BOB: b"5"}), {})
    damage(kv)
    stored = kv.scan(b"", b"\xff\xff", 100)
    store = opened(kv)
    for call in (lambda: store.view().prepare({BOB: b"6"}), lambda: store.prove(BOB)):
        with pytest.raises(Fatal, match=r"damaged.*backup"):
            call()
    assert kv.scan(b"", b"\xff\xff", 100) == stored


def test_a_record_under_the_wrong_key_is_damage() -> None:
    kv = MemoryKeyValue()
    opened(kv)
    kv.write({place_of(ALICE): len(BOB).to_bytes(2) + BOB + b"1"}, sync=True)
    with pytest.raises(Fatal, match="another key"):
        opened(kv).view().get(ALICE)


@pytest.mark.parametrize("record", [{b"r\x0f\xff": b"x" * 32}, {b"r\x00\x01": b"x" * 31}, {b"r\x00\x01a": b"x" * 32}])
def test_roots_that_can_not_be_are_damage(record: dict[bytes, bytes]) -> None:
    kv = MemoryKeyValue()
    opened(kv)
    kv.write(record, sync=True)
    with pytest.raises(Fatal, match="damaged"):
        opened(kv)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_the_commit_is_all_or_nothing(when: str) -> None:
    disk = MemoryKeyValue()
    store = opened(disk)
    store.commit(store.view().prepare({ALICE: b"1"}), {b"height": b"0"})
    before = store.state_root
    store = opened(FaultyKeyValue(disk, crash_at=1, when=when))
    prepared = store.view().prepare({ALICE: None, BOB: b"2"})
    with pytest.raises(SimulatedCrash):
        store.commit(prepared, {b"height": b"1"})
    assert store.state_root == before
    disk.close()
    survived = opened(disk.reopen())
    if when == "before":
        assert (survived.state_root, survived.meta(b"height")) == (before, b"0")
        assert dict(survived.scan_keys()) == {ALICE: b"1"}
    else:
        assert (survived.state_root, survived.meta(b"height")) == (prepared.state_root, b"1")
        assert dict(survived.scan_keys()) == {BOB: b"2"}


def test_a_reader_beside_the_writer(tmp_path: Path) -> None:
    kv = open_rocks(tmp_path / "state")
    store = opened(kv)  # type: ignore[arg-type]
    store.commit(store.view().prepare({ALICE: b"1"}), {b"height": b"0"})
    beside = open_rocks(tmp_path / "state", read_only_secondary=True)
    reader = opened(beside)  # type: ignore[arg-type]
    view = reader.view()
    assert (view.get(ALICE), reader.state_root) == (b"1", store.state_root)
    store.commit(store.view().prepare({ALICE: b"2"}), {b"height": b"1"})
    assert reader.view().get(ALICE) == b"1"
    beside.refresh()
    reader.reload()
    assert reader.view().get(ALICE) == b"2"
    assert (reader.state_root, reader.meta(b"height")) == (store.state_root, b"1")
    with pytest.raises(AssertionError, match="reload"):
        view.get(ALICE)
    beside.close()
    kv.close()


def test_many_leaves_are_read_in_pages() -> None:
    kv = MemoryKeyValue()
    store = opened(kv)
    many = {StateKey(b"data/" + bytes(32) + b"/%d" % n): b"%d" % n for n in range(9_000)}
    prepared = store.view().prepare(many)
    store.commit(prepared, {})
    again = opened(kv, 0)
    assert dict(again.scan_keys()) == many
    assert again.tree(Slot(0)).root == prepared.slots[0][1]
    assert again.memory_bytes == 0


def test_a_lower_limit_holds_as_the_store_is_used_on() -> None:
    store = opened(MemoryKeyValue())
    many = {StateKey(b"data/" + bytes(32) + b"/%d" % n): b"%d" % n for n in range(1_000)}
    store.commit(store.view().prepare(many), {})
    before = store.memory_bytes
    store.limit_cache(0)
    for value in (b"1", b"2"):
        store.commit(store.view().prepare({ALICE: value}), {})
    assert store.memory_bytes < before // 100
    assert dict(store.scan_keys()) == {**many, ALICE: b"2"}


def test_tree_cache_drops_the_least_recently_used() -> None:
    size = SlotTree().memory_bytes
    cache = TreeCache(2 * size)
    trees = {Slot(slot): SlotTree() for slot in (1, 2, 3)}
    cache.put(Slot(1), trees[Slot(1)])
    cache.put(Slot(2), trees[Slot(2)])
    assert cache.get(Slot(1)) is trees[Slot(1)]
    cache.put(Slot(3), trees[Slot(3)])
    cache.shrink({Slot(1), Slot(2), Slot(3)})
    assert cache.memory_bytes == 3 * size
    cache.shrink({Slot(9)})
    assert [cache.get(Slot(slot)) is not None for slot in (1, 2, 3)] == [True, False, True]
    assert cache.memory_bytes == 2 * size
    with pytest.raises(AssertionError, match="slot 1 has a tree"):
        cache.put(Slot(1), SlotTree())
    cache.clear()
    assert (cache.memory_bytes, cache.get(Slot(1))) == (0, None)


@pytest.mark.parametrize("cache", [0, 1 << 20])
def test_proposals_at_the_tip_give_way_and_come_back(cache: int) -> None:
    """The trees in memory stand at one state; whoever asks for another gets that, and the roots stay right."""
    store = opened(MemoryKeyValue(), cache)
    start = store.view()
    first = start.prepare({ALICE: b"1", BOB: b"1"})
    second = first.view().prepare({ALICE: None})
    rival = start.prepare({BOB: b"9"})
    assert store.tip == [rival]
    assert store.prove(ALICE).value is None
    assert store.tip == []
    store.commit(first, {})
    assert root_of(store.prove(BOB)) == store.state_root == first.state_root
    third = second.view().prepare({BOB: b"3"})
    assert store.tip == [second, third]
    store.commit(second, {})
    store.commit(third, {})
    assert (store.tip, root_of(store.prove(ALICE)), store.state_root) == ([], third.state_root, third.state_root)
    again = opened(MemoryKeyValue())
    again.commit(again.view().prepare({BOB: b"3"}), {})
    assert again.state_root == third.state_root
    store.commit(store.view().prepare({ALICE: None, BOB: None}), {})
    assert store.state_root == opened(MemoryKeyValue()).state_root
    assert store.memory_bytes >= 0


def test_an_interrupted_change_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(MemoryKeyValue())
    store.commit(store.view().prepare({ALICE: b"1"}), {})
    first = store.view().prepare({ALICE: b"2"})
    changes = {ALICE: b"3", StateKey(b"account/" + b"\x01" * 32): b"4"}
    whole = first.view().prepare(changes)
    update = SlotTree.update

    def interrupted(tree: SlotTree, items: list[Change]) -> Hash32:
        if tree.leaf_count == 0:
            raise KeyboardInterrupt
        return update(tree, items)

    store.prove(ALICE)
    with monkeypatch.context() as patched:
        patched.setattr(SlotTree, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            first.view().prepare(changes)
    assert store.tip == []
    assert first.view().prepare(changes).state_root == whole.state_root
    assert root_of(store.prove(ALICE)) == store.state_root


def test_value_cache_keeps_what_is_used_and_stays_within_its_limit() -> None:
    cache = ValueCache(100_000)
    hot = StateKey(b"hot")
    cache.update({hot: b"1"})
    for number in range(2_000):
        cache.update({StateKey(b"%d" % number): b"x" * (number % 200) if number % 3 else None})
        assert cache.get(hot) == b"1"
        assert cache.memory_bytes <= 101_000
    assert cache.get(StateKey(b"0")) is MISSING
    assert cache.get(StateKey(b"1998")) is None


def test_all_slots_can_be_owned() -> None:
    store = StateStore(MemoryKeyValue(), SHARD, map(Slot, range(SLOTS)))
    assert store.state_root == bytes(32)
    prepared = store.view().prepare({FOREIGN: b"1", StateKey(b"fees/\x00\x01"): b"2"})
    assert [slot for slot, _ in prepared.slots] == [1, 4095]
