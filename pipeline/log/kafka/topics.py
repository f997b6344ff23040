"""Topics on the cluster: making them as a ledger needs them, refusing unfit ones, noticing that one was replaced.

A topic's identity is its UUID, remembered at first sight: one that was deleted and made again is empty or another's,
and offsets that were read before mean nothing in it.
"""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicDescription,
)

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.errors import ConfigError, HauptbuchError, Retryable, TaskDiverged
from pipeline.log.kafka.faults import MISSING, error_in, refusal
from pipeline.log.kafka.settings import BATCH_HEADROOM, Scalar

_REQUEST_S: Final = 15.0
_LEADERS_S: Final = 30.0
_LOOK_S: Final = 5.0
_HEARD_S: Final = 1.0
"""All brokers have heard of a new topic by then, so that one that does not know it lost it."""
_PAUSE_S: Final = 0.02
_REPLICAS: Final = 3
_FOREVER: Final = MappingProxyType(
    {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "unclean.leader.election.enable": "false",
    }
)
_FROM_OUTSIDE: Final = frozenset({Topic.TRANSACTIONS})
"""Whoever may write there sends batches as large as he likes in a few kilobytes: 110 MiB of zeros are 3.5 KB of zstd,
and the broker measures what arrives. Only where it unpacks them does it refuse those that no client could read."""
_WHY: Final = "history must stay whole, so that it can be audited"


@dataclass(frozen=True, slots=True)
class _Known:
    """A topic as it was first seen."""

    uuid: str
    partitions: int


class TopicCatalog:
    """Topics of one prefix. Safe to share between threads."""

    def __init__(self, settings: dict[str, Scalar], prefix: str, max_message_bytes: int) -> None:
        """Asks nothing yet."""
        self._admin = AdminClient(settings)
        self._prefix = prefix
        self._batch_bytes = max_message_bytes + BATCH_HEADROOM
        self._known: dict[Topic, _Known] = {}
        self._lock = threading.Lock()
        self._looking: Mapping[str, Future[TopicDescription]] = {}
        self._looked_s = 0.0
        self._replaced: TaskDiverged | None = None
        self._unseen: dict[Topic, float] = {}

    def name(self, topic: Topic) -> str:
        """Name on the cluster."""
        return f"{self._prefix}.{topic.topic_name}"

    def name_of(self, source: TopicPartition) -> str:
        """Name on the cluster of a partition's topic."""
        return self.name(source.topic)

    def create(self, topic: Topic, partitions: int) -> None:
        """As the port. Raises `ConfigError` for an existing topic that is unfit, with the reason."""
        found = self.partitions(topic)
        if not found:
            self._create(topic, partitions)
            found = self._await_leaders(topic)
        if found != partitions:
            raise ConfigError(f"{self.name(topic)} has {found} partitions, not {partitions}: a count never changes")
        self._check_settings(topic)

    def partitions(self, topic: Topic) -> int:
        """As the port; asks the cluster until the topic is there."""
        if self._replaced is not None:
            raise self._replaced
        known = self._known.get(topic)
        if known is None:
            with self._lock:
                self._remember(topic, self._describe(topic))
                known = self._known.get(topic)
        return 0 if known is None else known.partitions

    def require(self, source: TopicPartition) -> None:
        """Raise `ConfigError` unless the partition exists."""
        if not 0 <= source.partition < self.partitions(source.topic):
            raise ConfigError(
                f"{source.topic.topic_name} has no partition {source.partition}: create the topic with enough "
                "partitions"
            )

    def verify(self) -> None:
        """Ask whether every topic that was seen is still the same one. Raises `TaskDiverged`, `Retryable`."""
        with self._lock:
            for topic in list(self._known):
                while not self._compare(topic, self._describe(topic)):
                    time.sleep(_PAUSE_S)
        if self._replaced is not None:
            raise self._replaced

    def look(self, now_s: float) -> None:
        """`verify` now and then without waiting: what is found is raised by the next use of a topic."""
        if now_s - self._looked_s < _LOOK_S or not self._known or not self._lock.acquire(blocking=False):
            return
        try:
            if not self._looking:
                names = [self.name(topic) for topic in self._known]
                self._looking = self._admin.describe_topics(TopicCollection(names), request_timeout=_REQUEST_S)
            elif all(future.done() for future in self._looking.values()):
                looking, self._looking, self._looked_s = self._looking, {}, now_s
                for topic in list(self._known):
                    future = looking.get(self.name(topic))
                    if future is not None:
                        self._compare(topic, _described(future, 0, self.name(topic)))
        except Retryable:
            pass  # the brokers are away; the next look will tell
        finally:
            self._lock.release()

    def missing(self) -> HauptbuchError:
        """What it means that a client finds a partition gone."""
        try:
            self.verify()
        except (TaskDiverged, Retryable, ConfigError) as error:
            return error
        return Retryable("Kafka says that a topic is missing which is there: try again")

    def _create(self, topic: Topic, partitions: int) -> None:
        if not 1 <= partitions <= 0xFFFF:
            raise ConfigError(f"{topic.topic_name} can't have {partitions} partitions: 1 to {0xFFFF}")
        try:
            brokers = len(self._admin.describe_cluster(request_timeout=_REQUEST_S).result(_REQUEST_S).nodes)
            replicas = min(_REPLICAS, brokers)
            settings = {
                **_FOREVER,
                "min.insync.replicas": str(max(1, replicas - 1)),
                "max.message.bytes": str(self._batch_bytes),
                "message.timestamp.type": "CreateTime",
                # No rule reads a record's timestamp, so that no clock, wherever it stands, is a reason to refuse one.
                "message.timestamp.after.max.ms": str(2**63 - 1),
                "compression.type": "uncompressed" if topic in _FROM_OUTSIDE else "producer",
            }
            new = NewTopic(self.name(topic), partitions, replicas, config=settings)
            self._admin.create_topics([new], request_timeout=_REQUEST_S)[new.topic].result(_REQUEST_S)
        except KafkaException as exception:
            error = error_in(exception)
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was quicker
                raise _unanswered(error, self.name(topic)) from None
        except TimeoutError:
            raise _silent() from None

    def _await_leaders(self, topic: Topic) -> int:
        deadline = time.monotonic() + _LEADERS_S
        while True:
            described = self._describe(topic)
            if described is not None and all(item.leader is not None for item in described.partitions):
                self._remember(topic, described)
                return self.partitions(topic)
            if time.monotonic() > deadline:
                raise Retryable(f"{self.name(topic)} has partitions without a leader: are enough brokers up?")
            time.sleep(_PAUSE_S)

    def _check_settings(self, topic: Topic) -> None:
        entries = self._settings_of(topic)
        for setting, wanted in _FOREVER.items():
            found = entries[setting].value
            if found != wanted:
                raise ConfigError(f"{self.name(topic)} has {setting}={found}, not {wanted}: {_WHY}; set it")
        if topic in _FROM_OUTSIDE and entries["compression.type"].value != "uncompressed":
            raise ConfigError(
                f"{self.name(topic)} has compression.type={entries['compression.type'].value}, not uncompressed: "
                "a small batch could unpack to more than any reader takes; set it"
            )
        if int(entries["max.message.bytes"].value) < self._batch_bytes:
            raise ConfigError(
                f"{self.name(topic)} has max.message.bytes={entries['max.message.bytes'].value}: records of this chain "
                f"need {self._batch_bytes}; raise it"
            )

    def _settings_of(self, topic: Topic) -> Mapping[str, Any]:
        """Whichever broker is asked; it may hear of a new topic later than the one that described it."""
        resource = ConfigResource(ResourceType.TOPIC, self.name(topic))
        deadline = time.monotonic() + _LEADERS_S
        while True:
            try:
                asked = self._admin.describe_configs([resource], request_timeout=_REQUEST_S)[resource]
                entries: dict[str, Any] = asked.result(_REQUEST_S)
            except KafkaException as exception:
                error = error_in(exception)
                if error.code() not in MISSING or time.monotonic() > deadline:
                    raise _unanswered(error, self.name(topic)) from None
                time.sleep(_PAUSE_S)
            except TimeoutError:
                raise _silent() from None
            else:
                return entries

    def _describe(self, topic: Topic) -> TopicDescription | None:
        name = self.name(topic)
        asked = self._admin.describe_topics(TopicCollection([name]), request_timeout=_REQUEST_S)
        return _described(asked[name], _REQUEST_S, name)

    def _remember(self, topic: Topic, described: TopicDescription | None) -> None:
        if described is not None and described.partitions:
            self._known.setdefault(topic, _Known(str(described.topic_id), len(described.partitions)))

    def _compare(self, topic: Topic, described: TopicDescription | None) -> bool:
        """False while it can't be told yet: the broker that was asked may not have heard of a new topic."""
        known = self._known[topic]
        if described is not None:
            self._unseen.pop(topic, None)
        if described is None:
            now_s = time.monotonic()
            if now_s - self._unseen.setdefault(topic, now_s) < _HEARD_S:
                return False
            what = "was deleted"
        elif str(described.topic_id) != known.uuid:
            what = "was deleted and made again"
        elif len(described.partitions) != known.partitions:
            what = f"has {len(described.partitions)} partitions instead of {known.partitions}"
        else:
            return True
        self._replaced = TaskDiverged(f"{self.name(topic)} {what}: restore the cluster that holds this chain's history")
        return True


def _described(future: "Future[Any]", timeout_s: float, name: str) -> TopicDescription | None:
    """None where the topic does not exist."""
    try:
        description: TopicDescription = future.result(timeout_s)
    except KafkaException as exception:
        error = error_in(exception)
        if error.code() in MISSING:
            return None
        raise _unanswered(error, name) from None
    except TimeoutError:
        raise _silent() from None
    return description


def _unanswered(error: KafkaError, name: str) -> HauptbuchError:
    return refusal(error, name) or Retryable(f"Kafka does not do what it was asked: {error.str()}; are the brokers up?")


def _silent() -> Retryable:
    return Retryable(f"no answer from Kafka in {_REQUEST_S:.0f} s: are the brokers up?")
