"""A chain: genesis and what follows from it, computed once."""

from dataclasses import dataclass

from pipeline.codec.types import ChainId
from pipeline.ledger.genesis import Genesis
from pipeline.ledger.shard_map import ShardMap


@dataclass(frozen=True, slots=True)
class Chain:
    """Genesis, its id, and the shard map (which is genesis's in protocol 1)."""

    genesis: Genesis
    chain_id: ChainId
    shard_map: ShardMap

    @classmethod
    def of(cls, genesis: Genesis) -> "Chain":
        """Validate and derive. Raises `ConfigError`."""
        genesis.validate()
        return cls(genesis, genesis.chain_id, ShardMap.initial(genesis.shards))
