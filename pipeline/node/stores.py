"""The key-value stores of one process: opened below its directory, closed together."""

from collections.abc import Callable
from pathlib import Path

from pipeline.codec.types import ShardId
from pipeline.kv.port import KeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.ledger.chain import Chain
from pipeline.state.store import StateStore


class Stores:
    """Every store that was opened, by its path."""

    def __init__(self, chain: Chain, cache_bytes: int, open_kv: Callable[[Path], KeyValue] = open_rocks) -> None:
        """`cache_bytes`: memory that the state stores share, as many as are open. `open_kv` opens or creates one."""
        self._chain = chain
        self._cache_bytes = cache_bytes
        self._open_kv = open_kv
        self._open: dict[Path, KeyValue] = {}
        self._states: dict[Path, StateStore] = {}

    def open(self, path: Path) -> KeyValue:
        """Open, or create. Raises `ConfigError` and `Fatal` where that can't be."""
        path.mkdir(parents=True, exist_ok=True)
        kv = self._open[path] = self._open_kv(path)
        return kv

    def open_shard(self, path: Path, shard: ShardId) -> StateStore:
        """The state store of a shard. Raises as `StateStore`, with nothing left open."""
        share = self._cache_bytes // (len(self._states) + 1)
        kv = self.open(path)
        try:
            state = StateStore(kv, shard, self._chain.shard_map.slots_of(shard), share)
        except BaseException:
            self.close_one(path)
            raise
        self._states[path] = state
        self._share_out()
        return state

    def close_one(self, path: Path) -> None:
        """Close a store that is open; the others share its memory."""
        self._open.pop(path).close()
        if self._states.pop(path, None) is not None:
            self._share_out()

    def close(self) -> None:
        """Close them all. Idempotent."""
        self._states.clear()
        while self._open:
            self._open.popitem()[1].close()

    def _share_out(self) -> None:
        for state in self._states.values():
            state.limit_cache(self._cache_bytes // len(self._states))
