"""What proposer and attestors have in common: a fenced life, steps that never block, halting on disagreement.

FENCING ────────▶ RECOVERING ────────▶ RUNNING
 │ ▲                  │                  │ │
 │ └──────────────────┴──────────────────┘ └──▶ FENCED   another one took over: ends, unless still the owner
 │   outcome unknown, aborted: drop all        ▶ HALTED   any disagreement: only an operator leads out of it
 └──▶ FENCED   no longer the owner: must not fence the rightful one
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from pipeline.errors import (
    ConfigError,
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
from pipeline.shards.progress import Idle, Progress
from pipeline.sync.ledger_follower import LedgerFollower
from pipeline.sync.life import SyncState
from pipeline.sync.observer import RoundObserver

RETRY_MS: Final = 200


class RoundTask(ABC):
    """The life above; subclasses say what to do in it."""

    def __init__(self, still_owner: Callable[[], bool] | None, observer: RoundObserver | None = None) -> None:
        """`still_owner` is asked whenever this task is about to fence: a zombie must not fence the rightful owner.

        None: nobody can say. Then a fenced task ends, and an unknown outcome fences again, as a restart would.
        """
        self.state = SyncState.FENCING
        self.error: HauptbuchError | None = None
        self._still_owner = still_owner
        self._observer = observer or RoundObserver()
        self._retry_at_ms = 0
        self.follower: LedgerFollower | None = None

    def step(self, now_ms: int) -> Progress | Idle:
        """One step; never blocks, reads no clock. Raises `Fatal` where the process can't go on."""
        try:
            match self.state:
                case SyncState.FENCED | SyncState.HALTED:
                    return Idle()
                case SyncState.FENCING:
                    if now_ms < self._retry_at_ms:
                        return Idle(self._retry_at_ms)
                    if self._still_owner is not None and not self._still_owner():
                        return self._end(TaskFenced("another process has this role now: this one ends"))
                    self.follower = self._fence()
                    self._move(SyncState.RECOVERING)
                    return Progress()
                case SyncState.RECOVERING:
                    assert self.follower is not None, "recovering without a follower"
                    return self._recover(self.follower, now_ms)
                case SyncState.RUNNING:
                    assert self.follower is not None, "running without a follower"
                    return self._run(self.follower, now_ms)
        except HauptbuchError as error:
            return self._handle(error, now_ms)

    def close(self) -> None:
        """Stop: what is committed is on the log, the rest never happened. Idempotent."""
        self._drop()
        if self.state is not SyncState.HALTED:
            self._move(SyncState.FENCED)

    def _handle(self, error: HauptbuchError, now_ms: int) -> Progress | Idle:
        match error:
            case Retryable() if self.state is not SyncState.FENCING:
                self._observer.held_up(error)
                return Idle(now_ms + RETRY_MS)
            case TaskFenced() if self._still_owner is None:
                return self._end(error)
            case Retryable() | TaskFenced() | TransactionAbortable() | OutcomeUnknown():
                self._drop()
                self._retry_at_ms = now_ms + RETRY_MS
                self._observer.setback(error)
                self._move(SyncState.FENCING)
                return Idle(self._retry_at_ms)
            case TaskDiverged() | VerificationFailed() | PoisonRecord() | ConfigError() | ShardingError():
                self._drop()
                self._move(SyncState.HALTED, error)
                return Idle()
            case _:
                self._drop()
                self._move(SyncState.HALTED, error)
                raise error

    def _end(self, error: TaskFenced) -> Idle:
        self._drop()
        self._move(SyncState.FENCED, error)
        return Idle()

    def _move(self, state: SyncState, error: HauptbuchError | None = None) -> None:
        if state is not self.state:
            self.state, self.error = state, error
            self._observer.moved(state, error)

    @abstractmethod
    def _fence(self) -> LedgerFollower:
        """Fence older writers, then open everything anew."""

    @abstractmethod
    def _recover(self, follower: LedgerFollower, now_ms: int) -> Progress | Idle:
        """Follow the log to its end, finish what an older instance left; then be RUNNING."""

    @abstractmethod
    def _run(self, follower: LedgerFollower, now_ms: int) -> Progress | Idle:
        """One step of the work."""

    @abstractmethod
    def _drop(self) -> None:
        """Close the writers and forget everything that is not in the store."""
