"""Appending outside transactions: one idempotent producer for all threads."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.codec.topics import TopicPartition
from pipeline.errors import ConfigError, OutcomeUnknown
from pipeline.log.kafka.faults import error_in, plain_errors, refusal
from pipeline.log.kafka.settings import MESSAGE_TIMEOUT_MS, Settings
from pipeline.log.port import Append

_SLICE_S: Final = 0.005
"""Another thread's poll may serve this one's reports, which then hears of them this much later."""
_DELIVERY_S: Final = MESSAGE_TIMEOUT_MS / 1000 + 2


class _Delivery:
    """Reports of one call."""

    __slots__ = ("error", "failed", "left", "lock", "offsets")

    def __init__(self, count: int) -> None:
        self.offsets = [-1] * count
        self.left = count
        self.error: KafkaError | None = None
        self.failed: Message | None = None
        self.lock = threading.Lock()

    def report(self, index: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.error, self.failed = (
                error,
                message,
            )  # no call: the client may have an exception set, which it would lose
        else:
            offset = message.offset()
            assert offset is not None, "a delivered record has an offset"
            self.offsets[index] = offset
        with self.lock:
            self.left -= 1


class PlainProducer:
    """Appends and waits for the reports."""

    def __init__(self, settings: Settings, name_of: Callable[[TopicPartition], str]) -> None:
        """Makes its client when it is first used: an idempotent one asks at once for what only writers are granted."""
        self._settings = settings
        self._producer: Producer | None = None
        self._lock = threading.Lock()
        self._name_of = name_of

    def append(self, appends: Sequence[Append]) -> list[int]:
        """Offsets of records that the cluster holds on all in-sync replicas.

        Raises `OutcomeUnknown` where some may not have made it, `ConfigError` where the cluster refuses this client.
        """
        delivery = _Delivery(len(appends))
        producer = self._client()
        try:
            with plain_errors():
                self._send(producer, appends, delivery)
        except KafkaException as exception:
            self._give_up(producer)  # it will do nothing any more
            error = error_in(exception)
            raise refusal(error) or OutcomeUnknown(f"Kafka did not confirm every record: {error.str()}") from None
        if delivery.error is not None:
            assert delivery.failed is not None, "an error comes with its record"
            # One that heard of a partition without a leader may never send to it again (librdkafka#5430).
            self._give_up(producer)
            refused = refusal(delivery.error, delivery.failed.topic() or "")
            raise refused or OutcomeUnknown(f"Kafka did not confirm every record: {delivery.error.str()}")
        return delivery.offsets

    def _send(self, producer: Producer, appends: Sequence[Append], delivery: _Delivery) -> None:
        """Until all reports are there."""
        deadline = time.monotonic() + _DELIVERY_S
        for index, (target, key, value) in enumerate(appends):
            topic, report = self._name_of(target), partial(delivery.report, index)
            while True:
                try:
                    producer.produce(topic, value, key, target.partition, on_delivery=report)
                except BufferError:  # full: other calls wait for the same brokers
                    producer.poll(_SLICE_S)
                    if time.monotonic() < deadline:
                        continue
                    raise OutcomeUnknown(f"Kafka took {index} of {len(appends)} records in time") from None
                break
        while delivery.left:
            producer.poll(_SLICE_S)
            if time.monotonic() > deadline:
                raise OutcomeUnknown(f"Kafka did not confirm {delivery.left} of {len(appends)} records in time")

    def close(self) -> None:
        """Every call has its reports by now, or was given up."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.close()

    def _give_up(self, producer: Producer) -> None:
        with self._lock:
            if self._producer is producer:
                self._producer = None

    def _client(self) -> Producer:
        """Raises `ConfigError` for settings that can't be."""
        with self._lock:
            if self._producer is None:
                try:
                    self._producer = Producer(self._settings)
                except KafkaException as exception:
                    raise ConfigError(f"librdkafka refuses its settings: {error_in(exception).str()}") from None
            return self._producer
