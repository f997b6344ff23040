"""The shards of this process: which there are, how they do, how one more comes about, where transactions go in.

No rule lives here. Tasks lead shards, the control records decide which shards exist, the engine decides what becomes
of a transaction; the manager holds the references and names what it finds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import Hash32, Height, ShardId, TxId
from pipeline.crypto import contexts
from pipeline.crypto.addresses import key_id
from pipeline.crypto.port import PrivateKey
from pipeline.crypto.verifier import Verifier
from pipeline.errors import (
    HauptbuchError,
    InvalidShard,
    InvalidShardConfig,
    PoisonRecord,
    SecurityValidationFailed,
    ShardingError,
    ShardManagementFailed,
    StateManagementFailed,
)
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import Code
from pipeline.ledger.control import CreateShard, KeySignature, SignedControl, encode_action
from pipeline.ledger.control_state import ControlState, admit
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.transactions import SignedTransaction
from pipeline.log.port import Append, EventLog
from pipeline.shards.allocator import ShardAllocator
from pipeline.shards.life import TaskState
from pipeline.shards.load import DEFAULT_WINDOW_MS, LoadBalancer
from pipeline.shards.submission import Submission, check_form, check_security, check_shard
from pipeline.shards.task import ShardTask
from pipeline.shards.validator import ShardValidator

_CONTROL: Final = TopicPartition(Topic.CONTROL, 0)


class ControlSource(Protocol):
    """Follows the control topic, as `pipeline.sync.control_feed.ControlFeed` does."""

    @property
    def newest(self) -> ControlState:
        """After all records read so far."""

    def poll(self) -> bool:
        """Read on; whether there was anything."""


@dataclass(frozen=True, slots=True)
class NewShard:
    """What is asked for: a shard more, under the signatures of these operators.

    `shard` None: the lowest idle partition; another number than that one is refused.
    """

    operators: tuple[PrivateKey, ...]
    shard: ShardId | None = None


class CreatedShard(NamedTuple):
    """A CreateShard record on `control`; the shard exists once a shard has consumed it."""

    shard: ShardId
    sequence: int
    offset: int


class PublishedTransaction(NamedTuple):
    """A transaction on the log: its receipt will name this partition and offset."""

    submission: Submission
    offset: int

    @property
    def tx_id(self) -> TxId:
        """Of the body."""
        return self.submission.tx_id

    @property
    def shard(self) -> ShardId:
        """Where it stands."""
        return self.submission.shard


class ManagedShard(NamedTuple):
    """A shard of this process; `height` -1 before block 0, `halted_by` None unless it is halted."""

    shard: ShardId
    state: TaskState
    height: Height
    timestamp_ms: int
    state_root: Hash32
    halted_by: HauptbuchError | None


class ShardManager:
    """References to the tasks of this process, in the order of their shards, and to what looks after them."""

    def __init__(
        self,
        chain: Chain,
        log: EventLog,
        tasks: Sequence[ShardTask],
        allocator: ShardAllocator,
        control: ControlSource,
        verifier: Verifier,
        *,
        window_ms: int = DEFAULT_WINDOW_MS,
    ) -> None:
        """`tasks` may grow: index = shard. `window_ms`: over what time load is measured."""
        self._chain = chain
        self._log = log
        self._tasks = tasks
        self._control = control
        self._verifier = verifier
        self.shard_allocator = allocator
        self.shard_validator = ShardValidator(chain, log, verifier)
        self.load_balancer = LoadBalancer(log, chain.shard_map, window_ms)

    def start_management(self) -> list[ShardCursor]:
        """Validate every shard's store and measure its load from here on; where each stands.

        Raises `ShardManagementFailed` without any shard, and as `manage`.
        """
        if not self._tasks:
            raise ShardManagementFailed("there is no shard to manage: assign one to this process")
        return [self.manage(task.shard) for task in self._tasks]

    def manage(self, shard: ShardId) -> ShardCursor:
        """Validate one shard and measure its load. Raises as `ShardValidator.validate` and `LoadBalancer.watch`."""
        cursor = self.shard_validator.validate(self.task(shard).store)
        self.load_balancer.watch(cursor)
        return cursor

    @property
    def managed_shards(self) -> tuple[ManagedShard, ...]:
        """Every shard of this process, ascending."""
        return tuple([_managed(task) for task in self._tasks])

    @property
    def halts(self) -> dict[ShardId, HauptbuchError]:
        """Halted shards, and by what."""
        return {task.shard: task.error for task in self._tasks if task.error is not None}

    def require_no_halt(self, shards: Iterable[ShardId]) -> None:
        """Raises `ShardManagementFailed` naming the first of these shards that is halted."""
        halts = self.halts
        for shard in shards:
            if shard in halts:
                raise ShardManagementFailed(f"shard {shard} is halted: {halts[shard]}") from halts[shard]

    def task(self, shard: ShardId) -> ShardTask:
        """The task of a shard. Raises `InvalidShard` where this process has none."""
        if not 0 <= shard < len(self._tasks):
            raise InvalidShard(f"there is no shard {shard} here: {len(self._tasks)} are active")
        return self._tasks[shard]

    def create_shard(self, config: NewShard) -> CreatedShard:
        """Publish a CreateShard record; the driver opens the new shard's task once a shard has consumed it.

        Raises `ShardingLimitsExceeded` without an idle partition, `InvalidShardConfig` for another number or no
        operators, `SecurityValidationFailed` for less than the genesis's quorum of them.
        """
        while self._control.poll():
            pass
        state = self._control.newest
        shard = self.shard_allocator.next_idle(state.active_shards)
        if config.shard not in (None, shard):
            raise InvalidShardConfig(f"shard {config.shard} can't be created: the lowest idle partition is {shard}")
        if not config.operators:
            raise InvalidShardConfig(f"shard {shard} can't be created without an operator's signature")
        record = sign_control(self._chain, state, CreateShard(shard), config.operators).to_record()
        try:
            applied = admit(self._chain, state, LogRecord(0, None, record), self._verifier)
        except PoisonRecord as error:
            raise SecurityValidationFailed(f"shard {shard} can't be created: {error}") from None
        assert applied.code is Code.OK, f"the lowest idle partition is refused: {applied.code.name}"
        (offset,) = self._log.append([Append(_CONTROL, None, record)])
        return CreatedShard(shard, applied.state.sequence, offset)

    def determine_target_shard(self, transaction: SignedTransaction) -> ShardId:
        """The shard of the sender. Raises as `validate_transaction`."""
        return self.validate_transaction(transaction).shard

    def validate_transaction(self, transaction: SignedTransaction) -> Submission:
        """Form, chain and limits. Raises `InvalidTransaction`, `ShardingLimitsExceeded`."""
        return check_form(self._chain, transaction)

    def validate_transaction_security(self, submission: Submission) -> None:
        """Key, nonce and signature. Raises `InvalidShard`, `SecurityValidationFailed`, `StateManagementFailed`."""
        (refusal,) = check_security(self._chain, self._serving(submission).store.view(), self._verifier, [submission])
        if refusal is not None:
            raise refusal

    def process_transaction_in_shard(self, transaction: SignedTransaction, shard: ShardId) -> PublishedTransaction:
        """Check and publish; the shard's receipt says what became of it.

        Raises as `validate_transaction` and `validate_transaction_security`, `InvalidShard` for a shard that does
        not serve, `TransactionDoesNotBelongToShard`.
        """
        submission = self.validate_transaction(transaction)
        self.task(shard)
        check_shard(submission, shard)
        self.validate_transaction_security(submission)
        return self.publish([submission])[0]

    def admit(self, transactions: Sequence[SignedTransaction]) -> list[Submission | ShardingError]:
        """All checks of `process_transaction_in_shard`, each for its sender's shard; in order, errors as values."""
        admitted: list[Submission | ShardingError] = []
        places: dict[ShardId, list[int]] = {}
        for transaction in transactions:
            try:
                submission = self.validate_transaction(transaction)
                self._serving(submission)
            except ShardingError as error:
                admitted.append(error)
            else:
                places.setdefault(submission.shard, []).append(len(admitted))
                admitted.append(submission)
        for shard, indexes in places.items():
            submissions = [item for index in indexes if isinstance(item := admitted[index], Submission)]
            for index, refusal in zip(indexes, self._refusals(shard, submissions), strict=True):
                admitted[index] = refusal or admitted[index]
        return admitted

    def _refusals(self, shard: ShardId, submissions: Sequence[Submission]) -> Sequence[ShardingError | None]:
        try:
            return check_security(self._chain, self.task(shard).store.view(), self._verifier, submissions)
        except StateManagementFailed as error:
            return [error] * len(submissions)

    def _serving(self, submission: Submission) -> ShardTask:
        task = self.task(submission.shard)
        if task.error is not None:
            raise InvalidShard(f"shard {task.shard} does not serve, it is halted: {task.error}")
        return task

    def publish(self, submissions: Sequence[Submission]) -> list[PublishedTransaction]:
        """Append admitted transactions, in order, in one call."""
        offsets = self._log.append(
            [Append(TopicPartition(Topic.TRANSACTIONS, item.shard), None, item.record) for item in submissions]
        )
        return [PublishedTransaction(*item) for item in zip(submissions, offsets, strict=True)]


def sign_control(chain: Chain, state: ControlState, action: CreateShard, keys: Sequence[PrivateKey]) -> SignedControl:
    """The control record that follows `state`, signed by these keys."""
    body = encode_action(state.protocol, action)
    unsigned = SignedControl(chain.chain_id, state.sequence + 1, state.previous_hash, body)
    message = unsigned.message()
    signatures = tuple(
        [
            KeySignature(key_id(key.suite_id, key.public_key), key.suite_id, key.sign(message, contexts.CONTROL))
            for key in keys
        ]
    )
    return SignedControl(chain.chain_id, unsigned.sequence, unsigned.previous_hash, body, signatures)


def _managed(task: ShardTask) -> ManagedShard:
    cursor = task.committed
    return ManagedShard(task.shard, task.state, cursor.height, cursor.timestamp_ms, task.store.state_root, task.error)
