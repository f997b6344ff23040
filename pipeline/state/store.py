"""The state of one shard over a key-value store: values, roots, proofs.

What is committed is in the key-value store and, in part, in caches. What is proposed is a `Prepared`: dropping it
leaves no trace, and the next block can execute on its `view` before it is committed. Views and proposals know the
commit that they build on, so one that was overtaken is an assertion error, never a wrong value.

The slot trees in memory change in place and so stand at one state: that of the newest proposals, the *tip*. That
makes the usual course, to prepare and to commit, cheap. When they are asked for another state they go there by
setting that state's values (`_turn`), since a tree depends on its content alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, TypeAlias

from pipeline.codec.types import SLOTS, ZERO32, Hash32, ShardId, Slot, StateKey
from pipeline.errors import ConfigError, InvalidShard
from pipeline.kv.format import check_format
from pipeline.kv.port import KeyValue
from pipeline.state import records
from pipeline.state.cache import MISSING, TreeCache, ValueCache
from pipeline.tree.keys import LEAF_KEY_PREFIX, leaf_key_of, slot_of_key
from pipeline.tree.proofs import Proof
from pipeline.tree.shard_tree import ShardTree
from pipeline.tree.slot_tree import Change, SlotTree

DEFAULT_CACHE_BYTES: Final = 256 << 20
_SCAN_PAGE: Final = 4096

_Values: TypeAlias = Mapping[StateKey, bytes | None]


class _Version:
    """Stands for one committed or proposed state; compared by identity."""

    __slots__ = ()


@dataclass(slots=True, eq=False)
class Prepared:
    """Proposed changes and the roots that they lead to. Visible to nobody until `StateStore.commit`.

    `slots`: every slot with a changed key and its root afterwards, ascending. `state_root`: the shard root.
    Nothing changes but `below`, the view that it was prepared on: the commit drops that, or every proposal would
    keep all earlier ones alive.
    """

    slots: tuple[tuple[Slot, Hash32], ...]
    state_root: Hash32
    changes: _Values = field(repr=False)
    shard_tree: ShardTree = field(repr=False)
    batch: Mapping[bytes, bytes | None] = field(repr=False)
    below: "StateView | None" = field(repr=False)
    before: _Version = field(repr=False)
    version: _Version = field(repr=False, default_factory=_Version)

    def view(self) -> "StateView":
        """The state as it will be. Asserts that it was not committed yet: then ask the store."""
        assert self.below is not None, "view of a proposal that was committed: use the view of the store"
        return self.below.above(self)


class StateView:
    """The state after the newest of a stack of proposals, over what the store has committed."""

    __slots__ = ("_base", "_layers", "_store")

    def __init__(self, store: "StateStore", base: _Version, layers: tuple[Prepared, ...]) -> None:
        """For the store; others call `StateStore.view` or `Prepared.view`. Layers newest first."""
        self._store, self._base, self._layers = store, base, layers

    def get(self, key: StateKey) -> bytes | None:
        """The value of a key, or None. Raises `Fatal` if the store is damaged."""
        if self._store.version is not self._base:
            self._rebase()
        for layer in self._layers:
            if key in layer.changes:
                return layer.changes[key]
        try:
            return self._store.values.young[key]
        except KeyError:
            pass
        value = self._store.values.get(key)
        if value is MISSING:
            return self._store.read([key])[0]
        return value  # type: ignore[return-value]  # all but MISSING is a value

    def get_many(self, keys: Sequence[StateKey]) -> list[bytes | None]:
        """The values in the order of `keys`; those not in memory in one read."""
        if self._store.version is not self._base:
            self._rebase()
        known = self._store.values.get
        found = [known(key) for key in keys]
        if MISSING in found:
            places = [place for place, value in enumerate(found) if value is MISSING]
            values = self._store.read([keys[place] for place in places])
            for place, value in zip(places, values, strict=True):
                found[place] = value
        for layer in reversed(self._layers):
            changes = layer.changes
            for place, key in enumerate(keys):
                if key in changes:
                    found[place] = changes[key]
        return found  # type: ignore[return-value]  # no MISSING is left

    def prepare(self, changes: Mapping[StateKey, bytes | None]) -> Prepared:
        """The state after `changes` (None deletes; deleting the absent is nothing).

        Raises `ValueError` for what is no state key; asserts that the shard owns every key's slot.
        """
        if self._store.version is not self._base:
            self._rebase()
        by_slot, batch = _sorted_out(changes)
        roots = self._store.apply(self._layers, by_slot)
        shard_tree = (self._layers[0] if self._layers else self._store).shard_tree.update(roots)
        for slot, root in roots.items():
            batch[records.place_of_root(slot)] = None if root == ZERO32 else root
        before = self._layers[0].version if self._layers else self._base
        prepared = Prepared(tuple(roots.items()), shard_tree.root, dict(changes), shard_tree, batch, self, before)
        self._store.tip.append(prepared)
        return prepared

    def above(self, prepared: Prepared) -> "StateView":
        """The view of what was prepared on this one."""
        return StateView(self._store, self._base, (prepared, *self._layers))

    def _rebase(self) -> None:
        """Drop the layers that have been committed meanwhile."""
        for place, layer in enumerate(self._layers):
            if layer.version is self._store.version:
                self._layers, self._base = self._layers[:place], layer.version
                return
        raise AssertionError("view of a state that another commit or a reload has overtaken")


class StateStore:
    """The committed state of a shard. One owner: calls from several threads need a lock around them."""

    def __init__(
        self, kv: KeyValue, shard: ShardId, owned: Iterable[Slot], cache_bytes: int = DEFAULT_CACHE_BYTES
    ) -> None:
        """Open over `kv`; at most about `cache_bytes` of memory, half for trees and half for values.

        Raises `ConfigError` for another format or another shard's store, `Fatal` for a damaged one.
        """
        check_format(kv, records.FORMAT_KIND, records.FORMAT_VERSION)
        self._kv, self.shard = kv, shard
        self._owned = frozenset(owned)
        self.cache_bytes = cache_bytes
        self._trees = TreeCache(cache_bytes // 2)
        self.tip: list[Prepared] = []  # the proposals that the slot trees hold, oldest first
        self.values = ValueCache(cache_bytes // 2)
        self.reload()

    def reload(self) -> None:
        """Read the roots anew and forget the rest: for a reader, after the key-value store's `refresh`."""
        stamp = self._kv.get(records.SHARD)
        if stamp is not None and stamp != self.shard.to_bytes(2):
            raise ConfigError(
                f"the state store is that of shard {int.from_bytes(stamp)}, not of {self.shard}: "
                "give each shard its own directory"
            )
        roots: dict[Slot, Hash32] = {}
        for key, root in self._kv.scan(records.ROOTS_START, records.ROOTS_END, SLOTS + 1):
            slot = Slot(int.from_bytes(key[1:]))
            if len(key) != 3 or slot not in self._owned or len(root) != 32:
                raise records.damaged(f"there is a root for slot {slot}, which shard {self.shard} does not own")
            roots[slot] = Hash32(root)
        self._forget_trees()
        self.values.clear()
        self.shard_tree = ShardTree.of_owned(self._owned, roots)
        self.version = _Version()

    @property
    def state_root(self) -> Hash32:
        """The shard root of the committed state."""
        return self.shard_tree.root

    @property
    def memory_bytes(self) -> int:
        """Bytes that the caches hold, roughly."""
        return self._trees.memory_bytes + self.values.memory_bytes

    def limit_cache(self, cache_bytes: int) -> None:
        """Change the limit of `memory_bytes`; what is over it is dropped as the store is used on."""
        self.cache_bytes = cache_bytes
        self._trees.limit = cache_bytes // 2
        self.values.limit(cache_bytes // 2)

    def meta(self, name: bytes) -> bytes | None:
        """What was committed under `name`."""
        return self._kv.get(records.META + name)

    def view(self) -> StateView:
        """The committed state."""
        return StateView(self, self.version, ())

    def stacked(self, prepared: object) -> StateView:
        """The state as it will be after `prepared`."""
        assert isinstance(prepared, Prepared), "prepared by another store"
        return prepared.view()

    def commit(self, prepared: object, meta: Mapping[bytes, bytes | None]) -> None:
        """Write a proposal and `meta` (None deletes) as one batch, not synced: the log is the truth.

        Asserts that the proposal was made on the state that is committed now. If the write raises, the store in
        memory is as before, and only opening it again tells what is on disk.
        """
        assert isinstance(prepared, Prepared), "prepared by another store"
        assert prepared.before is self.version, "commit of a proposal that was made on another state"
        if not self.tip or self.tip[0] is not prepared:
            self._turn((prepared,))
        batch = {**prepared.batch, **{records.META + name: value for name, value in meta.items()}}
        batch[records.SHARD] = self.shard.to_bytes(2)
        self._kv.write(batch, sync=False)
        self.tip.pop(0)
        self.values.update(prepared.changes)
        self.shard_tree = prepared.shard_tree
        self.version = prepared.version
        prepared.below = None
        self._trees.shrink({slot for layer in self.tip for slot, _ in layer.slots})

    def apply(self, layers: tuple[Prepared, ...], by_slot: Mapping[Slot, list[Change]]) -> dict[Slot, Hash32]:
        """Change the slot trees on top of `layers`, newest first; the new roots, ascending by slot.

        For views. Asserts that the shard owns the slots. Raises `Fatal` for a damaged store, with nothing changed.
        """
        self._turn(layers)
        return self._changed(by_slot)

    def prove(self, key: StateKey) -> Proof:
        """A proof of the key's committed value or absence.

        Raises `ValueError` for what is no state key, `InvalidShard` if another shard owns it.
        """
        slot = slot_of_key(key)
        if slot not in self._owned:
            raise InvalidShard(f"slot {slot} of this key is not of shard {self.shard}: ask the shard that owns it")
        page, siblings = self.tree(slot).prove(leaf_key_of(key))
        return Proof(key, self.view().get(key), page, siblings, self.shard_tree.siblings(slot))

    def scan_keys(self, prefix: bytes = b"") -> Iterator[tuple[StateKey, bytes]]:
        """All committed (key, value) whose key begins with `prefix`, by slot, then by leaf key.

        Read page by page: commits meanwhile show in the pages yet to come.
        """
        for place, record in self._scan(records.LEAVES_OF[0], records.LEAVES_OF[SLOTS]):
            key, value = records.unpack_leaf(place, record)
            if key.startswith(prefix):
                yield key, value

    def scan_slot(self, slot: Slot) -> Iterator[tuple[StateKey, bytes]]:
        """All committed (key, value) of one slot, by leaf key; read page by page."""
        for place, record in self._scan(records.LEAVES_OF[slot], records.LEAVES_OF[slot + 1]):
            yield records.unpack_leaf(place, record)

    def tree(self, slot: Slot) -> SlotTree:
        """The committed tree of a slot, to read before the next call. Raises `Fatal` if its leaves are damaged."""
        self._turn(())
        tree = self._loaded(slot)
        self._trees.shrink(())
        return tree

    def read(self, keys: Sequence[StateKey]) -> list[bytes | None]:
        """Values from the key-value store, remembered. Raises `Fatal` for a record under the wrong key."""
        places = []
        for key in keys:
            slot = slot_of_key(key)
            self.require_owned(slot)
            places.append(records.place_of_leaf(slot, leaf_key_of(key)))
        found = [self._kv.get(places[0])] if len(places) == 1 else self._kv.multi_get(places)
        values: list[bytes | None] = []
        for key, place, record in zip(keys, places, found, strict=True):
            if record is None:
                values.append(None)
                continue
            stored, value = records.unpack_leaf(place, record)
            if stored != key:
                raise records.damaged(f"the record at {place.hex()} is of another key")
            values.append(value)
        self.values.update(dict(zip(keys, values, strict=True)))
        return values

    def require_owned(self, slot: Slot) -> None:
        """Assert that the shard owns the slot: the engine never asks for another's."""
        assert slot in self._owned, f"slot {slot} is not of shard {self.shard}"

    def _turn(self, layers: tuple[Prepared, ...]) -> None:
        """Bring the slot trees to the state after `layers`, newest first."""
        wanted = list(reversed(layers))
        if self.tip == wanted:
            return
        while self.tip != wanted[: len(self.tip)]:
            below = self.tip[-1].below
            assert below is not None, "a committed proposal is still at the tip"
            keys = list(self.tip[-1].changes)
            self._changed(_sorted_out(dict(zip(keys, below.get_many(keys), strict=True)))[0])
            self.tip.pop()
        for layer in wanted[len(self.tip) :]:
            roots = self._changed(_sorted_out(layer.changes)[0])
            assert tuple(roots.items()) == layer.slots, "the same changes gave other roots"
            self.tip.append(layer)

    def _changed(self, by_slot: Mapping[Slot, list[Change]]) -> dict[Slot, Hash32]:
        for slot in by_slot:
            self.require_owned(slot)
        trees = [(slot, self._loaded(slot)) for slot in sorted(by_slot)]
        roots = {}
        try:
            for slot, tree in trees:
                changes, size = by_slot[slot], tree.memory_bytes
                if len(changes) > 1:
                    changes.sort()
                roots[slot] = tree.update(changes)
                self._trees.memory_bytes += tree.memory_bytes - size
        except BaseException:  # an interrupt too: half a change must not be seen
            self._forget_trees()
            raise
        return roots

    def _forget_trees(self) -> None:
        self._trees.clear()
        self.tip.clear()

    def _loaded(self, slot: Slot) -> SlotTree:
        tree = self._trees.get(slot)
        if tree is None:
            tree = self._build(slot)
            self._trees.put(slot, tree)
        return tree

    def _build(self, slot: Slot) -> SlotTree:
        expected = self.shard_tree.slot_root(slot)
        entries = []
        for place, record in self._scan(records.LEAVES_OF[slot], records.LEAVES_OF[slot + 1]):
            value = records.unpack_leaf(place, record)[1]
            entries.append(place[3:] + sha256(value).digest())
        tree = SlotTree(b"".join(entries))
        if tree.root != expected:
            raise records.damaged(f"the leaves of slot {slot} do not have the root that is stored for it")
        return tree

    def _scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        while page := self._kv.scan(start, end, _SCAN_PAGE):
            yield from page
            if len(page) < _SCAN_PAGE:
                return
            start = page[-1][0] + b"\x00"


def _sorted_out(changes: _Values) -> tuple[dict[Slot, list[Change]], dict[bytes, bytes | None]]:
    """What changes in each slot's tree, and in the key-value store's leaves."""
    places, pack_leaf, prefix = records.LEAVES_OF, records.pack_leaf, LEAF_KEY_PREFIX
    batch: dict[bytes, bytes | None] = {}
    by_slot: dict[Slot, list[Change]] = {}
    for key, value in changes.items():
        slot = slot_of_key(key)
        leaf_key = sha256(prefix + key).digest()
        if value is None:
            change = leaf_key, None
            batch[places[slot] + leaf_key] = None
        else:
            change = leaf_key, sha256(value).digest()  # type: ignore[assignment]  # no call of NewType per key
            batch[places[slot] + leaf_key] = pack_leaf(key, value)
        if slot in by_slot:
            by_slot[slot].append(change)  # type: ignore[arg-type]
        else:
            by_slot[slot] = [change]  # type: ignore[list-item]
    return by_slot, batch
