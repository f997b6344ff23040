"""The sharding system: one object over a node, with the operations that the original architecture names.

A façade. Shards, communicator and synchronizer are driven by the node; this publishes, drives until something is seen
on the log, and names what went wrong. Timeouts are promises to the caller, not to the ledger: they raise and count,
and what was published may still happen.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Protocol

from pipeline.client.receipts import ReceiptWatcher
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ShardId, TxId
from pipeline.config import ShardingSystemConfig
from pipeline.crypto.verifier import Verifier
from pipeline.errors import (
    CrossShardCommunicationFailed,
    Fatal,
    HauptbuchError,
    ShardCreationFailed,
    ShardingError,
    ShardingLimitsExceeded,
    ShardManagementFailed,
    StateSynchronizationFailed,
    TransactionProcessingFailed,
)
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import StateRoot
from pipeline.ledger.receipts import TransactionReceipt
from pipeline.ledger.transactions import SignedTransaction
from pipeline.log.port import EventLog
from pipeline.shards.allocator import ShardAllocator
from pipeline.shards.communicator import CrossShardCommunicator, CrossShardResult
from pipeline.shards.life import TaskState
from pipeline.shards.manager import ManagedShard, NewShard, PublishedTransaction, ShardManager
from pipeline.shards.recovery import last_signed_root
from pipeline.shards.submission import Submission, check_result
from pipeline.shards.task import ShardTask
from pipeline.sync.control_feed import ControlFeed
from pipeline.sync.facade import StateSynchronizer, SyncReport
from pipeline.sync.round_task import RoundTask, SyncState

_CACHED_RESULTS: Final = 4_096
_SECOND_MS: Final = 1_000


class Driver(Protocol):
    """What the system needs of a `pipeline.node.Node`: it owns the parts and steps them."""

    @property
    def chain(self) -> Chain:
        """The chain it runs."""

    @property
    def log(self) -> EventLog:
        """Its log."""

    @property
    def verifier(self) -> Verifier:
        """Shared with the shards, so that a signature checked here need not be checked there."""

    @property
    def tasks(self) -> Sequence[ShardTask]:
        """One task for each active shard, index = shard; it grows when a shard is created."""

    @property
    def allocator(self) -> ShardAllocator:
        """Opens the stores of new shards."""

    @property
    def synchronizer(self) -> RoundTask:
        """Checks blocks and signs state roots."""

    def run_until(self, condition: Callable[[], bool], timeout_ms: int | None = None) -> bool:
        """Step everything until `condition` holds; False where `timeout_ms` passed first."""


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """What became of a transaction: its receipt, the bundles that carried its effects, all executed by now, and the
    signed heads that cover it, by shard. A rejection is a result too: see `receipt.code`."""

    tx_id: TxId
    shard: ShardId
    offset: int
    receipt: TransactionReceipt
    messages: CrossShardResult
    state_roots: Mapping[ShardId, StateRoot]


@dataclass(frozen=True, slots=True)
class SystemMetrics:
    """Since this object was made. `timeouts`: how often each error was raised for lateness, by its name."""

    shards_created: int = 0
    transactions_processed: int = 0
    transactions_refused: int = 0
    cross_shard_messages: int = 0
    states_synchronized: int = 0
    cache_hits: int = 0
    timeouts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SystemState:
    """A snapshot."""

    active_shards: tuple[ManagedShard, ...]
    synchronization: SyncReport
    system_metrics: SystemMetrics
    system_configuration: ShardingSystemConfig


class _Deadline(NamedTuple):
    """How long to wait, and what to say where that was too short."""

    timeout_s: int
    error: type[ShardingError]
    complaint: str


@dataclass(slots=True)
class _Wait:
    """A published transaction on its way to a result, or to the error that stands for it."""

    published: PublishedTransaction
    receipt: TransactionReceipt | None = None
    messages: CrossShardResult | None = None
    error: ShardingError | None = None

    @property
    def name(self) -> str:
        return f"transaction {self.published.tx_id.hex()[:16]}"

    @property
    def shards(self) -> list[ShardId]:
        """Where its effects are, as far as known."""
        channels = self.receipt.channels if self.receipt else ()
        return [self.published.shard, *[ShardId(use.destination) for use in channels]]


class ShardingSystem:
    """Drive it from one thread."""

    def __init__(self, driver: Driver, config: ShardingSystemConfig | None = None) -> None:
        """Over an open node; call `start` before anything else."""
        chain, log = driver.chain, driver.log
        self._driver = driver
        self._log = log
        self.config = config or ShardingSystemConfig()
        self.shard_manager = ShardManager(
            chain, log, driver.tasks, driver.allocator, ControlFeed(chain, log, driver.verifier), driver.verifier
        )
        self.cross_shard_communicator = CrossShardCommunicator(chain, log)
        self.state_synchronizer = StateSynchronizer(driver.synchronizer)
        self._receipts = ReceiptWatcher(log, chain.chain_id, range(chain.genesis.partitions))
        self._managed = 0
        self._signed: dict[ShardId, tuple[int, StateRoot | None]] = {}
        self._metrics = SystemMetrics()
        self._cache: OrderedDict[TxId, TransactionResult] = OrderedDict()

    @property
    def max_shards(self) -> int:
        """How many shards there may be: the configuration's limit or the chain's partitions."""
        return min(self.config.max_shards, self.shard_manager.shard_allocator.limit)

    @property
    def system_state(self) -> SystemState:
        """A snapshot of shards, synchronization, metrics and configuration."""
        return SystemState(
            self.shard_manager.managed_shards, self.state_synchronizer.monitor(), self._metrics, self.config
        )

    def start(self) -> None:
        """Drive until every shard leads and the synchronizer runs; manage the shards, follow what is between them.

        Raises `ShardManagementFailed` or `StateSynchronizationFailed` where one does not come up, and as
        `ShardManager.start_management`.
        """
        config, tasks, synchronizer = self.config, self._driver.tasks, self._driver.synchronizer
        deadline = _Deadline(config.shard_creation_timeout_s, ShardManagementFailed, "do not lead")
        if not self._run(lambda: all(_leads(task) for task in tasks), deadline):
            raise self._late(deadline, f"shards {[task.shard for task in tasks if not _leads(task)]}")
        deadline = _Deadline(config.state_synchronization_timeout_s, StateSynchronizationFailed, "does not run")
        if not self._run(lambda: synchronizer.state not in (SyncState.FENCING, SyncState.RECOVERING), deadline):
            raise self._late(deadline, "the synchronizer")
        if synchronizer.state is not SyncState.RUNNING:
            raise StateSynchronizationFailed(f"the synchronizer is {synchronizer.state.value}: {synchronizer.error}")
        cursors = self.shard_manager.start_management()
        self.cross_shard_communicator.start_communication(cursors)
        self._managed = len(cursors)
        self._receipts.poll()

    start_sharding_system = start

    def create_shard(self, config: NewShard) -> ManagedShard:
        """Have the lowest idle partition activated by the operators' signatures, and wait for the shard's block 0.

        It owns no slots yet. Raises as `ShardManager.create_shard`, and `ShardCreationFailed` where it takes too long.
        """
        tasks = self._driver.tasks
        if len(tasks) >= self.max_shards:
            raise ShardingLimitsExceeded(f"{len(tasks)} shards are the limit of {self.max_shards}: raise max_shards")
        shard = self.shard_manager.create_shard(config).shard
        deadline = _Deadline(self.config.shard_creation_timeout_s, ShardCreationFailed, "was not created")
        if not self._run(lambda: len(tasks) > shard and _leads(tasks[shard]), deadline):
            raise self._late(deadline, f"shard {shard}")
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
        waits = [_Wait(published) for published in self.shard_manager.publish(submissions)]
        config, receipts, tasks = self.config, self._receipts, self._driver.tasks
        deadline = _Deadline(config.transaction_processing_timeout_s, TransactionProcessingFailed, "has no receipt")
        self._wait(waits, receipts.poll, self._is_executed, deadline)
        deadline = _Deadline(
            config.cross_shard_communication_timeout_s, CrossShardCommunicationFailed, "is not settled on other shards"
        )
        self._wait(waits, receipts.poll, self._is_settled, deadline)
        signed_at = {shard: tasks[shard].committed.height for wait in waits for shard in wait.shards}
        deadline = _Deadline(
            config.state_synchronization_timeout_s, StateSynchronizationFailed, "is under no signed state root"
        )
        self._wait(
            waits,
            lambda: self._poll_roots(signed_at),
            lambda wait: all(self._signed_height(shard) >= signed_at[shard] for shard in wait.shards),
            deadline,
        )
        results = iter([self._result(wait) for wait in waits])
        return [next(results) if isinstance(item, Submission) else item for item in admitted]

    def _wait(
        self,
        waits: Sequence[_Wait],
        poll: Callable[[], int],
        is_done: Callable[[_Wait], bool],
        deadline: _Deadline,
    ) -> None:
        """Drive until every wait without an error is done, or has one; looks again whenever `poll` has news."""
        pending = [wait for wait in waits if wait.error is None]
        looked = False

        def nothing_pends() -> bool:
            nonlocal looked
            halted = bool(self.shard_manager.halts)
            if poll() or halted or not looked:
                pending[:] = [wait for wait in pending if not self._step(wait, is_done, halted)]
                looked = True
            return not pending

        try:
            self._run(nothing_pends, deadline)
        except ShardingError as error:
            for wait in pending:
                wait.error = error
        for wait in pending:
            wait.error = wait.error or self._late(deadline, f"{wait.name} on shard {wait.published.shard}")

    def _step(self, wait: _Wait, is_done: Callable[[_Wait], bool], halted: bool) -> bool:
        try:
            if is_done(wait):
                return True
            if halted:
                self.shard_manager.require_no_halt(wait.shards)
        except ShardingError as error:
            wait.error = error
        return wait.error is not None

    def _is_executed(self, wait: _Wait) -> bool:
        place = (wait.published.shard, wait.published.offset)
        receipt = self._receipts.receipt(*place)
        if receipt is not None:
            check_result(wait.published.submission, wait.published.offset, receipt)
            wait.receipt = receipt
        return receipt is not None

    def _is_settled(self, wait: _Wait) -> bool:
        assert wait.receipt is not None, "executed before"
        if not self._receipts.is_settled(wait.receipt):
            return False
        submission = wait.published.submission
        wait.messages = self.cross_shard_communicator.handle_cross_shard_transaction(submission, wait.receipt)
        return True

    def _poll_roots(self, shards: Iterable[ShardId]) -> int:
        """Read the newest signed heads of these shards where `state-roots` has grown; how many had."""
        grown = 0
        for shard in shards:
            end = self._log.end_offset(TopicPartition(Topic.STATE_ROOTS, shard))
            if shard not in self._signed or self._signed[shard][0] != end:
                self._signed[shard] = end, last_signed_root(self._log, shard)
                grown += 1
        return grown

    def _signed_height(self, shard: ShardId) -> int:
        root = self._signed[shard][1]
        return -1 if root is None else root.height

    def _result(self, wait: _Wait) -> TransactionResult | ShardingError:
        if wait.error is not None:
            return wait.error
        assert wait.receipt is not None, "executed"
        assert wait.messages is not None, "settled"
        roots = {shard: root for shard in wait.shards if (root := self._signed[shard][1]) is not None}
        self._count(
            transactions_processed=int(wait.receipt.nonce_consumed),
            transactions_refused=int(not wait.receipt.nonce_consumed),
            cross_shard_messages=len(wait.messages.messages),
            states_synchronized=len(roots),
        )
        return TransactionResult(
            wait.published.tx_id, wait.published.shard, wait.published.offset, wait.receipt, wait.messages, roots
        )

    def _run(self, condition: Callable[[], bool], deadline: _Deadline) -> bool:
        """Drive. Raises `ShardManagementFailed` or `StateSynchronizationFailed` where a shard or the signer stops."""
        try:
            return self._driver.run_until(condition, deadline.timeout_s * _SECOND_MS)
        except (Fatal, ShardingError):
            raise
        except HauptbuchError as error:
            self.shard_manager.require_no_halt(self.shard_manager.halts)
            raise StateSynchronizationFailed(f"the synchronizer stopped: {error}") from error

    def _adopt(self) -> None:
        """Manage the shards that came about since."""
        tasks = self._driver.tasks
        while self._managed < len(tasks) and _leads(tasks[self._managed]):
            cursor = self.shard_manager.manage(tasks[self._managed].shard)
            self.cross_shard_communicator.initialize_shard_communication(cursor)
            self._managed += 1

    def _late(self, deadline: _Deadline, what: str) -> ShardingError:
        timeout_s, error, complaint = deadline
        seen, name = self._metrics.timeouts, error.__name__
        self._metrics = replace(self._metrics, timeouts={**seen, name: seen.get(name, 0) + 1})
        return error(f"{what} {complaint} within {timeout_s} s; it may still happen, look before trying again")

    def _count(self, **more: int) -> None:
        self._metrics = replace(
            self._metrics, **{name: getattr(self._metrics, name) + count for name, count in more.items()}
        )


def _leads(task: ShardTask) -> bool:
    """Whether the shard has a block and takes part."""
    return task.state is TaskState.LEADING and task.committed.height >= 0
