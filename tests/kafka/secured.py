"""A secured cluster with a user for each role, and clients that try what their role does not allow."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from processes import Ledger

from deploy.kafka.cluster import KafkaCluster
from deploy.kafka.security import ADMINISTRATOR, settings_file
from pipeline.config import KafkaConfig, load_config

WAIT_S = 20.0
ALLOWED = "allowed"


def config_of(cluster: KafkaCluster, user: str) -> KafkaConfig:
    return load_config(settings_file(cluster.root, user)).kafka


def settle(answer: Callable[[], object], expected: object) -> None:
    """Brokers hear of new rules and passwords a moment after they are set."""
    deadline = time.monotonic() + WAIT_S
    while (got := answer()) != expected:
        assert time.monotonic() < deadline, f"{got} instead of {expected}"


class SecuredLedger(Ledger):
    """Every process and command runs as a user of its own."""

    def __init__(self, root: Path, cluster: KafkaCluster, *, shards: int) -> None:
        self._cluster = cluster
        self.user = ADMINISTRATOR
        super().__init__(root, cluster.bootstrap, shards=shards)

    def run(self, *arguments: object, code: int = 0, timeout_s: float = 120) -> str:
        return super().run(*arguments, "--config", self._settings(self.user), code=code, timeout_s=timeout_s)

    def run_as(self, user: str, *arguments: object, code: int = 0) -> str:
        self.user = user
        return self.run(*arguments, code=code)

    def start_as(self, user: str, command: str, *options: object) -> None:
        self.start(user, command, *options, "--config", self._settings(user))

    def _settings(self, user: str) -> Path:
        return settings_file(self._cluster.root, user)


class Intruder:
    """A user's credentials in the hands of a bare client, which asks for everything. Answers are `ALLOWED` or the
    name of the broker's error."""

    def __init__(self, config: KafkaConfig) -> None:
        self._settings: dict[str, Any] = {**config.client_settings(), "log_level": 0}
        self._admin = AdminClient(self._settings)

    def write(self, topics: Iterable[str]) -> dict[str, str]:
        """One record each, without a transaction and without an idempotent producer's id."""
        found: dict[str, str] = {}
        producer = Producer({**self._settings, "enable.idempotence": False, "message.timeout.ms": 10_000})
        for topic in topics:
            producer.produce(topic, b"x", partition=0, on_delivery=partial(_noted, found, topic))
        assert producer.flush(WAIT_S) == 0
        return found

    def read(self, topics: Iterable[str]) -> dict[str, str]:
        """The first record each."""
        found: dict[str, str] = {}
        for topic in topics:
            # One consumer a topic, since a refused one hides what others would answer.
            consumer = Consumer(
                {**self._settings, "group.id": "intruder", "enable.auto.commit": False, "auto.offset.reset": "error"}
            )
            # Of a topic that it may not even see the client would fetch nothing and say nothing.
            unseen = consumer.list_topics(topic, WAIT_S).topics[topic].error
            if unseen is not None:
                _note(found, topic, unseen)
            else:
                consumer.assign([Place(topic, 0, 0)])
            while topic not in found:
                message = consumer.poll(WAIT_S)
                assert message is not None, topic
                if message.error() is None or message.error().code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                    _note(found, topic, message.error())
            consumer.close()
        return found

    def open_writer(self, writer_id: str) -> str:
        """Fence whoever else has this id."""
        try:
            self._writer(writer_id)
        except KafkaException as exception:
            return str(exception.args[0].name())
        return ALLOWED

    def transact(self, writer_id: str, topics: Iterable[str]) -> dict[str, str]:
        """Commit a record to each topic, in a transaction of its own."""
        found: dict[str, str] = {}
        for topic in topics:
            delivered: dict[str, str] = {}
            producer = self._writer(writer_id)
            producer.begin_transaction()
            try:
                producer.produce(topic, b"x", partition=0, on_delivery=partial(_noted, delivered, topic))
                producer.commit_transaction(WAIT_S)
            except KafkaException as exception:
                _note(found, topic, exception.args[0])
                # For a topic that it may not see, the client says at the end only that something was not delivered.
                if exception.args[0].code() == KafkaError._INCONSISTENT:
                    found[topic] = delivered[topic]
            else:
                found[topic] = delivered[topic]
        return found

    def _writer(self, writer_id: str) -> Producer:
        settings = {"transactional.id": writer_id, "transaction.timeout.ms": 10_000, "retry.backoff.ms": 1}
        producer = Producer({**self._settings, **settings, "retry.backoff.max.ms": 5})
        producer.init_transactions(WAIT_S)
        return producer

    def join(self, group: str, topic: str) -> str:
        """Try to own partitions."""
        settings = {"group.id": group, "session.timeout.ms": 6_000, "enable.auto.commit": False}
        consumer = Consumer({**self._settings, **settings, "topic.metadata.refresh.interval.ms": 1_000})
        joined: list[bool] = []
        deadline = time.monotonic() + WAIT_S
        consumer.subscribe([topic], on_assign=lambda *_: joined.append(True))
        try:
            while not joined:
                message = consumer.poll(0.1)
                if message is not None and message.error() is not None:
                    return str(message.error().name())
                assert time.monotonic() < deadline, "neither in nor out"
            return ALLOWED
        finally:
            consumer.close()

    def administer(self, topic: str) -> dict[str, str]:
        """Whatever could harm a chain without writing a record."""
        admin, name = self._admin, f"t-{uuid4().hex[:8]}"
        changed = ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[ConfigEntry("retention.ms", "1", incremental_operation=AlterConfigOpType.SET)],
        )
        rule = AclBinding(
            ResourceType.TOPIC,
            topic,
            ResourcePatternType.LITERAL,
            "User:*",
            "*",
            AclOperation.ALL,
            AclPermissionType.ALLOW,
        )
        asked = {
            "create": admin.create_topics([NewTopic(name, 1, 1)]),
            "delete": admin.delete_topics([topic]),
            "cut": admin.delete_records([Place(topic, 0, 1)]),
            "grow": admin.create_partitions([NewPartitions(topic, 9)]),
            "alter": admin.incremental_alter_configs([changed]),
            "grant": admin.create_acls([rule]),
        }
        return {what: _answer(next(iter(futures.values()))) for what, futures in asked.items()}


def _noted(found: dict[str, str], topic: str, error: KafkaError | None, _: Message) -> None:
    _note(found, topic, error)


def _note(found: dict[str, str], topic: str, error: KafkaError | None) -> None:
    found[topic] = ALLOWED if error is None else error.name()


def _answer(future: Any) -> str:
    try:
        future.result(WAIT_S)
    except KafkaException as exception:
        return str(exception.args[0].name())
    return ALLOWED
