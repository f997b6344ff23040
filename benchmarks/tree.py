"""What a changed key costs in the authenticated tree, beside the bare price of the hashes that it needs.

Leaves are spread over all 4,096 slots. A block changes distinct existing leaves; measured is everything from the
unordered changes to the new shard root. The floor is the time to hash the very same inputs once more, taken right
after each block so that both see the same machine.
"""

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from time import perf_counter
from typing import Any

from pipeline.codec.types import SLOTS, ZERO32, Hash32, LeafKey, Slot
from pipeline.tree import shard_tree, slot_tree
from pipeline.tree.shard_tree import ShardTree
from pipeline.tree.slot_tree import Change, SlotTree, build, update

SIZES = (10_000, 100_000, 1_000_000)
BLOCKS = (1_000, 8_000)


@dataclass(frozen=True, slots=True)
class Row:
    """Times in microseconds a changed key, the median block; `hashes` is their number a changed key."""

    leaves: int
    block: int
    micros: float
    hashes: float
    floor_micros: float

    @property
    def ratio(self) -> float:
        """Time over the bare price of the hashes."""
        return self.micros / self.floor_micros


class Ledger:
    """Slot trees and the shard tree above them, with the leaf keys to draw from."""

    def __init__(self, leaves: int, source: random.Random) -> None:
        self.places: list[tuple[Slot, LeafKey]] = []
        packed: dict[Slot, list[bytes]] = {}
        for _ in range(leaves):
            slot, key = Slot(source.randrange(SLOTS)), LeafKey(source.randbytes(32))
            self.places.append((slot, key))
            packed.setdefault(slot, []).append(key + source.randbytes(32))
        start = perf_counter()
        self.trees: dict[Slot, SlotTree] = {}
        for slot, entries in packed.items():
            self.trees[slot] = build(b"".join(sorted(entries)))
        self.build_micros = (perf_counter() - start) / leaves * 1e6
        self.shard = ShardTree([self.trees[Slot(s)].root if s in self.trees else ZERO32 for s in range(SLOTS)])

    def apply(self, block: list[tuple[Slot, LeafKey, Hash32]]) -> tuple[dict[Slot, SlotTree], ShardTree]:
        """The trees after a block, nothing kept."""
        changes: dict[Slot, list[Change]] = {}
        for slot, key, value in sorted(block):
            known = changes.get(slot)
            if known is None:
                changes[slot] = [(key, value)]
            else:
                known.append((key, value))
        trees = {slot: update(self.trees[slot], items) for slot, items in changes.items()}
        return trees, self.shard.update({slot: tree.root for slot, tree in trees.items()})


@contextmanager
def recorded_inputs() -> Iterator[list[bytes]]:
    """Every input that the tree modules hash meanwhile."""
    inputs: list[bytes] = []

    def recording(data: bytes) -> Any:
        inputs.append(data)
        return sha256(data)

    modules: list[Any] = [slot_tree, shard_tree]
    for module in modules:
        module.sha256 = recording
    try:
        yield inputs
    finally:
        for module in modules:
            module.sha256 = sha256


def measure(ledger: Ledger, size: int, source: random.Random) -> Row:
    """Blocks of `size` changes one after another; the median of their times and of their floors."""
    timed = []
    count = 0
    rounds = max(9, 40_000 // size)
    for _ in range(rounds):
        block = [(slot, key, Hash32(source.randbytes(32))) for slot, key in source.sample(ledger.places, size)]
        start = perf_counter()
        trees, shard = ledger.apply(block)
        spent = perf_counter() - start
        with recorded_inputs() as inputs:
            again, _ = ledger.apply(block)
        assert again == trees
        start = perf_counter()
        for data in inputs:
            sha256(data).digest()
        timed.append((spent, perf_counter() - start))
        count += len(inputs)
        ledger.trees.update(trees)
        ledger.shard = shard
    timed.sort(key=lambda pair: pair[0] / pair[1])
    spent, floor = timed[len(timed) // 2]
    return Row(len(ledger.places), size, spent / size * 1e6, count / rounds / size, floor / size * 1e6)


def run() -> list[Row]:
    """All sizes; about half a minute."""
    rows: list[Row] = []
    for leaves in SIZES:
        source = random.Random(leaves)
        ledger = Ledger(leaves, source)
        print(f"{leaves:>9} leaves: build {ledger.build_micros:.2f} us a leaf", flush=True)
        gc.collect()
        rows.extend(measure(ledger, size, source) for size in BLOCKS if size <= leaves)
    return rows


def main() -> None:
    """Print the table."""
    rows = run()
    print(f"{'leaves':>9} {'block':>6} {'us/key':>7} {'hashes/key':>11} {'floor us':>9} {'ratio':>6}")
    for row in rows:
        print(
            f"{row.leaves:>9} {row.block:>6} {row.micros:>7.2f} {row.hashes:>11.2f}"
            f" {row.floor_micros:>9.2f} {row.ratio:>6.2f}"
        )


if __name__ == "__main__":
    main()
