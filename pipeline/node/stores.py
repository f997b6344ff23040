"""The key-value stores of one process: opened below its directory, closed together."""

from pathlib import Path

from pipeline.codec.types import ShardId
from pipeline.kv.port import KeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.ledger.chain import Chain
from pipeline.state.store import StateStore


class Stores:
    """Every store that was opened, by its path."""

    def __init__(self, chain: Chain, cache_bytes: int) -> None:
        """`cache_bytes`: memory of one shard's store."""
        self._chain = chain
        self._cache_bytes = cache_bytes
        self._open: dict[Path, KeyValue] = {}

    def open(self, path: Path) -> KeyValue:
        """Open, or create. Raises `ConfigError` and `Fatal` where that can't be."""
        path.mkdir(parents=True, exist_ok=True)
        kv = self._open[path] = open_rocks(path)
        return kv

    def open_shard(self, path: Path, shard: ShardId) -> StateStore:
        """The state store of a shard."""
        return StateStore(self.open(path), shard, self._chain.shard_map.slots_of(shard), self._cache_bytes)

    def close_one(self, path: Path) -> None:
        """Close a store that is open."""
        self._open.pop(path).close()

    def close(self) -> None:
        """Close them all. Idempotent."""
        while self._open:
            self._open.popitem()[1].close()
