"""Which shard owns which slot."""

from dataclasses import dataclass

from pipeline.codec.types import SLOTS, ShardId, Slot, slot_of_id


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
        return self.owners[slot_of_id(identifier)]

    def slots_of(self, shard: int) -> frozenset[Slot]:
        """The slots that a shard owns."""
        return frozenset(Slot(slot) for slot, owner in enumerate(self.owners) if owner == shard)
