"""A node: one process that owns a directory, and runs every shard and the synchronizer of its chain.

The driver steps the tasks and the synchronizer in turn and sleeps on the log when none has anything to do; nothing
below it blocks, starts threads or reads a clock.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import time_ns

from pipeline.codec.types import ShardId
from pipeline.config import AssuranceName, Config, load_config
from pipeline.config import Durability as DurabilityName
from pipeline.crypto.keystore import load_key
from pipeline.crypto.port import PrivateKey
from pipeline.crypto.suites import STANDARD_SUITES, SuiteSet
from pipeline.crypto.verifier import PoolVerifier
from pipeline.kv.port import KeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance
from pipeline.log.embedded import Durability, EmbeddedLog
from pipeline.node.bootstrap import check_suites, create_topics
from pipeline.node.driving import drive
from pipeline.node.layout import DirectoryLock, NodeLayout
from pipeline.node.settling import finish
from pipeline.node.stores import Stores
from pipeline.shards.allocator import ShardAllocator
from pipeline.shards.progress import Idle, Progress
from pipeline.shards.task import ShardTask, SoleOwner, TaskConfig
from pipeline.state.store import StateStore
from pipeline.sync.settings import SyncConfig
from pipeline.sync.signer import Signer
from pipeline.sync.synchronizer import Synchronizer


def wall_clock_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time_ns() // 1_000_000


class Node:
    """Owns a directory until `close`. Open it with `Node.open`."""

    def __init__(
        self,
        layout: NodeLayout,
        lock: DirectoryLock,
        chain: Chain,
        signer: PrivateKey,
        config: Config,
        suites: SuiteSet,
        *,
        accept_time: bool,
        clock_ms: Callable[[], int],
        open_kv: Callable[[Path], KeyValue],
    ) -> None:
        """Opens log and stores; nothing runs yet."""
        self.layout = layout
        self.chain = chain
        self.config = config
        self.suites = suites
        self._lock = lock
        self._clock_ms = clock_ms
        self._accept_time = accept_time
        self.stores = Stores(chain, config.store.cache_bytes, open_kv)
        self.tasks: list[ShardTask] = []
        self.verifier = PoolVerifier(suites)
        with ExitStack() as opened:  # closed again where the rest can't be opened
            opened.callback(self.verifier.close)
            limit = chain.genesis.limits.message_bytes
            durability: Durability = "sync" if config.store.durability is DurabilityName.SYNC else "process"
            self.log = EmbeddedLog(open_kv(layout.log), durability=durability, max_message_bytes=limit)
            opened.callback(self.log.close)
            opened.callback(self.stores.close)
            create_topics(self.log, chain)
            self.allocator = ShardAllocator(chain, self._open_store, config.system.max_shards)
            self._open_tasks(chain.genesis.shards)
            self.synchronizer = self._synchronizer(signer)
            self._opened = opened.pop_all()

    @classmethod
    def open(
        cls,
        root: Path,
        passphrase: str = "",
        *,
        config: Config | None = None,
        suites: SuiteSet = STANDARD_SUITES,
        accept_time: bool = False,
        clock_ms: Callable[[], int] = wall_clock_ms,
        open_kv: Callable[[Path], KeyValue] = open_rocks,
    ) -> "Node":
        """Take the directory's lock and open it. `open_kv` opens the log, the state stores and the synchronizer's.

        Raises `ConfigError` where another process has it, or a file can't be used; `Fatal` for damaged stores.
        """
        layout = NodeLayout(root)
        chain = layout.chain()
        check_suites(chain, suites)
        config = config or load_config(layout.config)
        lock = DirectoryLock(layout)
        try:
            signer = load_key(layout.key("attestor"), passphrase, suites)
            return cls(
                layout, lock, chain, signer, config, suites, accept_time=accept_time, clock_ms=clock_ms, open_kv=open_kv
            )
        except BaseException:
            lock.release()
            raise

    def _open_tasks(self, shards: int) -> None:
        config = TaskConfig(linger_ms=self.config.shard.linger_ms, accept_time=self._accept_time)
        for number in range(len(self.tasks), shards):
            shard = ShardId(number)
            store = self.allocator.allocate(shard)
            task = ShardTask(self.chain, shard, self.log, store, self.verifier, SoleOwner(), config)
            task.assign()
            self.tasks.append(task)

    def _open_store(self, shard: ShardId) -> StateStore:
        return self.stores.open_shard(self.layout.shard(shard), shard)

    def _synchronizer(self, signer: PrivateKey) -> Synchronizer:
        # The synchronizer of a one-process node is the same process and operator as its shards: executing their
        # blocks again would check nothing that an attacker there could not also change.
        wanted = self.config.sync.assurance or AssuranceName.HEADERS
        assurance = Assurance.EXECUTION if wanted is AssuranceName.EXECUTION else Assurance.HEADERS
        settings = SyncConfig(self.config.sync.round_linger_ms, self.config.sync.max_clock_ahead_ms)
        kv = self.stores.open(self.layout.sync)
        return Synchronizer(
            self.chain, self.log, kv, Signer(signer), assurance, self.verifier, settings, self._attesting_store
        )

    def _attesting_store(self, shard: int) -> StateStore:
        return self.stores.open_shard(self.layout.sync / "shards" / str(shard), ShardId(shard))

    def now_ms(self) -> int:
        """This node's clock."""
        return self._clock_ms()

    def step(self) -> Progress | Idle:
        """Step everything once. Raises what halted a shard or the synchronizer."""
        return self._step(self._clock_ms())

    def _step(self, now_ms: int) -> Progress | Idle:
        progressed, until_ms = False, None
        everything: list[ShardTask | Synchronizer] = [*self.tasks, self.synchronizer]
        for driven in everything:
            outcome = driven.step(now_ms)
            if driven.error is not None:
                raise driven.error
            if isinstance(outcome, Progress):
                progressed = True
            elif outcome.until_ms is not None:
                until_ms = outcome.until_ms if until_ms is None else min(until_ms, outcome.until_ms)
        active = self.tasks[0].committed.control.active_shards
        if active > len(self.tasks):
            self._open_tasks(active)
            progressed = True
        return Progress() if progressed else Idle(until_ms)

    def run_until(self, condition: Callable[[], bool], timeout_ms: int | None = None) -> bool:
        """Drive until `condition` holds; False where `timeout_ms` passed first."""
        return drive(self._step, self.log, self._clock_ms, condition, timeout_ms)

    def finish(self) -> None:
        """Drive until all that was published is executed, settled and under a signed root. Raises as `settling`."""
        finish(self)

    def close(self) -> None:
        """Stop cleanly: what is committed is on the log, the rest never happened. Idempotent."""
        for task in self.tasks:
            task.revoke()
        self.synchronizer.close()
        self._opened.close()
        self._lock.release()
