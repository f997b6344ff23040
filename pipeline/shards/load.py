"""How the work is spread over shards and slots: the measuring half of the load balancer.

Everything comes from committed block headers, and the newest header's time is the only clock, so two readers of the
same log measure the same. Nothing here moves a slot.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from pipeline.codec.types import SLOTS, ShardId, Slot
from pipeline.errors import LoadBalancingFailed, TaskDiverged
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.shard_map import ShardMap
from pipeline.log.port import EventLog
from pipeline.shards.block_reader import BlockReader
from pipeline.shards.recovery import find_block

_PAGE_BLOCKS: Final = 256
DEFAULT_WINDOW_MS: Final = 60_000
DEFAULT_HOTTEST: Final = 8


class ShardLoad(NamedTuple):
    """What one shard did inside the window. `gas`: of executed transactions and inbound effects."""

    shard: ShardId
    blocks: int
    records: int
    transactions: int
    gas: int


class SlotLoad(NamedTuple):
    """Gas of one slot inside the window, and the shard that owns it."""

    slot: Slot
    shard: ShardId
    gas: int


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The load in (`to_ms` - `window_ms`, `to_ms`] by header time; `to_ms` is 0 before the first block.

    `shards`: every watched shard, ascending, idle ones too, so a shard without slots counts as room. `hottest`: the
    slots with the most gas, most first.
    """

    to_ms: int
    window_ms: int
    shards: tuple[ShardLoad, ...]
    hottest: tuple[SlotLoad, ...]

    @property
    def gas(self) -> int:
        """Of all shards."""
        return sum(load.gas for load in self.shards)

    @property
    def skew(self) -> float:
        """Gas of the busiest shard over the mean: 1.0 is even, the number of shards is all on one. 1.0 without load."""
        total = self.gas
        return max(load.gas for load in self.shards) * len(self.shards) / total if total else 1.0


class _Sample(NamedTuple):
    """One block's share of the sums; `slots` are (slot, gas)."""

    timestamp_ms: int
    records: int
    transactions: int
    gas: int
    slots: tuple[tuple[Slot, int], ...]


class LoadMeter:
    """Sums of block headers over a sliding window; adding and dropping a block costs its touched slots."""

    def __init__(self, shard_map: ShardMap, window_ms: int = DEFAULT_WINDOW_MS) -> None:
        """Raises `LoadBalancingFailed` for a window that is not positive."""
        if window_ms <= 0:
            raise LoadBalancingFailed(f"a window of {window_ms} ms measures nothing; give a positive one")
        self._shard_map = shard_map
        self._window_ms = window_ms
        self._newest_ms = 0
        self._slots = [0] * SLOTS
        self._shards: dict[ShardId, ShardLoad] = {}
        self._samples: dict[ShardId, deque[_Sample]] = {}

    def watch(self, shard: ShardId) -> None:
        """Count this shard from now on, with no load so far. Nothing to do where it is counted."""
        self._shards.setdefault(shard, ShardLoad(shard, 0, 0, 0, 0))
        self._samples.setdefault(shard, deque())

    def add(self, header: BlockHeader) -> None:
        """A watched shard's next block."""
        sample = _Sample(
            header.timestamp_ms,
            sum(item.count for item in header.inputs),
            header.counts.transactions,
            header.gas_used,
            tuple([(update.slot, update.gas) for update in header.slots if update.gas]),
        )
        self._samples[header.shard].append(sample)
        self._count(header.shard, sample, 1)
        self._newest_ms = max(self._newest_ms, header.timestamp_ms)

    def report(self, hottest: int = DEFAULT_HOTTEST) -> LoadReport:
        """The window that ends with the newest block, with up to `hottest` slots."""
        horizon = self._newest_ms - self._window_ms
        for shard, samples in self._samples.items():
            # A shard's block times never fall, so what left the window stands at the front.
            while samples and samples[0].timestamp_ms <= horizon:
                self._count(shard, samples.popleft(), -1)
        busy = sorted([(-gas, slot) for slot, gas in enumerate(self._slots) if gas])[:hottest]
        owners = self._shard_map.owners
        return LoadReport(
            self._newest_ms,
            self._window_ms,
            tuple([self._shards[shard] for shard in sorted(self._shards)]),
            tuple([SlotLoad(Slot(slot), owners[slot], -gas) for gas, slot in busy]),
        )

    def _count(self, shard: ShardId, sample: _Sample, sign: int) -> None:
        _, blocks, records, transactions, gas = self._shards[shard]
        self._shards[shard] = ShardLoad(
            shard,
            blocks + sign,
            records + sign * sample.records,
            transactions + sign * sample.transactions,
            gas + sign * sample.gas,
        )
        for slot, slot_gas in sample.slots:
            self._slots[slot] += sign * slot_gas


class LoadBalancer:
    """Feeds a `LoadMeter` with the committed blocks of the watched shards."""

    def __init__(self, log: EventLog, shard_map: ShardMap, window_ms: int = DEFAULT_WINDOW_MS) -> None:
        """Watches nothing yet. Raises as `LoadMeter`."""
        self._log = log
        self._meter = LoadMeter(shard_map, window_ms)
        self._readers: dict[ShardId, BlockReader] = {}

    def watch(self, cursor: ShardCursor) -> None:
        """Measure a shard from the block after `cursor` on. Nothing to do where it is watched.

        Raises `LoadBalancingFailed` where the log does not hold the cursor's block.
        """
        shard, height = cursor.shard, cursor.height
        if shard in self._readers:
            return
        try:
            offset = find_block(self._log, shard, height) if height >= 0 else 0
        except TaskDiverged as error:
            raise LoadBalancingFailed(f"the load of shard {shard} can't be measured: {error}") from error
        self._readers[shard] = BlockReader(self._log, shard, height + 1, cursor.block_hash, start_offset=offset)
        self._meter.watch(shard)

    def measure(self, hottest: int = DEFAULT_HOTTEST) -> LoadReport:
        """Read the blocks committed since, and report.

        Raises `LoadBalancingFailed`, naming shard, height and offset, where a shard's blocks contradict each other.
        """
        for reader in self._readers.values():
            try:
                while blocks := reader.read(_PAGE_BLOCKS):
                    for block in blocks:
                        self._meter.add(block.header)
            except TaskDiverged as error:
                raise LoadBalancingFailed(f"the load can't be measured: {error}") from error
        return self._meter.report(hottest)
