"""The greatest consistent cut: how far each shard can be signed so that no signed block executed an unsent bundle.

Start from the newest checked block of each shard and lower any head that executed a bundle which no block at or below
its source's head sent, until nothing changes. Consistent cuts are closed under union, so this greatest one is unique
and the order of lowering does not matter. So a forged but chained bundle, which its source never sent, stays unsigned.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

_NEVER: Final = 1 << 62


class CutBlock(NamedTuple):
    """A checked, unsigned block: (source, last sequence executed) and (destination, last sequence sent)."""

    needs: tuple[tuple[int, int], ...]
    sends: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class CutShard:
    """A shard: what was sent up to its signed head (destination -> last sequence), and its blocks above, ascending."""

    sent: Mapping[int, int]
    blocks: Sequence[CutBlock]


def greatest_cut(shards: Sequence[CutShard]) -> list[int]:
    """How many unsigned blocks of each shard the cut takes; index = shard."""
    demands = _demands(shards)
    taken = [len(shard.blocks) for shard in shards]
    waiting = list(range(len(shards)))
    consumers: dict[int, set[int]] = {}
    for shard, blocks in enumerate(demands):
        for block in blocks:
            for source, _ in block:
                consumers.setdefault(source, set()).add(shard)
    while waiting:
        shard = waiting.pop()
        holds = _prefix_that_holds(demands[shard], taken[shard], taken)
        if holds < taken[shard]:
            taken[shard] = holds
            waiting += sorted(consumers.get(shard, ()))
    return taken


def is_consistent(shards: Sequence[CutShard], taken: Sequence[int]) -> bool:
    """Whether every bundle that the first `taken[shard]` blocks of each shard executed was sent by such a block."""
    return all(
        _prefix_that_holds(blocks, count, taken) == count for blocks, count in zip(_demands(shards), taken, strict=True)
    )


def _prefix_that_holds(demands: list[list[tuple[int, int]]], count: int, taken: Sequence[int]) -> int:
    for index in range(count):
        for source, blocks in demands[index]:
            if blocks == _NEVER or taken[source] < blocks:
                return index
    return count


def _demands(shards: Sequence[CutShard]) -> list[list[list[tuple[int, int]]]]:
    """For each block of each shard: (source, number of the source's unsigned blocks that must be taken)."""
    senders: list[dict[int, tuple[list[int], list[int]]]] = []
    for shard in shards:
        channels: dict[int, tuple[list[int], list[int]]] = {}
        for index, block in enumerate(shard.blocks):
            for destination, sequence in block.sends:
                sequences, indexes = channels.setdefault(destination, ([], []))
                sequences.append(sequence)
                indexes.append(index)
        senders.append(channels)

    def demand(shard: int, source: int, sequence: int) -> int:
        if source >= len(shards):
            return _NEVER
        if shards[source].sent.get(shard, 0) >= sequence:
            return 0
        sequences, indexes = senders[source].get(shard, ([], []))
        at = bisect_left(sequences, sequence)
        return indexes[at] + 1 if at < len(sequences) else _NEVER

    return [
        [[(source, demand(number, source, sequence)) for source, sequence in block.needs] for block in shard.blocks]
        for number, shard in enumerate(shards)
    ]
