"""Which shard owns which slot."""

from dataclasses import dataclass
from itertools import compress
from typing import Final

from pipeline.codec.types import SLOTS, ShardId, Slot

ALL_SLOTS: Final = tuple(Slot(slot) for slot in range(SLOTS))


@dataclass(frozen=True, slots=True)
class ShardMap:
    """`owners[slot]` for all 4,096 slots; producers compute the partition from it, never from a default partitioner."""

    epoch: int
    owners: tuple[ShardId, ...]

    @classmethod
    def initial(cls, shards: int) -> "ShardMap":
        """Slot s of n shards belongs to s * n // 4096."""
        return cls(0, tuple(ShardId(slot * shards // SLOTS) for slot in range(SLOTS)))

    def owner_of(self, identifier: bytes) -> ShardId:
        """The shard that owns a 32-byte id."""
        return self.owners[identifier[0] << 4 | identifier[1] >> 4]

    def slots_of(self, shard: int) -> frozenset[Slot]:
        """The slots that a shard owns."""
        return frozenset(compress(ALL_SLOTS, map(shard.__eq__, self.owners)))
