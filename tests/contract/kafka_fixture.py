"""A real broker for tests: the one of HAUPTBUCH_TEST_KAFKA, else a container, else one started natively here."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient

from deploy.kafka.cluster import KafkaCluster
from pipeline.config import KafkaConfig
from pipeline.log.kafka import KafkaLog
from pipeline.log.port import TopicPartition

ENVIRONMENT = "HAUPTBUCH_TEST_KAFKA"
IMAGE = "apache/kafka:4.3.1"


@contextmanager
def broker(directory: Path) -> Iterator["Kafka"]:
    """What was started here ends here."""
    given = os.environ.get(ENVIRONMENT)
    if given or has_container_engine():
        os.environ.setdefault("HAUPTBUCH_KAFKA__INSECURE", "true")  # it may be elsewhere, and is there to be tested on
    if given:
        yield Kafka(given)
    elif has_container_engine():
        from testcontainers.kafka import KafkaContainer  # noqa: PLC0415 - only where an engine answers

        with KafkaContainer(IMAGE).with_kraft() as container:
            yield Kafka(container.get_bootstrap_server())
    else:
        cluster = KafkaCluster.create(directory, 1)
        try:
            cluster.start()
            yield Kafka(cluster.bootstrap, cluster)
        finally:
            cluster.remove()


def has_container_engine() -> bool:
    try:
        import docker  # noqa: PLC0415 - optional

        client = docker.from_env(timeout=2)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except Exception:  # noqa: BLE001 - whatever is wrong with it, there is no engine to use
        return False


class Kafka:
    """The broker, and clients that play strangers."""

    def __init__(self, bootstrap: str, cluster: KafkaCluster | None = None) -> None:
        self.bootstrap = bootstrap
        self._cluster = cluster
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def new_prefix(self) -> str:
        """Of topics that nobody else has."""
        return f"t-{uuid4().hex[:12]}"

    def log(self, prefix: str, **options: float) -> KafkaLog:
        return KafkaLog(KafkaConfig(bootstrap=self.bootstrap), prefix, **options)  # type: ignore[arg-type]

    def delete(self, prefix: str, source: TopicPartition) -> None:
        name = f"{prefix}.{source.topic.topic_name}"
        self.admin.delete_topics([name])[name].result(30)

    def delete_records(self, prefix: str, source: TopicPartition, before: int) -> None:
        place = Place(f"{prefix}.{source.topic.topic_name}", source.partition, before)
        self.admin.delete_records([place])[place].result(30)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The broker answers nobody meanwhile."""
        if self._cluster is None:
            pytest.skip("only a broker that was started here can be frozen")
        self._cluster.signal_broker(1, signal.SIGSTOP)
        try:
            yield
        finally:
            self._cluster.signal_broker(1, signal.SIGCONT)

    def transactional(self, writer_id: str, timeout_ms: int = 10_000) -> Producer:
        """A stranger's producer, its transactions opened by hand."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "transactional.id": writer_id,
                "transaction.timeout.ms": timeout_ms,
                "message.timeout.ms": timeout_ms - 1,
                "linger.ms": 0,
                "retry.backoff.ms": 1,
                "retry.backoff.max.ms": 5,
            }
        )
        producer.init_transactions(30)
        return producer
