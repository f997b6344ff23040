"""An event log whose commits go wrong on demand, in the ways in which Kafka's do.

Only transactional writers fail; reading, and appending as producers do, is the wrapped log's.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.errors import OutcomeUnknown, Retryable, TaskFenced, TransactionAbortable
from pipeline.log.port import Append, Committed, Delivery, EventLog, TransactionalWriter


class CommitFault(Enum):
    """What becomes of one commit."""

    RETRY = "retry"
    """Nothing happened, and the caller is told so."""
    ABORTED = "aborted"
    """The transaction was aborted."""
    FENCED = "fenced"
    """Somebody opens the writer again just before."""
    LOST = "lost"
    """Outcome unknown; it never happens."""
    COMMITTED = "committed"
    """Outcome unknown; it happened."""
    LATE = "late"
    """Outcome unknown; it happens when the writer is opened again, just before older ones are fenced."""
    PREFIX = "prefix"
    """Outcome unknown; a delayed end of an earlier transaction committed a part of this one, the first append first."""
    SLOW = "slow"
    """It happens after some polls."""


_SLOW_POLLS: Final = 3


@dataclass(frozen=True, slots=True)
class Failing:
    """A fault of one commit. `at_poll`: the caller hears of it from `poll_commit`, else at once from `begin_commit`.

    `part` chooses what of the transaction a PREFIX makes visible.
    """

    fault: CommitFault
    at_poll: bool = False
    part: Callable[[Sequence[Append]], Sequence[Append]] = lambda appends: appends[:1]


Choose = Callable[[str, Sequence[Append]], Failing | None]
"""Given a writer's id and a transaction: how it fails, None if it does not."""


class FaultyLog:
    """`EventLog` over another one, whose writers ask `choose` at each commit."""

    def __init__(self, inner: EventLog, choose: Choose) -> None:
        """`inner` stays the caller's."""
        self.inner = inner
        self.choose = choose
        self._late: dict[str, tuple[TransactionalWriter, list[Append]]] = {}

    def create_topic(self, topic: Topic, partitions: int) -> None:
        """As the port."""
        self.inner.create_topic(topic, partitions)

    def partitions(self, topic: Topic) -> int:
        """As the port."""
        return self.inner.partitions(topic)

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        """As the port."""
        return self.inner.read(source, start, max_records, max_bytes)

    def read_uncommitted(self, source: TopicPartition, start: int) -> Iterator[LogRecord]:
        """As the port."""
        return self.inner.read_uncommitted(source, start)

    def end_offset(self, source: TopicPartition) -> int:
        """As the port."""
        return self.inner.end_offset(source)

    def settle(self, source: TopicPartition) -> None:
        """As the port."""
        self.inner.settle(source)

    def append(self, appends: Sequence[Append]) -> list[int]:
        """As the port."""
        return self.inner.append(appends)

    def begin_append(self, appends: Sequence[Append]) -> Delivery:
        """As the port."""
        return self.inner.begin_append(appends)

    def writer(self, writer_id: str) -> "FaultyWriter":
        """As the port; a late commit of this id happens now."""
        late = self._late.pop(writer_id, None)
        if late is not None:
            with suppress(TaskFenced):  # by somebody else, who came before it
                late[0].begin_commit(late[1])
                late[0].poll_commit()
        return FaultyWriter(self, writer_id, self.inner.writer(writer_id))

    def begin_writer(self, writer_id: str) -> "FaultyWriter":
        """As the port; it is open at once."""
        return self.writer(writer_id)

    def leave_late(self, writer_id: str, writer: TransactionalWriter, appends: Sequence[Append]) -> None:
        """Keep a transaction that commits when the writer is opened again."""
        self._late[writer_id] = writer, list(appends)

    def is_late(self, writer_id: str) -> bool:
        """Whether a transaction of this writer is kept for later."""
        return writer_id in self._late

    def wait(self, timeout_ms: int) -> None:
        """As the port."""
        self.inner.wait(timeout_ms)

    def close(self) -> None:
        """Nothing: the wrapped log is the caller's to close."""


class FaultyWriter:
    """`TransactionalWriter` of a `FaultyLog`."""

    def __init__(self, log: FaultyLog, writer_id: str, inner: TransactionalWriter) -> None:
        """Made by `FaultyLog.writer`."""
        self._log = log
        self._id = writer_id
        self._inner = inner
        self._error: Exception | None = None
        self._slow: tuple[int, Sequence[Append]] | None = None

    def poll_open(self) -> bool:
        """As the port."""
        return self._inner.poll_open()

    def begin_commit(self, appends: Sequence[Append]) -> None:
        """As the port, with the fault that was chosen."""
        failing = self._log.choose(self._id, appends)
        if failing is None:
            self._inner.begin_commit(appends)
            return
        error = self._fail(failing, appends)
        if error is None:
            return
        if not failing.at_poll:
            raise error
        self._error = error

    def _fail(self, failing: Failing, appends: Sequence[Append]) -> Exception | None:
        """Do what the fault does to the log; the error, if there is one to be told."""
        match failing.fault:
            case CommitFault.RETRY:
                raise Retryable("the log is busy: try again")
            case CommitFault.ABORTED:
                return TransactionAbortable("the transaction was aborted")
            case CommitFault.FENCED:
                self._log.inner.writer(self._id).close()
                self._inner.begin_commit(appends)  # raises
                raise AssertionError("a fenced writer committed")
            case CommitFault.LOST:
                return OutcomeUnknown("the commit timed out")
            case CommitFault.COMMITTED:
                self._commit(appends)
                return OutcomeUnknown("the commit timed out")
            case CommitFault.LATE:
                self._log.leave_late(self._id, self._inner, appends)
                return OutcomeUnknown("the commit timed out")
            case CommitFault.PREFIX:
                self._commit(failing.part(appends))
                return OutcomeUnknown("the commit timed out")
            case CommitFault.SLOW:
                self._slow = _SLOW_POLLS, list(appends)
                return None
            case _:
                assert_never(failing.fault)

    def _commit(self, appends: Sequence[Append]) -> None:
        self._inner.begin_commit(appends)
        self._inner.poll_commit()

    def poll_commit(self) -> Committed | None:
        """As the port, with the fault that was chosen."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._slow is not None:
            polls, appends = self._slow
            self._slow = (polls - 1, appends) if polls else None
            if polls:
                return None
            self._inner.begin_commit(appends)
        return self._inner.poll_commit()

    def close(self) -> None:
        """As the port; a slow commit that was not polled to its end never happens. One left for later still does."""
        if not self._log.is_late(self._id):
            self._inner.close()
