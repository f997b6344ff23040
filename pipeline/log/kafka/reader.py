"""Committed reads at any position, over two lanes of consumers that fetch ahead.

The *tail* lane follows every partition that is read. A read far from where a tail stands (a bisection, a second reader
of old history) takes the *far* lane, unless nobody used that tail for a while: then the tail moves there.

What [] promises. A consumer hears of new records a moment after they stand. A read that finds nothing fetched
therefore asks the cluster for the last stable offset, and waits until everything before it has arrived, wherever
something may stand that this process can know of: at the first read of a position, after a writer was fenced, and
after `end_offset` answered with an offset beyond. Reads in a steady tail cost a request every 10 s.

An impatient log waits for a moment (`patience`). A read that would wait for longer raises `Retryable` at once until the
answer, or what is owed, is there: it never gives [] instead.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from pipeline.codec.topics import LogRecord, TopicPartition
from pipeline.errors import HauptbuchError, LogStalled, Retryable, TaskDiverged
from pipeline.log.kafka.lane import Fetched, Lane
from pipeline.log.kafka.patience import REQUEST_S, Patience
from pipeline.log.kafka.settings import Settings

_SLICE_S: Final = 0.002
"""How long a waiting thread keeps the lock where others use it, and how late it hears of a finished commit."""
_FAR_S: Final = 0.05
"""News on the far lane wakes nobody, so nobody sleeps for longer while it is used."""
_SHARED_S: Final = 2.0
"""A reader that two threads used within this is waited on in slices, else in one go: slices cost a process that idles
4 % of a core."""
_SURE_S: Final = 10.0
"""How long [] is believed without asking. A client that heard of a partition without a leader, as when a broker stood
still, can stop fetching it for good and say nothing (librdkafka#5430)."""
_FRESH_S: Final = 0.001
"""What arrived is not asked for again within this: whoever wakes reads several partitions, most of them empty."""
_WATCH_S: Final = 0.5
"""How often a read that finds nothing looks whether an open transaction is why."""
_SILENCE_S: Final = 1.0
"""A broker that takes longer to answer stood still, or its machine did."""
_BUSY_S: Final = 1.0
"""A tail that was read within this is not moved."""
_FORGOTTEN_S: Final = 10.0
"""A tail that nobody read for this long is given up: what a recovery has read would else be fetched for ever."""


class Reader:
    """Reads of one log. Safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        name_of: Callable[[TopicPartition], str],
        missing: Callable[[], HauptbuchError],
        end_of: Callable[[TopicPartition], int],
        patience: Patience,
        stall_s: float,
    ) -> None:
        """`end_of` asks for the high watermark. `stall_s`: how long one open transaction may hide what is behind it."""
        self._tail = Lane(settings, name_of, missing)
        self._far = Lane(settings, name_of, missing)
        self._name_of = name_of
        self._end_of = end_of
        self._patience = patience
        self._stall_s = stall_s
        self._lock = threading.Lock()
        # A lock is not fair: one who waits in slices would take it again before another wakes. Whoever wants the lock
        # holds this meanwhile, so that the next slice queues behind.
        self._queue = threading.Lock()
        self._renewed_s = time.monotonic()
        self._events = 1
        self._fenced_at = 0
        self._ends: dict[TopicPartition, tuple[int, int]] = {}  # (event, offset) of the last end that was told
        self._seen = threading.local()
        self._user, self._shared_until_s = 0, 0.0
        self._release_at_s = 0.0

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        """As the port, for a partition that exists."""
        with self._queue:
            self._lock.acquire()
        try:
            return self._read(source, start, max_records, max_bytes)
        finally:
            self._lock.release()

    def _renew(self) -> None:
        """Clients that did not answer may never do so again: make new ones, now and then."""
        now_s = time.monotonic()
        if now_s - self._renewed_s > REQUEST_S:
            self._renewed_s = now_s
            self._tail.renew()
            self._far.renew()
            self._patience.forget()

    def _bounds(self, lane: Lane, source: TopicPartition) -> tuple[int, int]:
        try:
            return self._patience.ask(source, partial(lane.bounds, source))
        except Retryable:
            if self._patience.blames_client(source):
                self._renew()
            raise

    def _read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        now_s = time.monotonic()
        self._is_shared(now_s)
        lane, fetched = self._place(source, start, now_s)
        fetched.used_s = now_s
        window = fetched.window
        records = window.take(start, max_records, max_bytes)
        if not records and fetched.error is None:
            if now_s - lane.pumped_s > _FRESH_S:
                lane.pump(0)
            if fetched.paused:  # a read at its end may have made room
                lane.resume(fetched)
            self._await(lane, source, fetched, start, now_s)
            records = window.take(start, max_records, max_bytes)
        if fetched.paused:
            lane.resume(fetched)
        if records:
            return records
        if fetched.error is not None:
            lane.drop(source)
            if fetched.is_outdated and isinstance(fetched.error, Retryable):
                self._renew()
            raise fetched.error
        if now_s - fetched.watched_s > _WATCH_S:
            fetched.watched_s = now_s
            self._watch_stall(lane, source, fetched, now_s)
        return []

    def told_end(self, source: TopicPartition, end: int) -> None:
        """The process was told that offsets below `end` are taken: [] must not hide what is committed there."""
        with self._lock:
            self._events += 1
            self._ends[source] = self._events, end

    def fenced(self) -> None:
        """A writer was opened: whatever older ones committed must be seen from now on."""
        with self._lock:
            self._events += 1
            self._fenced_at = self._events

    def stable_end(self, source: TopicPartition) -> int:
        """The last stable offset as of now."""
        with self._queue:
            self._lock.acquire()
        try:
            return self._bounds(self._tail, source)[1]
        finally:
            self._lock.release()

    def wait(self, timeout_s: float, is_due: Callable[[], bool], is_busy: Callable[[], bool]) -> None:
        """Until a record arrived since this thread's last wait, `is_due()`, or the timeout.

        `is_busy`: whether something may come to be due meanwhile.
        """
        started = time.monotonic()
        seen: int = getattr(self._seen, "records", -1)
        while True:
            with self._queue:
                self._lock.acquire()
            try:
                now_s = time.monotonic()
                left = started + (min(timeout_s, _FAR_S) if self._far.sources else timeout_s) - now_s
                in_slices = is_busy() or self._is_shared(now_s)
                if self._tail.records != seen or left <= 0 or is_due():
                    self._tail.pump(0)
                    self._seen.records = self._tail.records
                    self._release(now_s)
                    return
                self._tail.pump(min(_SLICE_S, left) if in_slices else left)
            finally:
                self._lock.release()

    @property
    def is_probing(self) -> bool:
        """Whether a thread asks a silent partition."""
        return self._patience.is_probing

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._tail.close()
            self._far.close()

    def _is_shared(self, now_s: float) -> bool:
        """Whether another thread used this not long ago."""
        user = threading.get_ident()
        if user != self._user:
            if self._user:
                self._shared_until_s = now_s + _SHARED_S
            self._user = user
        return now_s < self._shared_until_s

    def _place(self, source: TopicPartition, start: int, now_s: float) -> tuple[Lane, Fetched]:
        """The lane that has this position; one is moved there if none has."""
        tail, far = self._tail.get(source), self._far.get(source)
        if tail is not None and tail.window.covers(start):
            return self._tail, tail
        tail_is_busy = tail is not None and now_s - tail.used_s < _BUSY_S
        if far is not None and far.window.covers(start) and (tail_is_busy or start < far.window.high):
            return self._far, far
        lane = self._far if tail_is_busy else self._tail
        events = self._events
        low, stable = self._bounds(lane, source)
        if not low <= start <= stable:
            end = self._end_of(source)
            if not low <= start <= end:
                raise TaskDiverged(
                    f"{self._name_of(source)}, partition {source.partition} has offsets {low} to {end}, but {start} "
                    "was asked for: the log was cut or replaced; restore it"
                )
        return lane, lane.fetch(source, start, stable, events, now_s)

    def _await(self, lane: Lane, source: TopicPartition, fetched: Fetched, start: int, now_s: float) -> None:
        """Until records are there, or nothing is owed."""
        window = fetched.window
        if window.has(start):
            return
        told_at, told = self._ends.get(source, (0, 0))
        is_stale = now_s - fetched.asked_s > _SURE_S
        if is_stale or fetched.sure_at < self._fenced_at or (fetched.sure_at < told_at and window.high < told):
            events = self._events
            fetched.owed = self._bounds(lane, source)[1]
            fetched.sure_at, fetched.asked_s = events, now_s
        if window.high >= fetched.owed:
            fetched.awaited_at = -1  # what comes next is not late, however long nothing came
            return
        if fetched.awaited_at != window.high:
            fetched.awaited_at, fetched.awaited_s = window.high, time.monotonic()
        while window.high < fetched.owed and fetched.error is None and not window.has(start):
            waited_s = time.monotonic() - fetched.awaited_s
            if waited_s > min(self._patience.wait_s, REQUEST_S):
                if waited_s > REQUEST_S:
                    self._renew()
                raise Retryable(
                    f"{self._name_of(source)}, partition {source.partition}: Kafka gave nothing from offset "
                    f"{window.high} on in {waited_s:.0f} s, though all before {fetched.owed} is decided"
                )
            lane.pump(0.02)

    def _watch_stall(self, lane: Lane, source: TopicPartition, fetched: Fetched, now_s: float) -> None:
        """One open transaction hides everything behind it: not for longer than transactions may last.

        Brokers that do not answer can't end one, so that their silence does not count.
        """
        high = fetched.window.high
        if lane.high_watermark(source) <= high:
            fetched.stuck_at = -1
            return
        if fetched.stuck_at != high:
            fetched.stuck_at, fetched.stuck_s = high, now_s
            return
        try:
            stable = self._bounds(lane, source)[1]
        except Retryable:
            fetched.stuck_at = -1
            raise
        answered_s = time.monotonic()
        if stable > high or answered_s - now_s > _SILENCE_S:
            fetched.stuck_at = -1
        elif answered_s - fetched.stuck_s > self._stall_s:
            raise stalled(self._name_of(source), source.partition, high, answered_s - fetched.stuck_s)

    def _release(self, now_s: float) -> None:
        """Stop fetching what nobody reads any more."""
        if now_s < self._release_at_s:
            return
        self._release_at_s = now_s + _BUSY_S
        for lane, unread_s in ((self._far, _BUSY_S), (self._tail, _FORGOTTEN_S)):
            for source in lane.sources:
                fetched = lane.get(source)
                if fetched is not None and now_s - fetched.used_s > unread_s:
                    lane.drop(source)


def stalled(topic: str, partition: int, offset: int, seconds: float) -> LogStalled:
    """A transaction that is open for too long."""
    return LogStalled(
        f"{topic}, partition {partition}: a transaction that is open for {seconds:.0f} s hides everything from offset "
        f"{offset} on; find it with kafka-transactions.sh, abort it, and set transaction.max.timeout.ms to 15000"
    )
