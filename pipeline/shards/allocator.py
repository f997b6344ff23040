"""Where a shard's state store comes from, and how many shards there may be."""

from collections.abc import Callable
from typing import Final

from pipeline.codec.types import MAX_SHARDS, ShardId
from pipeline.errors import HauptbuchError, ShardAllocationFailed, ShardingLimitsExceeded
from pipeline.ledger.chain import Chain
from pipeline.state.store import StateStore


class ShardAllocator:
    """Opens the stores of shards, and knows how many there may be."""

    def __init__(self, chain: Chain, open_store: Callable[[ShardId], StateStore], max_shards: int = MAX_SHARDS) -> None:
        """`open_store` opens a shard's store, or creates it; `max_shards` bounds what this process takes on."""
        self._open_store = open_store
        self._partitions = chain.genesis.partitions
        self.limit: Final = min(self._partitions, max_shards)

    def next_idle(self, active_shards: int) -> ShardId:
        """The lowest idle partition. Raises `ShardingLimitsExceeded` where there is none."""
        self._check_limit(active_shards)
        return ShardId(active_shards)

    def allocate(self, shard: ShardId) -> StateStore:
        """The shard's store. Raises `ShardingLimitsExceeded`, `ShardAllocationFailed`."""
        self._check_limit(shard)
        try:
            store = self._open_store(shard)
        except (HauptbuchError, OSError) as error:
            raise ShardAllocationFailed(f"the state store of shard {shard} can't be opened: {error}") from error
        if store.shard != shard:
            raise ShardAllocationFailed(f"the state store opened for shard {shard} is shard {store.shard}'s")
        return store

    def _check_limit(self, shard: int) -> None:
        if not 0 <= shard < self.limit:
            raise ShardingLimitsExceeded(
                f"shard {shard} is over the limit of {self.limit} shards: raise max_shards; more than the chain's "
                f"{self._partitions} partitions need a successor chain"
            )
