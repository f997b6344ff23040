"""The event log on a Kafka cluster: `EventLog` over confluent-kafka.

A topic is named `<prefix>.<topic>`. Reads are committed reads of consumers that fetch ahead (`reader`), writers are
transactional producers (`writer`), ends are high watermarks, asked of a consumer that does not isolate. One cluster
can hold several chains under several prefixes.

Calls that ask the cluster wait for it: `writer` typically some 50 ms (15 s at most), `append` a round trip,
`end_offset` a millisecond, `read` only as `reader` says, `begin_commit` and `poll_commit` never.
"""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as Place

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.config import KafkaConfig
from pipeline.errors import ConfigError, Fatal, HauptbuchError, Retryable
from pipeline.log.kafka.faults import MISSING, error_in, refusal, usable_settings
from pipeline.log.kafka.patience import REQUEST_S, Patience
from pipeline.log.kafka.producing import KafkaDelivery, PlainProducer
from pipeline.log.kafka.reader import Reader, stalled
from pipeline.log.kafka.settings import admin_settings, consumer_settings, producer_settings, writer_settings
from pipeline.log.kafka.topics import TopicCatalog
from pipeline.log.kafka.uncommitted import read_uncommitted
from pipeline.log.kafka.writer import KafkaWriter
from pipeline.log.port import Append

_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_SETTLE_S: Final = 0.2
_PAUSE_S: Final = 0.002
_JOIN_S: Final = 5.0
_METER_S: Final = 5.0
"""A client that asks for ends and gets no answer is not replaced more often."""

DEFAULT_MAX_MESSAGE_BYTES: Final = 1 << 20
DEFAULT_STALL_S: Final = 30.0
"""Above the brokers' transaction.max.timeout.ms (15 s) and the pause between their sweeps (10 s by default)."""


class KafkaLog:
    """`EventLog` on the cluster of `config`.

    `max_message_bytes` bounds key + value of a record. An open transaction that hides records for longer than
    `stall_s` is an error. `patience_s`: how long a partition's answer is waited for before it is asked for in another
    thread (`patience`), for whoever has more to do than to wait. Raises `ConfigError` for a prefix or setting that
    can't be.
    """

    def __init__(
        self,
        config: KafkaConfig,
        prefix: str,
        *,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        stall_s: float = DEFAULT_STALL_S,
        patience_s: float = REQUEST_S,
    ) -> None:
        """Connects when first asked."""
        if not config.bootstrap:
            raise ConfigError("kafka.bootstrap is not set: give host:port of some brokers")
        if not _PREFIX.fullmatch(prefix):
            raise ConfigError(f"{prefix!r:.80} can't begin a topic's name: use letters, digits, '.', '_', '-'")
        self._config = config
        self._max_message_bytes = max_message_bytes
        self._stall_s = stall_s
        group = f"{prefix}-reader"
        with usable_settings(config.hide):
            self._topics = TopicCatalog(admin_settings(config), prefix, max_message_bytes)
            self._meter_settings = consumer_settings(config, group, committed=False)
            self._meter = Consumer(self._meter_settings)
            self._metered_s = time.monotonic()
            self._ends = Patience(self._high_watermark, patience_s)
            self._reader = Reader(
                consumer_settings(config, group, committed=True),
                self._topics.name_of,
                self._topics.missing,
                self._end,
                Patience(self._high_watermark, patience_s),
                stall_s,
            )
            self._producer = PlainProducer(producer_settings(config, max_message_bytes), self._topics.name_of)
        self._writers: dict[str, KafkaWriter] = {}
        self._given_up: list[KafkaWriter] = []
        self._writers_lock = threading.Lock()
        self._unsettled: dict[TopicPartition, tuple[int, float]] = {}
        self._closed = False

    def create_topic(self, topic: Topic, partitions: int) -> None:
        """As the port. Raises `ConfigError` too where an existing topic could lose history or refuse records."""
        self._check_open()
        if not 1 <= partitions <= 0xFFFF:
            raise ConfigError(f"{topic.topic_name} can't have {partitions} partitions: 1 to {0xFFFF}")
        self._topics.create(topic, partitions)

    def partitions(self, topic: Topic) -> int:
        """As the port."""
        self._check_open()
        return self._topics.partitions(topic)

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        """As the port."""
        self._check_open()
        self._topics.look(time.monotonic())  # whoever is busy never waits
        self._topics.require(source)
        return self._reader.read(source, start, max_records, max_bytes)

    def read_uncommitted(self, source: TopicPartition, start: int) -> Iterator[LogRecord]:
        """As the port, over a client of its own."""
        self._check_open()
        self._topics.require(source)
        return read_uncommitted(self._meter_settings, self._topics.name_of, self._topics.missing, source, start)

    def end_offset(self, source: TopicPartition) -> int:
        """As the port: the high watermark."""
        self._check_open()
        self._topics.require(source)
        end = self._end(source)
        self._reader.told_end(source, end)
        return end

    def stable_end(self, source: TopicPartition) -> int:
        """The last stable offset: committed reads end before it, since a transaction is open there, or at the end.

        Raises as `end_offset`.
        """
        self._check_open()
        self._topics.require(source)
        return self._reader.stable_end(source)

    def settle(self, source: TopicPartition) -> None:
        """As the port."""
        self._check_open()
        self._topics.require(source)
        end = self._end(source)  # first, since it is where a partition's silence is known
        self._topics.verify()
        started = time.monotonic()
        while (stable := self._reader.stable_end(source)) < end:
            now = time.monotonic()
            if now - started > _SETTLE_S:
                raise self._still_open(source, stable, now)
            time.sleep(_PAUSE_S)
        self._unsettled.pop(source, None)
        self._reader.told_end(source, end)

    def append(self, appends: Sequence[Append]) -> list[int]:
        """As the port, except that a call that fails halfway may have appended some."""
        self._check_open()
        self._check_appends(appends)
        return self._producer.append(appends)

    def begin_append(self, appends: Sequence[Append]) -> KafkaDelivery:
        """As `append`, without waiting for the brokers, unless the client holds all that it may."""
        self._check_open()
        self._check_appends(appends)
        return self._producer.begin(appends)

    def writer(self, writer_id: str) -> KafkaWriter:
        """As the port; checks that the topics are still the same ones. Raises `ConfigError` for an empty id."""
        writer = self.begin_writer(writer_id)
        writer.await_open()
        return writer

    def begin_writer(self, writer_id: str) -> KafkaWriter:
        """As the port; checks that the topics are still the same ones. Raises `ConfigError` for an empty id."""
        self._check_open()
        if not writer_id:
            raise ConfigError("a writer needs an id: give one that stays the same over restarts")
        settings = writer_settings(self._config, self._max_message_bytes, writer_id)
        with self._writers_lock:
            older = self._writers.pop(writer_id, None)
            if older is not None:
                older.supersede()
                self._given_up = [*(item for item in self._given_up if item.is_alive), older]
            writer = KafkaWriter(settings, writer_id, self._check_appends, self._topics.name_of, self._fenced, older)
            self._writers[writer_id] = writer
        return writer

    def _fenced(self) -> None:
        self._reader.fenced()
        self._topics.verify()

    def wait(self, timeout_ms: int) -> None:
        """As the port; returns too when a transaction of this log came to its end."""
        self._check_open()
        self._topics.look(time.monotonic())
        self._reader.wait(timeout_ms / 1000, self._is_due, self._is_busy)

    def close(self) -> None:
        """As the port."""
        if self._closed:
            return
        self._closed = True
        writers = [*self._writers.values(), *self._given_up]
        for writer in writers:
            writer.close()
        is_asking = self._ends.is_probing or self._reader.is_probing
        self._reader.close()
        if not is_asking:  # else it goes when that thread has its answer
            self._meter.close()
        self._producer.close()
        for writer in writers:
            writer.join(_JOIN_S)

    def _is_due(self) -> bool:
        return any(writer.is_due for writer in list(self._writers.values()))

    def _is_busy(self) -> bool:
        return any(writer.is_busy for writer in list(self._writers.values()))

    def _still_open(self, source: TopicPartition, stable: int, now: float) -> HauptbuchError:
        known = self._unsettled.get(source)
        if known is None or known[0] != stable:
            known = self._unsettled[source] = stable, now
        name = self._topics.name_of(source)
        if now - known[1] > self._stall_s:
            return stalled(name, source.partition, stable, now - known[1])
        return Retryable(f"{name}, partition {source.partition}: a transaction is open at offset {stable}; waiting")

    def _end(self, source: TopicPartition) -> int:
        return self._ends.ask(source, partial(self._high_watermark, source))

    def _high_watermark(self, source: TopicPartition, timeout_s: float = REQUEST_S) -> int:
        name = self._topics.name_of(source)
        try:
            bounds = self._meter.get_watermark_offsets(Place(name, source.partition), timeout_s, cached=False)
        except KafkaException as exception:
            if timeout_s >= REQUEST_S:
                self._renew_meter()
            error = error_in(exception)
            if error.code() in MISSING:
                raise self._topics.missing() from None
            raise refusal(error, name) or Retryable(
                f"{name}, partition {source.partition}: no answer from Kafka: {error.str()}; are the brokers up?"
            ) from None
        assert bounds is not None, "the client raises where there is no answer"
        return bounds[1]

    def _renew_meter(self) -> None:
        """One that did not answer may go on so for ever, when a broker that it knew is gone. The old one is not closed
        here, since other threads may be asking it: it goes when they have their answers."""
        now_s = time.monotonic()
        if now_s - self._metered_s > _METER_S:
            self._metered_s, self._meter = now_s, Consumer(self._meter_settings)

    def _check_appends(self, appends: Sequence[Append]) -> None:
        """Refuse before anything is sent. Raises `ConfigError`, `TaskDiverged`."""
        limit = self._max_message_bytes
        for target in {target for target, _, _ in appends}:
            self._topics.require(target)
        for target, key, value in appends:
            size = (len(key) if key else 0) + (len(value) if value else 0)
            if size > limit:
                raise ConfigError(
                    f"a record of {size} bytes for {target.topic.topic_name} is over the limit of {limit}: "
                    "send smaller ones, or raise max_message_bytes"
                )

    def _check_open(self) -> None:
        if self._closed:
            raise Fatal("the log is closed: open it again")
