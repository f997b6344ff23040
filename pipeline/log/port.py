"""The event log port: Kafka's semantics, small enough for several adapters.

Topics are partitioned and append-only. Readers see committed records only, in offset order; offsets may have
holes (transaction markers, aborted data), so `next` is never `last + 1` by assumption. A *writer* owns a stable
id; opening it fences every older writer of that id. A transaction appends to any partitions, all or nothing.

Nothing here blocks for long: `TransactionalWriter.begin_commit` hands a whole transaction over and
`poll_commit` tells what became of it, so that a shard can work on its next block meanwhile.

A log is safe to share between threads; a writer belongs to one. The size limit of a record counts key + value.

Every adapter passes the same contract suite (`tests/contract/log_contract.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from pipeline.codec.topics import LogRecord, Topic, TopicPartition

__all__ = [
    "Append",
    "Committed",
    "Delivered",
    "Delivery",
    "EventLog",
    "LogRecord",
    "Topic",
    "TopicPartition",
    "TransactionalWriter",
]


class Append(NamedTuple):
    """A record to be appended."""

    target: TopicPartition
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Committed:
    """The transaction is durable. `offsets[i]` is the offset of the i-th append, None where not known."""

    offsets: tuple[int | None, ...]


class Delivery(Protocol):
    """Records on their way to the log, outside a transaction."""

    def poll(self) -> list[int] | None:
        """None while they are on their way, then their offsets. Raises as `EventLog.append`."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A `Delivery` that has arrived."""

    offsets: list[int]

    def poll(self) -> list[int]:
        """The offsets."""
        return self.offsets


@runtime_checkable
class TransactionalWriter(Protocol):
    """A fenced writer; at most one transaction at a time."""

    def poll_open(self) -> bool:
        """Whether older writers of this id are fenced by now; nothing is to be committed before.

        Raises `Retryable` where a cluster does not answer, `TaskFenced` where a newer one was opened meanwhile.
        """

    def begin_commit(self, appends: Sequence[Append]) -> None:
        """Hand over a whole transaction, in this order within each partition; it may be empty.

        Raises: `TaskFenced`, `TransactionAbortable`, `Retryable`, `OutcomeUnknown`, `Fatal` (disk full), and
        `ConfigError` for a record over the size limit or an unknown partition: then nothing was appended.
        """

    def poll_commit(self) -> Committed | None:
        """None while the commit is on its way; then the answer, once. Raises as `begin_commit`.

        A writer that was fenced meanwhile raises `TaskFenced`, also where its transaction made it.
        """

    def close(self) -> None:
        """Give the writer up; an open transaction is aborted or left to the next fence. Idempotent."""


@runtime_checkable
class EventLog(Protocol):
    """A partitioned log with transactions."""

    def create_topic(self, topic: Topic, partitions: int) -> None:
        """Create, or check that it exists with this many partitions. Raises `ConfigError` where it differs."""

    def partitions(self, topic: Topic) -> int:
        """Number of partitions; 0 where the topic does not exist."""

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        """Committed records with offset >= `start`, in order; at least one if there is one, else [].

        `max_bytes` bounds the sum of their keys and values, except that the first record always fits. Fewer
        than would fit may come; only [] says that there is nothing more by now. A cluster's news take a moment:
        there [] never hides what was committed when `settle`, `writer`, or an `end_offset` above `start` was
        last asked of this log, or when this position was first read.

        Waits at most for an answer. Raises `ConfigError` for an unknown partition, `TaskDiverged` where `start`
        was truncated away or lies beyond the end or the topic was replaced, `Fatal` where stored bytes are damaged,
        `Retryable` where a cluster does not answer, `LogStalled` now and then while a transaction stays open.
        """

    def read_uncommitted(self, source: TopicPartition, start: int) -> Iterator[LogRecord]:
        """Every record with offset >= `start` up to the end of now, those of aborted and open transactions too.

        For who must know what was ever written, as a signer of its signatures. Raises as `read`.
        """

    def end_offset(self, source: TopicPartition) -> int:
        """The offset after the last one that a committed or open transaction has taken."""

    def settle(self, source: TopicPartition) -> None:
        """See that every transaction that has touched `source` by now has ended: reads then show its whole past.

        Open transactions hide what stands behind them, so that a reader who must miss nothing, as one who recovers,
        asks first. Raises `Retryable` while one is open, `LogStalled` where it stays so, else as `end_offset`.
        """

    def append(self, appends: Sequence[Append]) -> list[int]:
        """Append outside a transaction, as a producer does; all or nothing per call here. Returns the offsets.

        Raises `ConfigError` for a record over the size limit or an unknown partition, with nothing appended, and
        `OutcomeUnknown` where a cluster did not confirm every record: then some may stand there.
        """

    def begin_append(self, appends: Sequence[Append]) -> Delivery:
        """As `append`, without waiting for the cluster: what is begun first stands first in its partition.

        Raises as `append`; what a cluster says comes out of `Delivery.poll`.
        """

    def writer(self, writer_id: str) -> TransactionalWriter:
        """Open the writer and fence all older ones of this id. Its own committed data is then complete.

        May wait for a cluster. Raises as `TransactionalWriter.poll_open`.
        """

    def begin_writer(self, writer_id: str) -> TransactionalWriter:
        """As `writer`, without waiting: it is open once `poll_open` says so."""

    def wait(self, timeout_ms: int) -> None:
        """Sleep until something may have been appended since this thread's last `wait`, at most `timeout_ms`."""

    def close(self) -> None:
        """Release everything. Idempotent."""
