"""A consumer, assigned by hand, and a window for each partition that it fetches.

Not for two threads at once; `reader` holds the lock. An error that concerns one partition waits at its window for the
next read of that partition. Losing and moving a position is left to the client's own barrier: what it had fetched for
an older position never arrives.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Place

from pipeline.codec.topics import LogRecord, TopicPartition
from pipeline.errors import HauptbuchError, Retryable, TaskDiverged
from pipeline.log.kafka.faults import MISSING, OUT_OF_RANGE, error_in, read_fault, refusal
from pipeline.log.kafka.settings import Settings
from pipeline.log.kafka.window import Window

_BATCH: Final = 4_096
_LEAST_POLL_S: Final = 0.001
"""The client counts in whole milliseconds: asked to wait for less, it does not wait at all."""


@dataclass(slots=True)
class Fetched:
    """A partition that the lane fetches. Times are of the monotonic clock, in seconds."""

    place: Place
    window: Window
    owed: int
    """[] may be said only where `window.high` reached this offset: all below it was committed or aborted."""
    sure_at: int
    """The reader's count of events when `owed` was asked for."""
    used_s: float
    asked_s: float
    """When `owed` was asked for."""
    awaited_at: int = -1
    """Where the window stood when what is owed was not there, and since when."""
    awaited_s: float = field(default=0.0)
    paused: bool = False
    error: HauptbuchError | None = None
    """Why nothing more is taken in: the client goes on behind what it can't read, and nobody may follow it there."""
    is_outdated: bool = False
    """Whether the client may know less of the topic than others do."""
    stuck_at: int = -1
    """Where an open transaction stopped the window, and since when."""
    stuck_s: float = field(default=0.0)
    watched_s: float = field(default=0.0)
    """When that was looked at."""


class Lane:
    """Fetches some partitions."""

    def __init__(
        self, settings: Settings, name_of: Callable[[TopicPartition], str], missing: Callable[[], HauptbuchError]
    ) -> None:
        """`name_of`: the topic's name on the cluster. `missing` says what a partition that is gone means."""
        self._settings = settings
        self._consumer = Consumer(settings)
        self._name_of = name_of
        self._missing = missing
        self._fetched: dict[TopicPartition, Fetched] = {}
        self._by_place: dict[tuple[str, int], Fetched] = {}
        self._refused: HauptbuchError | None = None
        self.records = 0
        """How many records have arrived here."""
        self.pumped_s = 0.0
        """When what had arrived was taken in last."""

    def get(self, source: TopicPartition) -> Fetched | None:
        """The partition, where it is fetched."""
        return self._fetched.get(source)

    @property
    def sources(self) -> list[TopicPartition]:
        """What is fetched."""
        return list(self._fetched)

    def bounds(self, source: TopicPartition, timeout_s: float) -> tuple[int, int]:
        """(first offset that is kept, last stable offset) as of now. Raises `Retryable`, `ConfigError`."""
        place = Place(self._name_of(source), source.partition)
        try:
            bounds = self._consumer.get_watermark_offsets(place, timeout_s, cached=False)
        except KafkaException as exception:
            raise self._unanswered(exception, source) from None
        assert bounds is not None, "the client raises where there is no answer"
        self._refused = None
        return bounds

    def high_watermark(self, source: TopicPartition) -> int:
        """As of the last fetch of this partition; asks nobody. Below 0 where nothing was fetched."""
        bounds = self._consumer.get_watermark_offsets(self._fetched[source].place, cached=True)
        return -1 if bounds is None else bounds[1]

    def fetch(self, source: TopicPartition, start: int, owed: int, sure_at: int, now_s: float) -> Fetched:
        """Fetch `source` from `start` on, wherever it stood before."""
        self.drop(source)
        place = Place(self._name_of(source), source.partition, start)
        self._consumer.incremental_assign([place])
        fetched = Fetched(place, Window(start), owed, sure_at, now_s, now_s)
        self._fetched[source] = self._by_place[place.topic, place.partition] = fetched
        return fetched

    def drop(self, source: TopicPartition) -> None:
        """Fetch it no longer."""
        fetched = self._fetched.pop(source, None)
        if fetched is None:
            return
        del self._by_place[fetched.place.topic, fetched.place.partition]
        self._consumer.incremental_unassign([fetched.place])

    def renew(self) -> None:
        """Fetch nothing any more, with a new client: whoever reads on begins anew."""
        # In a thread of its own, since one whose brokers are away takes its time to go.
        threading.Thread(target=self._consumer.close, daemon=True).start()
        self._consumer = Consumer(self._settings)
        self._refused = None
        self._fetched.clear()
        self._by_place.clear()

    def pump(self, timeout_s: float) -> bool:
        """Take in what has arrived, after waiting up to `timeout_s` for the first of it. Whether there was anything.

        A batch is taken in two calls, since one call waits for all of the batch or all of the time.
        """
        arrived: list[Message] = []
        if timeout_s > 0:
            first = self._consumer.poll(max(timeout_s, _LEAST_POLL_S))
            if first is not None:
                arrived.append(first)
        if arrived or timeout_s <= 0:
            arrived += self._consumer.consume(_BATCH, 0)
        self.pumped_s = time.monotonic()
        if not arrived:
            return False
        by_place = self._by_place
        new = tuple.__new__  # what LogRecord() ends in, without its Python frame
        before = self.records
        for message in arrived:
            error = message.error()
            fetched = by_place.get((message.topic(), message.partition()))  # type: ignore[arg-type]
            if error is not None:
                self._note(error, message.offset(), fetched)
            elif fetched is not None and fetched.error is None:
                fetched.window.add(new(LogRecord, (message.offset(), message.key(), message.value())))
                self.records += 1
        if self.records > before:
            self._refused = None
            self._pause_full()
        return True

    def resume(self, fetched: Fetched) -> None:
        """Fetch on where there is room again."""
        if fetched.paused and not fetched.window.is_full:
            self._consumer.resume([fetched.place])
            fetched.paused = False

    def close(self) -> None:
        """Idempotent."""
        with contextlib.suppress(RuntimeError):  # closed already
            self._consumer.close()
        self._fetched.clear()
        self._by_place.clear()

    def _pause_full(self) -> None:
        full = [item for item in self._fetched.values() if not item.paused and item.window.is_full]
        if full:
            self._consumer.pause([item.place for item in full])
        for item in full:
            item.paused = True

    def _note(self, error: KafkaError, offset: int | None, fetched: Fetched | None) -> None:
        if fetched is None:
            self._refused = refusal(error) or self._refused
            return  # about brokers; the client tries again
        if fetched.error is not None:
            return  # the first one says why; the partition is fetched anew
        where = f"{fetched.place.topic}, partition {fetched.place.partition}"
        if error.code() == KafkaError._PARTITION_EOF:
            assert offset is not None, "the end of a partition has an offset"
            fetched.window.reach(offset)
        elif error.code() in OUT_OF_RANGE:
            fetched.error = TaskDiverged(
                f"{where}: offset {fetched.window.high} is not on the log: it was cut or replaced; restore it"
            )
        elif error.code() in MISSING:
            fetched.error, fetched.is_outdated = self._missing(), True
        else:
            fetched.error = read_fault(error, where)

    def _unanswered(self, exception: KafkaException, source: TopicPartition) -> HauptbuchError:
        error = error_in(exception)
        if error.code() in MISSING:
            return self._missing()
        where = f"{self._name_of(source)}, partition {source.partition}"
        return (
            refusal(error, where)
            or self._refused
            or Retryable(f"{where}: no answer from Kafka: {error.str()}; are the brokers up?")
        )
