"""Appending outside transactions: one idempotent producer for all threads."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.codec.topics import TopicPartition
from pipeline.errors import HauptbuchError, OutcomeUnknown
from pipeline.log.kafka.faults import error_in, plain_errors, refusal, usable_settings
from pipeline.log.kafka.settings import MESSAGE_TIMEOUT_MS, Settings
from pipeline.log.port import Append

_SLICE_S: Final = 0.005
"""Another thread's poll may serve this one's reports, which then hears of them this much later."""
_DELIVERY_S: Final = MESSAGE_TIMEOUT_MS / 1000 + 2


class KafkaDelivery:
    """`Delivery` of one call; made by `PlainProducer.begin`."""

    __slots__ = ("_deadline", "_errors", "_failed", "_left", "_lock", "_offsets", "_owner", "_producer")

    def __init__(self, owner: "PlainProducer", producer: Producer, count: int) -> None:
        """Nothing is sent yet."""
        self._owner = owner
        self._producer = producer
        self._offsets = [-1] * count
        self._left = count
        self._errors: dict[int, KafkaError] = {}
        self._failed: Message | None = None
        self._lock = threading.Lock()
        self._deadline = time.monotonic() + _DELIVERY_S

    def poll(self) -> list[int] | None:
        """As the port."""
        return self.await_for(0)

    def await_for(self, slice_s: float) -> list[int] | None:
        """As `poll`, after waiting for reports so long."""
        if self._left:
            try:
                with plain_errors():
                    self._producer.poll(slice_s)
            except KafkaException as exception:
                raise self._broken(exception) from None
        if self._left:
            if time.monotonic() > self._deadline:
                raise OutcomeUnknown(f"Kafka did not confirm {self._left} of {len(self._offsets)} records in time")
            return None
        if self._errors:
            assert self._failed is not None, "an error comes with its record"
            # One that heard of a partition without a leader may never send to it again (librdkafka#5430).
            self._owner.give_up(self._producer)
            error = next(reversed(self._errors.values()))
            refused = refusal(error, self._failed.topic() or "")
            if refused is not None and max(self._offsets) < 0 and all(map(refusal, self._errors.values())):
                raise refused  # as the port promises of it: nothing of this call is on the log
            raise OutcomeUnknown(f"Kafka did not confirm every record: {refused or error.str()}")
        return self._offsets

    def send(self, appends: Sequence[Append], name_of: Callable[[TopicPartition], str]) -> None:
        """Hand over all records. Raises as `poll`."""
        produce = self._producer.produce
        try:
            with plain_errors():
                for index, (target, key, value) in enumerate(appends):
                    topic, report = name_of(target), partial(self._report, index)
                    while True:
                        try:
                            produce(topic, value, key, target.partition, on_delivery=report)
                        except BufferError:  # full: other calls wait for the same brokers
                            self._producer.poll(_SLICE_S)
                            if time.monotonic() < self._deadline:
                                continue
                            raise OutcomeUnknown(f"Kafka took {index} of {len(appends)} records in time") from None
                        break
        except KafkaException as exception:
            raise self._broken(exception) from None

    def _broken(self, exception: KafkaException) -> HauptbuchError:
        self._owner.give_up(self._producer)  # it will do nothing any more
        error = error_in(exception)
        return refusal(error) or OutcomeUnknown(f"Kafka did not confirm every record: {error.str()}")

    def _report(self, index: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            # No call: the client may have an exception set, which it would lose.
            self._errors[index], self._failed = error, message
        else:
            offset = message.offset()
            assert offset is not None, "a delivered record has an offset"
            self._offsets[index] = offset
        with self._lock:
            self._left -= 1


class PlainProducer:
    """Appends, and hears of them by delivery reports."""

    def __init__(self, settings: Settings, name_of: Callable[[TopicPartition], str]) -> None:
        """Makes its client when it is first used: an idempotent one asks at once for what only writers are granted."""
        self._settings = settings
        self._producer: Producer | None = None
        self._lock = threading.Lock()
        self._name_of = name_of

    def append(self, appends: Sequence[Append]) -> list[int]:
        """Offsets of records that the cluster holds on all in-sync replicas. Raises as `begin`."""
        delivery = self.begin(appends)
        while (offsets := delivery.await_for(_SLICE_S)) is None:
            pass
        return offsets

    def begin(self, appends: Sequence[Append]) -> KafkaDelivery:
        """Hand the records over; waits only while as many as the client holds are on their way.

        Raises `OutcomeUnknown` where some may not have made it, `ConfigError` where the cluster refuses this client.
        """
        delivery = KafkaDelivery(self, self._client(), len(appends))
        delivery.send(appends, self._name_of)
        return delivery

    def close(self) -> None:
        """Every call has its reports by now, or was given up."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.close()

    def give_up(self, producer: Producer) -> None:
        """Use it no more."""
        with self._lock:
            if self._producer is producer:
                self._producer = None

    def _client(self) -> Producer:
        """Raises `ConfigError` for settings that can't be."""
        with self._lock:
            if self._producer is None:
                with usable_settings():
                    self._producer = Producer(self._settings)
            return self._producer
