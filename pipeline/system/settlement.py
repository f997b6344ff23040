"""Following published transactions: executed, settled on all shards, under signed state roots."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipeline.client.receipts import ReceiptWatcher, ends_of
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.config import ShardingSystemConfig
from pipeline.errors import (
    CrossShardCommunicationFailed,
    ShardingError,
    StateSynchronizationFailed,
    TransactionProcessingFailed,
)
from pipeline.ledger.checkpoints import StateRoot
from pipeline.ledger.receipts import TransactionReceipt
from pipeline.shards.communicator import CrossShardCommunicator, CrossShardResult
from pipeline.shards.manager import PublishedTransaction, ShardManager
from pipeline.shards.signed_roots import SignedRoots
from pipeline.shards.submission import check_result
from pipeline.system.driver import Deadline, Driver, Patience


@dataclass(slots=True)
class Wait:
    """A published transaction on its way to a result, or to the error that stands for it."""

    published: PublishedTransaction
    receipt: TransactionReceipt | None = None
    messages: CrossShardResult | None = None
    error: ShardingError | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return f"transaction {self.published.tx_id.hex()[:16]}"

    @property
    def shards(self) -> list[ShardId]:
        """Where its effects are, as far as known."""
        channels = self.receipt.channels if self.receipt else ()
        return [self.published.shard, *[ShardId(use.destination) for use in channels]]


class Settlement:
    """Waits for many transactions at once."""

    def __init__(
        self,
        driver: Driver,
        manager: ShardManager,
        communicator: CrossShardCommunicator,
        patience: Patience,
        config: ShardingSystemConfig,
    ) -> None:
        """Nothing is read yet."""
        self._driver = driver
        self._manager = manager
        self._communicator = communicator
        self._patience = patience
        self._config = config
        chain = driver.chain
        partitions = range(chain.genesis.partitions)
        self._receipts = ReceiptWatcher(driver.log, chain.chain_id, partitions, ends_of(driver.log, partitions))
        self._roots = SignedRoots(chain, driver.log, driver.verifier)
        self._signed: dict[ShardId, tuple[int, StateRoot | None]] = {}

    def start(self) -> None:
        """Pass over what recovering shards published. Raises `InvalidTransactionResult`."""
        self._receipts.poll()
        self._receipts.forget()

    def follow(self, published: Sequence[PublishedTransaction]) -> list[Wait]:
        """Drive until all are done, or have an error; in order."""
        waits = [Wait(item) for item in published]
        config, receipts, tasks = self._config, self._receipts, self._driver.tasks
        deadline = Deadline(config.transaction_processing_timeout_s, TransactionProcessingFailed, "has no receipt")
        self._wait(waits, receipts.poll, self._is_executed, deadline)
        deadline = Deadline(
            config.cross_shard_communication_timeout_s, CrossShardCommunicationFailed, "is not settled on other shards"
        )
        self._wait(waits, receipts.poll, self._is_settled, deadline)
        signed_at = {shard: tasks[shard].committed.height for wait in waits for shard in wait.shards}
        deadline = Deadline(
            config.state_synchronization_timeout_s, StateSynchronizationFailed, "is under no signed state root"
        )
        self._wait(
            waits,
            lambda: self._poll_roots(signed_at),
            lambda wait: all(self._signed_height(shard) >= signed_at[shard] for shard in wait.shards),
            deadline,
        )
        self._receipts.forget()
        return waits

    def signed_roots(self, wait: Wait) -> dict[ShardId, StateRoot]:
        """The newest signed heads of the shards of a transaction that is done."""
        return {shard: root for shard in wait.shards if (root := self._signed[shard][1]) is not None}

    def _wait(
        self,
        waits: Sequence[Wait],
        poll: Callable[[], int],
        is_done: Callable[[Wait], bool],
        deadline: Deadline,
    ) -> None:
        """Drive until every wait without an error is done, or has one; looks again whenever `poll` has news."""
        pending = [wait for wait in waits if wait.error is None]
        looked = False

        def nothing_pends() -> bool:
            nonlocal looked
            halted = bool(self._manager.halts)
            if poll() or halted or not looked:
                pending[:] = [wait for wait in pending if not self._step(wait, is_done, halted)]
                looked = True
            return not pending

        try:
            self._patience.until(nothing_pends, deadline)
        except ShardingError as error:
            for wait in pending:
                wait.error = error
        for wait in pending:
            wait.error = wait.error or self._patience.late(deadline, f"{wait.name} on shard {wait.published.shard}")

    def _step(self, wait: Wait, is_done: Callable[[Wait], bool], halted: bool) -> bool:
        try:
            if is_done(wait):
                return True
            if halted:
                self._manager.require_no_halt(wait.shards)
        except ShardingError as error:
            wait.error = error
        return wait.error is not None

    def _is_executed(self, wait: Wait) -> bool:
        place = (wait.published.shard, wait.published.offset)
        receipt = self._receipts.receipt(*place)
        if receipt is not None:
            check_result(wait.published.submission, wait.published.offset, receipt)
            wait.receipt = receipt
        return receipt is not None

    def _is_settled(self, wait: Wait) -> bool:
        assert wait.receipt is not None, "executed before"
        if not self._receipts.is_settled(wait.receipt):
            return False
        submission = wait.published.submission
        wait.messages = self._communicator.handle_cross_shard_transaction(submission, wait.receipt)
        return True

    def _poll_roots(self, shards: Iterable[ShardId]) -> int:
        """Read the newest signed heads of these shards where `state-roots` has grown; how many had."""
        grown = 0
        for shard in shards:
            end = self._driver.log.end_offset(TopicPartition(Topic.STATE_ROOTS, shard))
            if shard not in self._signed or self._signed[shard][0] != end:
                self._signed[shard] = end, self._roots.newest(shard)
                grown += 1
        return grown

    def _signed_height(self, shard: ShardId) -> int:
        root = self._signed[shard][1]
        return -1 if root is None else root.height
