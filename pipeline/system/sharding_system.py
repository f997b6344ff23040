"""The sharding system: one object over a node, with the operations that the original architecture names.

A façade. Shards, communicator and synchronizer are driven by the node; this publishes, drives until something is seen
on the log, and names what went wrong. Timeouts are promises to the caller, not to the ledger: they raise and count,
and what was published may still happen.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pipeline.codec.types import TxId
from pipeline.config import ShardingSystemConfig
from pipeline.errors import (
    ShardCreationFailed,
    ShardingError,
    ShardingLimitsExceeded,
    ShardManagementFailed,
    StateSynchronizationFailed,
)
from pipeline.ledger.transactions import SignedTransaction
from pipeline.shards.communicator import CrossShardCommunicator
from pipeline.shards.life import TaskState
from pipeline.shards.manager import ManagedShard, NewShard, ShardManager
from pipeline.shards.submission import Submission
from pipeline.shards.task import ShardTask
from pipeline.sync.control_feed import ControlFeed
from pipeline.sync.facade import StateSynchronizer
from pipeline.sync.life import SyncState
from pipeline.system.driver import Deadline, Driver, Patience
from pipeline.system.results import SystemMetrics, SystemState, TransactionResult
from pipeline.system.settlement import Settlement, Wait

_CACHED_RESULTS: Final = 4_096


class ShardingSystem:
    """Drive it from one thread."""

    def __init__(self, driver: Driver, config: ShardingSystemConfig | None = None) -> None:
        """Over an open node; call `start` before anything else."""
        chain, log = driver.chain, driver.log
        self._driver = driver
        self.config = config or ShardingSystemConfig()
        self.shard_manager = ShardManager(
            chain, log, driver.tasks, driver.allocator, ControlFeed(chain, log, driver.verifier), driver.verifier
        )
        self.cross_shard_communicator = CrossShardCommunicator(chain, log)
        self.state_synchronizer = StateSynchronizer(driver.synchronizer)
        self._patience = Patience(driver, self.shard_manager)
        self._settlement = Settlement(
            driver, self.shard_manager, self.cross_shard_communicator, self._patience, self.config
        )
        self._managed = 0
        self._metrics = SystemMetrics()
        self._cache: OrderedDict[TxId, TransactionResult] = OrderedDict()

    @property
    def max_shards(self) -> int:
        """How many shards there may be: the configuration's limit or the chain's partitions."""
        return min(self.config.max_shards, self.shard_manager.shard_allocator.limit)

    @property
    def system_state(self) -> SystemState:
        """A snapshot of shards, synchronization, metrics and configuration."""
        metrics = replace(self._metrics, timeouts=dict(self._patience.timeouts))
        return SystemState(self.shard_manager.managed_shards, self.state_synchronizer.monitor(), metrics, self.config)

    def start(self) -> None:
        """Drive until every shard leads and the synchronizer runs; manage the shards, follow what is between them.

        Raises `ShardManagementFailed` or `StateSynchronizationFailed` where one does not come up, and as
        `ShardManager.start_management`.
        """
        config, tasks, synchronizer = self.config, self._driver.tasks, self._driver.synchronizer
        deadline = Deadline(config.shard_creation_timeout_s, ShardManagementFailed, "do not lead")
        if not self._patience.until(lambda: all(_leads(task) for task in tasks), deadline):
            raise self._patience.late(deadline, f"shards {[task.shard for task in tasks if not _leads(task)]}")
        deadline = Deadline(config.state_synchronization_timeout_s, StateSynchronizationFailed, "does not run")
        if not self._patience.until(
            lambda: synchronizer.state not in (SyncState.FENCING, SyncState.RECOVERING), deadline
        ):
            raise self._patience.late(deadline, "the synchronizer")
        if synchronizer.state is not SyncState.RUNNING:
            raise StateSynchronizationFailed(f"the synchronizer is {synchronizer.state.value}: {synchronizer.error}")
        cursors = self.shard_manager.start_management()
        self.cross_shard_communicator.start_communication(cursors)
        self._managed = len(cursors)
        self._settlement.start()

    start_sharding_system = start

    def create_shard(self, config: NewShard) -> ManagedShard:
        """Have the lowest idle partition activated by the operators' signatures, and wait for the shard's block 0.

        It owns no slots yet. Raises as `ShardManager.create_shard`, and `ShardCreationFailed` where it takes too long.
        """
        tasks = self._driver.tasks
        if len(tasks) >= self.max_shards:
            raise ShardingLimitsExceeded(f"{len(tasks)} shards are the limit of {self.max_shards}: raise max_shards")
        shard = self.shard_manager.create_shard(config).shard
        deadline = Deadline(self.config.shard_creation_timeout_s, ShardCreationFailed, "was not created")
        if not self._patience.until(lambda: len(tasks) > shard and _leads(tasks[shard]), deadline):
            raise self._patience.late(deadline, f"shard {shard}")
        self._adopt()
        self._count(shards_created=1)
        return self.shard_manager.managed_shards[shard]

    def process_transaction(self, transaction: SignedTransaction) -> TransactionResult:
        """Check, publish, and wait until it is executed, settled on all shards, and under a signed state root.

        Raises as `ShardManager.admit`; `TransactionProcessingFailed`, `CrossShardCommunicationFailed` or
        `StateSynchronizationFailed` where that takes too long; `ShardManagementFailed` where a shard halts meanwhile;
        `InvalidTransactionResult` and `InvalidCrossShardMessage` where the log contradicts itself.
        """
        (result,) = self._process([transaction])
        if isinstance(result, ShardingError):
            raise result
        return result

    def secure_process_transaction(self, transaction: SignedTransaction) -> TransactionResult:
        """The same as `process_transaction`: security, limits and result are always checked."""
        return self.process_transaction(transaction)

    def cached_process_transaction(self, transaction: SignedTransaction) -> TransactionResult:
        """The result kept of this tx_id, else as `process_transaction`. Only what consumed its nonce is kept."""
        tx_id = transaction.tx_id
        if tx_id in self._cache:
            self._cache.move_to_end(tx_id)
            self._count(cache_hits=1)
            return self._cache[tx_id]
        result = self.process_transaction(transaction)
        if self.config.enable_sharding_optimization and result.receipt.nonce_consumed:
            self._cache[tx_id] = result
            if len(self._cache) > _CACHED_RESULTS:
                self._cache.popitem(last=False)
        return result

    def parallel_process_transactions(
        self, transactions: Sequence[SignedTransaction]
    ) -> list[TransactionResult | ShardingError]:
        """Publish all, then wait once: shards work at the same time. Results in order, errors as values.

        With `enable_parallel_processing` off, one after the other.
        """
        if self.config.enable_parallel_processing:
            return self._process(transactions)
        return [result for transaction in transactions for result in self._process([transaction])]

    def _process(self, transactions: Sequence[SignedTransaction]) -> list[TransactionResult | ShardingError]:
        self._adopt()
        admitted = self.shard_manager.admit(transactions)
        submissions = [item for item in admitted if isinstance(item, Submission)]
        waits = self._settlement.follow(self.shard_manager.publish(submissions))
        results = iter([self._result(wait) for wait in waits])
        return [next(results) if isinstance(item, Submission) else item for item in admitted]

    def _result(self, wait: Wait) -> TransactionResult | ShardingError:
        if wait.error is not None:
            return wait.error
        assert wait.receipt is not None, "executed"
        assert wait.messages is not None, "settled"
        roots = self._settlement.signed_roots(wait)
        self._count(
            transactions_processed=int(wait.receipt.nonce_consumed),
            transactions_refused=int(not wait.receipt.nonce_consumed),
            cross_shard_messages=len(wait.messages.messages),
            states_synchronized=len(roots),
        )
        return TransactionResult(
            wait.published.tx_id, wait.published.shard, wait.published.offset, wait.receipt, wait.messages, roots
        )

    def _adopt(self) -> None:
        """Manage the shards that came about since."""
        tasks = self._driver.tasks
        while self._managed < len(tasks) and _leads(tasks[self._managed]):
            cursor = self.shard_manager.manage(tasks[self._managed].shard)
            self.cross_shard_communicator.initialize_shard_communication(cursor)
            self._managed += 1

    def _count(self, **more: int) -> None:
        self._metrics = replace(
            self._metrics, **{name: getattr(self._metrics, name) + count for name, count in more.items()}
        )


def _leads(task: ShardTask) -> bool:
    """Whether the shard has a block and takes part."""
    return task.state is TaskState.LEADING and task.committed.height >= 0
