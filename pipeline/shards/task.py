"""A shard task: drives one shard through its life, one non-blocking step at a time.

Exceptions are named for their recovery, and the one `match` below carries it out.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

from pipeline.codec.types import ShardId
from pipeline.crypto.verifier import Verifier
from pipeline.errors import (
    ConfigError,
    Fatal,
    HauptbuchError,
    OutcomeUnknown,
    PoisonRecord,
    Retryable,
    ShardingError,
    TaskDiverged,
    TaskFenced,
    TransactionAbortable,
    VerificationFailed,
)
from pipeline.ledger.chain import Chain
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.writers import shard_writer
from pipeline.log.port import EventLog, TransactionalWriter
from pipeline.shards.leader import Leader
from pipeline.shards.life import Life, TaskState
from pipeline.shards.observer import ShardObserver
from pipeline.shards.progress import Idle, Progress
from pipeline.shards.recovery import Recovery, stored_cursor
from pipeline.state.store import StateStore

_BACKOFF_MS: Final = 200
_BACKOFF_JITTER_MS: Final = 1_800
_OPENING_MS: Final = 5


class Ownership(Protocol):
    """Says who owns a shard: the probe. Without it a zombie that recycles would fence the rightful owner."""

    def owns(self, shard: ShardId) -> bool:
        """Whether this process owns the shard now, as far as the log knows."""


class SoleOwner:
    """A process that holds the directory's lock owns every shard of it."""

    def owns(self, shard: ShardId) -> bool:  # noqa: ARG002 - of any shard
        """Always."""
        return True


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """`linger_ms`: how long a block waits for more. `accept_time`: an operator vouches for this machine's clock."""

    linger_ms: int = 5
    accept_time: bool = False


class ShardTask:
    """One shard in this process. `assign` starts its life, `step` drives it, `revoke` ends it."""

    def __init__(
        self,
        chain: Chain,
        shard: ShardId,
        log: EventLog,
        store: StateStore,
        verifier: Verifier,
        ownership: Ownership,
        config: TaskConfig,
        observer: ShardObserver | None = None,
    ) -> None:
        """Unassigned."""
        self._chain = chain
        self.shard = shard
        self._log = log
        self.store = store
        self._verifier = verifier
        self._ownership = ownership
        self._config = config
        self._observer = observer or ShardObserver()
        self._life = Life()
        self._writer: TransactionalWriter | None = None
        self._recovery: Recovery | None = None
        self._republishing = False
        self.leader: Leader | None = None
        self._retry_at_ms = 0
        self._attempts = 0
        self.error: HauptbuchError | None = None

    @property
    def state(self) -> TaskState:
        """Where the task stands."""
        return self._life.state

    @property
    def committed(self) -> ShardCursor:
        """Where the store stands."""
        if self.leader is not None:
            return self.leader.committed
        if self._recovery is not None:
            return self._recovery.cursor
        return stored_cursor(self._chain, self.shard, self.store)

    def pauses(self, now_ms: int) -> bool:
        """Whether something failed and it does nothing before it tries again."""
        return self.state is TaskState.FENCING and now_ms < self._retry_at_ms

    def catching_up(self) -> tuple[int, int] | None:
        """(height of the store, height of the log) while it recovers, else None. Raises as the log."""
        return None if self._recovery is None else self._recovery.progress()

    def assign(self) -> None:
        """The shard is this process's. Nothing to do where it already is."""
        if self.state is TaskState.UNASSIGNED:
            self._move(TaskState.FENCING)

    def revoke(self) -> None:
        """The shard is no longer this process's: drop all that is not committed."""
        self._drop()
        if self.state not in (TaskState.UNASSIGNED, TaskState.HALTED):
            self._move(TaskState.UNASSIGNED)

    def halt(self, error: HauptbuchError) -> None:
        """Something is wrong that concerns every shard. Nothing to do where the task halted or owns nothing."""
        if self.state not in (TaskState.UNASSIGNED, TaskState.HALTED):
            self._halt(error)

    def step(self, now_ms: int) -> Progress | Idle:
        """One step of the shard's life. Never blocks, reads no clock. Raises `Fatal` only."""
        try:
            match self.state:
                case TaskState.UNASSIGNED | TaskState.HALTED:
                    return Idle()
                case TaskState.FENCING:
                    return self._fence(now_ms)
                case TaskState.RECOVERING:
                    return self._recover()
                case TaskState.LEADING:
                    assert self.leader is not None, "leading without a leader"
                    return self.leader.step(now_ms)
        except HauptbuchError as error:
            return self._handle(error, now_ms)

    def _fence(self, now_ms: int) -> Progress | Idle:
        # A clock that was set back must not prolong the pause.
        self._retry_at_ms = min(self._retry_at_ms, now_ms + _BACKOFF_MS + _BACKOFF_JITTER_MS)
        if now_ms < self._retry_at_ms:
            return Idle(self._retry_at_ms)
        if self._writer is None:
            if not self._ownership.owns(self.shard):
                self._move(TaskState.UNASSIGNED)
                return Progress()
            self._writer = self._log.begin_writer(shard_writer(self._chain.chain_id, self.shard))
        if not self._writer.poll_open():
            return Idle(now_ms + _OPENING_MS)
        # Never read the tail before fencing: an older writer could still commit to it.
        self._recovery = Recovery(self._chain, self.shard, self._log, self.store, self._verifier)
        self._observer.stands(self._recovery.cursor)
        self._move(TaskState.RECOVERING)
        return Progress()

    def _recover(self) -> Progress | Idle:
        recovery, writer = self._recovery, self._writer
        assert recovery is not None, "recovering without a recovery"
        assert writer is not None, "recovering without a writer"
        if self._republishing:
            if writer.poll_commit() is None:
                return Idle()
            return self._lead(recovery, writer)
        if recovery.step():
            return Progress()
        recovery.check_signed()
        outputs = recovery.outputs()
        if not outputs:
            return self._lead(recovery, writer)
        writer.begin_commit(outputs)
        self._republishing = True
        return Progress()

    def _lead(self, recovery: Recovery, writer: TransactionalWriter) -> Progress:
        self.leader = Leader(
            self._chain,
            recovery.cursor,
            recovery.consumed,
            self._log,
            self.store,
            writer,
            self._verifier,
            linger_ms=self._config.linger_ms,
            accept_time=self._config.accept_time,
            observer=self._observer,
        )
        self._recovery, self._republishing, self._attempts = None, False, 0
        self._observer.stands(recovery.cursor)
        self._move(TaskState.LEADING)
        return Progress()

    def _handle(self, error: HauptbuchError, now_ms: int) -> Progress | Idle:
        match error:
            case Retryable() if self.state is TaskState.LEADING:
                self._observer.held_up(error)
                return Idle(now_ms + _BACKOFF_MS)
            case Retryable() | TransactionAbortable() | OutcomeUnknown() | TaskFenced():
                # Fencing and recovery begin anew whatever failed: half of a catching up can't be called again.
                self._drop()
                self._retry_at_ms = now_ms + self._backoff_ms()
                self._observer.setback(error)
                if self.state is not TaskState.FENCING:
                    self._move(TaskState.FENCING)
                return Idle(self._retry_at_ms)
            case TaskDiverged() | PoisonRecord() | ConfigError() | VerificationFailed() | ShardingError():
                self._halt(error)
                return Idle()
            case _:
                self._halt(error)
                assert isinstance(error, Fatal), f"an error without a recovery: {error!r}"
                raise error

    def _backoff_ms(self) -> int:
        """0.2 to 2 s; spread by a hash, since a step must not depend on chance."""
        self._attempts += 1
        digest = sha256(f"{self.shard}/{self._attempts}".encode()).digest()
        return _BACKOFF_MS + int.from_bytes(digest[:2], "big") % _BACKOFF_JITTER_MS

    def _halt(self, error: HauptbuchError) -> None:
        self._drop()
        self.error = error
        self._move(TaskState.HALTED)

    def _move(self, state: TaskState) -> None:
        self._life.move(state)
        self._observer.moved(state, self.error)

    def _drop(self) -> None:
        """Forget everything that is not in the store."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self._recovery, self.leader, self._republishing = None, None, None, False
