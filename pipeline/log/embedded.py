"""The event log over a key-value store: durable, one process, several writers, no service.

A transaction is one batch of the store: its records, the new end offsets, and nothing else, so it is there as a
whole or not at all. Each committed transaction takes one more offset of every partition it touched, as Kafka's
markers do, so that code which infers contiguity fails early. Opening a writer raises the epoch of its id durably;
writers of a lower epoch are fenced.

One lock covers the assignment of offsets and the write. Readers take no lock: they scan below the end offset, which
moves only after the write returned.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.errors import ConfigError, Fatal, TaskDiverged, TaskFenced
from pipeline.kv.format import check_format
from pipeline.kv.port import KeyValue
from pipeline.log.catalog import COUNT, MAX_PARTITIONS, OFFSET, check_ends, load_catalog
from pipeline.log.port import Append, Committed, Delivered
from pipeline.log.records import (
    TOPICS,
    WRITERS,
    decode_page,
    encode_record,
    end_key,
    record_key,
)

Durability = Literal["sync", "process"]

FORMAT_KIND: Final = b"log"
FORMAT_VERSION: Final = 1
DEFAULT_MAX_MESSAGE_BYTES: Final = 1 << 20
_FIRST_PAGE: Final = 16  # records scanned at first, while the size of a partition's records is not known
_PAGE: Final = 256
_PAGE_BYTES: Final = 8 << 20
_POLL_SECONDS: Final = 0.01  # how often a read-only log looks for news while it waits


class EmbeddedLog:
    """`EventLog` over a `KeyValue`, which it owns: closing the log closes the store.

    `durability="sync"` makes every commit and append durable before it returns; "process" leaves that to the
    operating system (what was committed outlives the process, not a power cut). `max_message_bytes` bounds key +
    value of a record. With `read_only` (over a secondary) it shows the log as of opening or the last `refresh`.
    Raises `ConfigError` for another format and `Fatal` for damaged metadata.
    """

    def __init__(
        self,
        kv: KeyValue,
        *,
        durability: Durability = "sync",
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        read_only: bool = False,
    ) -> None:
        """Open the log in `kv`; an empty store becomes an empty log."""
        check_format(kv, FORMAT_KIND, FORMAT_VERSION)
        self._kv = kv
        self._sync = durability == "sync"
        self._max_message_bytes = max_message_bytes
        self._read_only = read_only
        self._catalog = load_catalog(kv)
        if not read_only:
            check_ends(kv, self._catalog)
        self._record_bytes: dict[TopicPartition, int] = {}  # average at the last read, to size pages
        # Taken by itself: a signal that raises between two steps of the condition's own code would leave it locked, and
        # whoever closes the log would wait for ever.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._version = 0  # counts writes that moved an end offset
        self._seen = threading.local()  # .version: what the thread's last wait returned at
        self._failed = False
        self._closed = False

    def create_topic(self, topic: Topic, partitions: int) -> None:
        """As the port; 1 to 65,535 partitions."""
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise ConfigError(f"{topic.topic_name} can't have {partitions} partitions: 1 to {MAX_PARTITIONS}")
        with self._lock:
            found = self.partitions(topic)
            if found == partitions:
                return
            if found:
                raise ConfigError(f"{topic.topic_name} has {found} partitions, not {partitions}: a count never changes")
            self._store({TOPICS + bytes((topic,)): COUNT.pack(partitions)})
            self._catalog.ends.update({TopicPartition(topic, number): 0 for number in range(partitions)})
            self._catalog.topics[topic] = partitions

    def partitions(self, topic: Topic) -> int:
        """As the port."""
        self._check_open()
        return self._catalog.topics.get(topic, 0)

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        """As the port; stops before the record that would exceed `max_bytes`."""
        end = self.end_offset(source)
        if start == end:
            return []
        if not 0 <= start < end:
            raise TaskDiverged(
                f"{source.topic.topic_name}, partition {source.partition} has offsets 0 to {end}, but {start} "
                "was asked for: the log was cut or replaced; restore it"
            )
        records: list[LogRecord] = []
        room = max_bytes
        low, high = record_key(source, start), record_key(source, end)
        average = self._record_bytes.get(source, 0)
        while True:
            fitting = max(room, 0) // average + 1 if average else _FIRST_PAGE
            want = max(min(max_records - len(records), fitting), 1)
            page = self._kv.scan(low, high, want)
            before = len(records)
            room = decode_page(source, page, records, room)
            if records:
                average = self._record_bytes[source] = max((max_bytes - room) // len(records), 1)
            whole_page = len(records) - before == want
            if not whole_page or len(records) >= max_records or room < average:
                return records
            low = page[-1][0] + b"\0"

    def read_uncommitted(self, source: TopicPartition, start: int) -> Iterator[LogRecord]:
        """As the port: what is not committed was never written here."""
        while records := self.read(source, start, _PAGE, _PAGE_BYTES):
            yield from records
            start = records[-1].offset + 1

    def end_offset(self, source: TopicPartition) -> int:
        """As the port."""
        self._check_open()
        end = self._catalog.ends.get(source)
        if end is None:
            raise _unknown(source)
        return end

    def settle(self, source: TopicPartition) -> None:
        """As the port: no transaction is ever open here."""
        self.end_offset(source)

    def append(self, appends: Sequence[Append]) -> list[int]:
        """As the port; durable when it returns, as `durability` says."""
        with self._lock:
            return self._append(appends, marker=0)

    def begin_append(self, appends: Sequence[Append]) -> Delivered:
        """As the port; `append` has nobody to wait for."""
        return Delivered(self.append(appends))

    def writer(self, writer_id: str) -> "EmbeddedWriter":
        """As the port. Raises `ConfigError` for an empty id."""
        if not writer_id:
            raise ConfigError("a writer needs an id: give one that stays the same over restarts")
        with self._lock:
            self._check_open()
            epoch = self._catalog.epochs.get(writer_id, 0) + 1
            self._store({WRITERS + writer_id.encode(): OFFSET.pack(epoch)})
            self._catalog.epochs[writer_id] = epoch
        return EmbeddedWriter(self, writer_id, epoch)

    def begin_writer(self, writer_id: str) -> "EmbeddedWriter":
        """As the port; it is open at once."""
        return self.writer(writer_id)

    def refresh(self) -> None:
        """Read-only: show what the owner has committed by now. Else nothing to do."""
        with self._lock:
            self._check_open()
            self._refresh()

    def wait(self, timeout_ms: int) -> None:
        """As the port: returns at once if something was appended since this thread's last `wait` returned."""
        deadline = time.monotonic() + timeout_ms / 1000
        with self._lock:
            self._check_open()
            seen: int = getattr(self._seen, "version", 0)
            while not self._closed:
                self._refresh()
                left = deadline - time.monotonic()
                if self._version != seen or left <= 0:
                    break
                self._changed.wait(min(left, _POLL_SECONDS) if self._read_only else left)
            self._seen.version = self._version

    def close(self) -> None:
        """As the port; wakes every thread that waits."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._changed.notify_all()
                self._kv.close()

    def commit(self, writer_id: str, epoch: int, appends: Sequence[Append]) -> list[int]:
        """One transaction of `EmbeddedWriter`; returns the offsets."""
        with self._lock:
            self.check_epoch(writer_id, epoch)
            return self._append(appends, marker=1)

    def check_epoch(self, writer_id: str, epoch: int) -> None:
        """Raise `TaskFenced` unless `epoch` is the newest of this id."""
        self._check_open()
        if self._catalog.epochs[writer_id] != epoch:
            raise TaskFenced(f"writer {writer_id} was opened again elsewhere: this one is fenced")

    def _append(self, appends: Sequence[Append], *, marker: int) -> list[int]:
        """Assign offsets and write, all in one batch; under the lock."""
        self._check_open()
        ends, limit = self._catalog.ends, self._max_message_bytes
        moved: dict[TopicPartition, int] = {}
        batch: dict[bytes, bytes] = {}
        offsets: list[int] = []
        for target, key, value in appends:
            offset = moved.get(target)
            if offset is None:
                offset = ends.get(target)
                if offset is None:
                    raise _unknown(target)
            size = (len(key) if key else 0) + (len(value) if value else 0)
            if size > limit:
                raise ConfigError(
                    f"a record of {size} bytes for {target.topic.topic_name} is over the limit of {limit}: "
                    "send smaller ones, or raise max_message_bytes"
                )
            store_key = record_key(target, offset)
            batch[store_key] = encode_record(store_key, key, value)
            moved[target] = offset + 1
            offsets.append(offset)
        if not offsets:
            return offsets
        moved = {target: end + marker for target, end in moved.items()}
        batch |= {end_key(target): OFFSET.pack(end) for target, end in moved.items()}
        self._store(batch)
        ends.update(moved)
        self._version += 1
        self._changed.notify_all()
        return offsets

    def _refresh(self) -> None:
        if not self._read_only:
            return
        self._kv.refresh()
        before, self._catalog = self._catalog, load_catalog(self._kv)
        if self._catalog.ends != before.ends:
            self._version += 1
            self._changed.notify_all()

    def _store(self, batch: dict[bytes, bytes]) -> None:
        """The only write of an open log; under the lock."""
        if self._read_only:
            raise ConfigError("the log was opened for reading only: write through the process that owns it")
        if self._failed:
            raise Fatal("the log stopped at a failed write: mend the cause, then open it again")
        try:
            self._kv.write(batch, sync=self._sync)
        except BaseException:
            # What the store kept is unknown, and so are the true end offsets, until it is opened again.
            self._failed = True
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise Fatal("the log is closed: open it again")


class EmbeddedWriter:
    """`TransactionalWriter` of the embedded log; made by `EmbeddedLog.writer`."""

    __slots__ = ("_closed", "_committed", "_epoch", "_id", "_log")

    def __init__(self, log: EmbeddedLog, writer_id: str, epoch: int) -> None:
        """Write as `writer_id` while `epoch` is its newest."""
        self._log = log
        self._id = writer_id
        self._epoch = epoch
        self._committed: Committed | None = None
        self._closed = False

    def poll_open(self) -> bool:
        """As the port."""
        self._check_open()
        return True

    def begin_commit(self, appends: Sequence[Append]) -> None:
        """As the port; the commit is done when this returns."""
        self._check_open()
        assert self._committed is None, "the previous transaction was not polled to its end"
        self._committed = Committed(tuple(self._log.commit(self._id, self._epoch, appends)))

    def poll_commit(self) -> Committed | None:
        """As the port; the answer is given once."""
        self._check_open()
        self._log.check_epoch(self._id, self._epoch)
        assert self._committed is not None, "no transaction was begun"
        committed, self._committed = self._committed, None
        return committed

    def close(self) -> None:
        """As the port; a transaction that was begun is committed already."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise Fatal(f"writer {self._id} is closed: open a new one")


def _unknown(source: TopicPartition) -> ConfigError:
    return ConfigError(
        f"{source.topic.topic_name} has no partition {source.partition}: create the topic with enough partitions"
    )
