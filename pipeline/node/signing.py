"""A process that makes rounds or signs them: the synchronizer or an attestor, with stores of its own."""

from collections.abc import Callable
from pathlib import Path

from pipeline.codec.types import ShardId
from pipeline.config import AssuranceName, Config
from pipeline.crypto.port import PrivateKey
from pipeline.crypto.suites import STANDARD_SUITES, SuiteSet
from pipeline.crypto.verifier import PoolVerifier
from pipeline.errors import HauptbuchError
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance
from pipeline.log.port import EventLog
from pipeline.node.bootstrap import check_suites, require_topics
from pipeline.node.driving import LOG_ONLY_SLEEP_MS, drive
from pipeline.node.layout import DirectoryLock, NodeLayout
from pipeline.node.node import wall_clock_ms
from pipeline.node.stores import Stores
from pipeline.shards.progress import Idle, Progress
from pipeline.state.store import StateStore
from pipeline.sync.attestor import Attestor
from pipeline.sync.observer import RoundObserver
from pipeline.sync.round_task import RoundTask
from pipeline.sync.settings import SyncConfig
from pipeline.sync.signer import Signer
from pipeline.sync.synchronizer import Synchronizer


class SigningNode:
    """Owns `data` until `close`: the guard's memory, and a state store for each shard that it executes again."""

    def __init__(
        self,
        chain: Chain,
        config: Config,
        data: Path,
        log: EventLog,
        key: PrivateKey | None,
        *,
        proposes: bool,
        observer: RoundObserver | None = None,
        suites: SuiteSet = STANDARD_SUITES,
    ) -> None:
        """`proposes`: the synchronizer; it needs no key where others sign. Else an attestor. `log` stays the caller's.

        Assurance is EXECUTION unless configured otherwise. Raises `ConfigError` where another process has `data`, or
        the chain's topics are not on the log.
        """
        assert proposes or key is not None, "an attestor has a key"
        check_suites(chain, suites)
        self._layout = NodeLayout(data)
        self._chain = chain
        self._lock = DirectoryLock(self._layout)
        self._verifier = PoolVerifier(suites)
        self._stores = Stores(chain, config.store.cache_bytes)
        self.log = log
        try:
            require_topics(self.log)
            self.task = self._task(config, None if key is None else Signer(key), observer, proposes=proposes)
        except BaseException:
            self._release()
            raise

    def signatures_verified(self) -> int:
        """How many signatures this process has checked."""
        return self._verifier.verified

    def run(self, is_done: Callable[[], bool]) -> None:
        """Drive until `is_done`. Raises what halted or fenced the task."""
        drive(self.step, self.log, wall_clock_ms, is_done, longest_sleep_ms=LOG_ONLY_SLEEP_MS)

    def step(self, now_ms: int) -> Progress | Idle:
        """One step. Raises what halted or fenced the task."""
        outcome = self.task.step(now_ms)
        error: HauptbuchError | None = self.task.error
        if error is not None:
            raise error
        return outcome

    def close(self) -> None:
        """Stop: what is committed is on the log, the rest never happened. Idempotent."""
        self.task.close()
        self._release()

    def _release(self) -> None:
        self._stores.close()
        self._verifier.close()
        self._lock.release()

    def _task(
        self, config: Config, signer: Signer | None, observer: RoundObserver | None, *, proposes: bool
    ) -> RoundTask:
        headers_only = config.sync.assurance is AssuranceName.HEADERS
        assurance = Assurance.HEADERS if headers_only else Assurance.EXECUTION
        settings = SyncConfig(config.sync.round_linger_ms, config.sync.max_clock_ahead_ms)
        kv = self._stores.open(self._layout.sync)
        chain, log, verifier, store_for = self._chain, self.log, self._verifier, self._attesting_store
        if proposes:
            return Synchronizer(chain, log, kv, signer, assurance, verifier, settings, store_for, observer=observer)
        assert signer is not None, "checked by the constructor"
        return Attestor(chain, log, kv, signer, assurance, verifier, settings, store_for, observer=observer)

    def _attesting_store(self, shard: int) -> StateStore:
        return self._stores.open_shard(self._layout.shard(shard), ShardId(shard))
