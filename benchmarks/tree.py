"""What a changed key costs in the authenticated tree, beside the bare price of the hashes that it needs.

Leaves are spread over all 4,096 slots. A block changes distinct existing leaves. Measured are the trees alone, from
unordered changes of hashed keys to the new shard root, and the state store's `prepare`, from keys and values to the
batch to be written, whose hashes of keys and values count too. The floor is the time to hash the very same inputs
once more, taken right after each block so that both see the same machine; the least of all blocks is shown of
either, so that what else the machine does disturbs little. `gc` says whether the garbage collector ran as it does by
default, or after `gc.freeze()` as in a long-running node.
"""

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from time import perf_counter
from typing import Any

from pipeline.codec.types import SLOTS, Hash32, LeafKey, ShardId, Slot, StateKey
from pipeline.kv.memory import MemoryKeyValue
from pipeline.state import store as store_module
from pipeline.state.store import StateStore
from pipeline.tree import shard_tree, slot_tree
from pipeline.tree.shard_tree import ShardTree
from pipeline.tree.slot_tree import Change, SlotTree

SIZES = (10_000, 100_000, 1_000_000)
BLOCKS = (1_000, 8_000)
_VALUE_BYTES = 17  # a balance


@dataclass(frozen=True, slots=True)
class Row:
    """Times in microseconds a changed key, the least of all blocks; `hashes` is their number a changed key."""

    what: str
    frozen: bool
    leaves: int
    block: int
    micros: float
    hashes: float
    floor_micros: float

    @property
    def ratio(self) -> float:
        """Time over the bare price of the hashes."""
        return self.micros / self.floor_micros


class Trees:
    """Slot trees and the shard tree above them, with the leaf keys to draw from."""

    name = "trees"

    def __init__(self, leaves: int, source: random.Random) -> None:
        self.places: list[tuple[Slot, LeafKey]] = []
        packed: list[list[bytes]] = [[] for _ in range(SLOTS)]
        for _ in range(leaves):
            slot, key = Slot(source.randrange(SLOTS)), LeafKey(source.randbytes(32))
            self.places.append((slot, key))
            packed[slot].append(key + source.randbytes(32))
        self.trees = [SlotTree(b"".join(sorted(entries))) for entries in packed]
        self.shard = ShardTree([tree.root for tree in self.trees])

    def block(self, size: int, source: random.Random) -> list[tuple[Slot, LeafKey, Hash32]]:
        """Changes of `size` leaves, in no order."""
        return [(slot, key, Hash32(source.randbytes(32))) for slot, key in source.sample(self.places, size)]

    def timed(self, block: list[tuple[Slot, LeafKey, Hash32]]) -> None:
        """What is measured."""
        changes: dict[Slot, list[Change]] = {}
        for slot, key, value in block:
            if slot in changes:
                changes[slot].append((key, value))
            else:
                changes[slot] = [(key, value)]
        roots = {}
        for slot, items in changes.items():
            if len(items) > 1:
                items.sort()
            roots[slot] = self.trees[slot].update(items)
        self.shard = self.shard.update(roots)

    def settle(self) -> None:
        """Nothing is pending: trees change in place."""


class Store:
    """A state store of one shard in memory that owns all slots and holds balances."""

    name = "store.prepare"

    def __init__(self, leaves: int, source: random.Random) -> None:
        self.keys = [StateKey(b"balance/" + source.randbytes(32) + b"/" + bytes(32)) for _ in range(leaves)]
        self.store = StateStore(MemoryKeyValue(), ShardId(0), map(Slot, range(SLOTS)), 2 << 30)
        self.timed({key: source.randbytes(_VALUE_BYTES) for key in self.keys})
        self.settle()

    def block(self, size: int, source: random.Random) -> dict[StateKey, bytes | None]:
        """New values of `size` keys."""
        return {key: source.randbytes(_VALUE_BYTES) for key in source.sample(self.keys, size)}

    def timed(self, block: dict[StateKey, bytes | None]) -> None:
        """What is measured."""
        self.prepared = self.store.view().prepare(block)

    def settle(self) -> None:
        """Commit what was prepared."""
        self.store.commit(self.prepared, {})


@contextmanager
def recorded_inputs() -> Iterator[list[bytes]]:
    """Every input that trees and store hash meanwhile."""
    inputs: list[bytes] = []

    def recording(data: bytes) -> Any:
        inputs.append(data)
        return sha256(data)

    modules: list[Any] = [slot_tree, shard_tree, store_module]
    for module in modules:
        module.sha256 = recording
    try:
        yield inputs
    finally:
        for module in modules:
            module.sha256 = sha256


def measure(subject: Any, leaves: int, size: int, frozen: bool, source: random.Random) -> Row:
    """Blocks of `size` changes one after another. A repeated block hashes the same inputs, so that records them."""
    spent, floor, count = [], [], 0
    rounds = max(9, 40_000 // size)
    for _ in range(rounds):
        block = subject.block(size, source)
        start = perf_counter()
        subject.timed(block)
        spent.append(perf_counter() - start)
        subject.settle()
        with recorded_inputs() as inputs:
            subject.timed(block)
        subject.settle()
        count += len(inputs)
        start = perf_counter()
        for data in inputs:
            sha256(data).digest()
        floor.append(perf_counter() - start)
    micros, floor_micros = min(spent) / size * 1e6, min(floor) / size * 1e6
    return Row(subject.name, frozen, leaves, size, micros, count / rounds / size, floor_micros)


def run() -> list[Row]:
    """All sizes, both subjects, with and without `gc.freeze()`; about a minute and a half, 1.5 GB of memory."""
    rows: list[Row] = []
    kinds: tuple[Callable[[int, random.Random], Any], ...] = (Trees, Store)
    for leaves in SIZES:
        for kind in kinds:
            source = random.Random(leaves)
            start = perf_counter()
            subject = kind(leaves, source)
            print(f"{subject.name}: {leaves} leaves made in {perf_counter() - start:.1f} s", flush=True)
            for frozen in (False, True):
                gc.collect()
                if frozen:
                    gc.freeze()
                rows.extend(measure(subject, leaves, size, frozen, source) for size in BLOCKS if size <= leaves)
                gc.unfreeze()
    return rows


def main() -> None:
    """Print the table."""
    rows = run()
    print(
        f"{'':>14} {'gc':>8} {'leaves':>8} {'block':>6} {'us/key':>7} {'hashes/key':>11} {'floor us':>9} {'ratio':>6}"
    )
    for row in rows:
        print(
            f"{row.what:>14} {'frozen' if row.frozen else 'default':>8} {row.leaves:>8} {row.block:>6}"
            f" {row.micros:>7.2f} {row.hashes:>11.2f} {row.floor_micros:>9.2f} {row.ratio:>6.2f}"
        )


if __name__ == "__main__":
    main()
