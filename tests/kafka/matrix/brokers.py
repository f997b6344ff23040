"""A native cluster for the fault matrix: a proxy before each broker, copies of its disks, and strangers as clients."""

import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.kafka.cluster import KafkaCluster
from pipeline.testing.cluster.proxy import FaultProxy

ANSWER_S = 30


class Brokers:
    """1 or 3 brokers. Clients given `bootstrap` reach them directly; those given `proxied` stay behind the proxy."""

    def __init__(self, root: Path, count: int) -> None:
        self.root = root
        self.cluster = KafkaCluster.create(root / "cluster", count)
        ports = _free_ports(2 * count)
        routes: dict[int, int] = {}
        for number, place in enumerate(self.cluster.places):
            inner, outer = ports[2 * number : 2 * number + 2]
            routes[outer] = inner
            # The second mention of a setting is the one that counts.
            second = {
                "listeners": f"PLAINTEXT://{place.address},PROXIED://127.0.0.1:{inner},"
                f"CONTROLLER://127.0.0.1:{place.controller_port}",
                "advertised.listeners": f"PLAINTEXT://{place.address},PROXIED://127.0.0.1:{outer}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
            }
            with (place.directory / "server.properties").open("a", encoding="utf-8") as file:
                file.writelines(f"{name}={value}\n" for name, value in second.items())
        self.proxy = FaultProxy(routes)
        self.bootstrap = self.cluster.bootstrap
        self.proxied = ",".join(f"127.0.0.1:{port}" for port in routes)
        self._copies = 0
        self.cluster.start()

    @property
    def nodes(self) -> list[int]:
        return [place.node_id for place in self.cluster.places]

    def kill(self, node: int) -> None:
        self.cluster.signal_broker(node, signal.SIGKILL)

    def close(self) -> None:
        self.proxy.close()
        self.cluster.remove()

    # Disks

    def backup(self) -> Path:
        """Stop, copy what is on the disks, start again."""
        self.cluster.stop()
        self._copies += 1
        kept = self.root / f"backup-{self._copies}"
        for place in self.cluster.places:
            shutil.copytree(place.directory / "data", kept / place.directory.name)
        self.cluster.start()
        return kept

    def restore(self, kept: Path) -> None:
        """Stop, put a copy in place of the disks, start again."""
        self.cluster.stop()
        for place in self.cluster.places:
            shutil.rmtree(place.directory / "data")
            shutil.copytree(kept / place.directory.name, place.directory / "data")
        self.cluster.start()

    # Strangers

    def recreate_topic(self, name: str, partitions: int) -> None:
        admin = self._admin()
        settings = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
        admin.delete_topics([name])[name].result(ANSWER_S)
        made = NewTopic(name, partitions, len(self.nodes), config=settings)
        for _ in range(100):
            if name not in admin.list_topics(timeout=ANSWER_S).topics:
                break
        admin.create_topics([made])[name].result(ANSWER_S)

    def delete_records(self, name: str, partition: int, before: int) -> None:
        place = Place(name, partition, before)
        admin = self._admin()  # it must outlive its answers
        admin.delete_records([place])[place].result(ANSWER_S)

    @contextmanager
    def transaction(
        self, writer_id: str, *records: tuple[str, int, bytes], timeout_ms: int = 9_000
    ) -> Iterator[Producer]:
        """A stranger's transaction, open meanwhile; its end is the caller's, or nobody's."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "transactional.id": writer_id,
                "transaction.timeout.ms": timeout_ms,
                "message.timeout.ms": timeout_ms - 1,
                "retry.backoff.ms": 1,
                "retry.backoff.max.ms": 5,
                "log_level": 2,
            }
        )
        producer.init_transactions(ANSWER_S)
        producer.begin_transaction()
        for topic, partition, value in records:
            producer.produce(topic, value, partition=partition)
        producer.flush(ANSWER_S)
        yield producer

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap})


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
