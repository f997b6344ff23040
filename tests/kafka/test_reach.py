"""One broker of three is out of a process's reach: what the others lead is read at its rate, and it is read on once
it is back."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.config import KafkaConfig
from pipeline.errors import Retryable
from pipeline.log.kafka import KafkaLog
from pipeline.log.port import Append
from pipeline.testing.cluster.proxy import Direction
from tests.kafka.matrix.brokers import Brokers

pytestmark = pytest.mark.kafka

PREFIX = "reach"
PATIENCE_S = 1.0
SOURCES = [TopicPartition(Topic.TRANSACTIONS, number) for number in range(6)]


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    made = Brokers(tmp_path, 3)
    yield made
    made.close()


def ports_of_leaders(brokers: Brokers) -> dict[TopicPartition, int]:
    """On which port of the proxy each partition's leader is reached."""
    topic = f"{PREFIX}.{Topic.TRANSACTIONS.topic_name}"
    told = AdminClient({"bootstrap.servers": brokers.proxied}).list_topics(topic, timeout=30)
    return {
        source: told.brokers[told.topics[topic].partitions[source.partition].leader].port  # type: ignore[misc]
        for source in SOURCES
    }


def test_shards_of_other_brokers_go_on(brokers: Brokers) -> None:
    near = KafkaLog(KafkaConfig(bootstrap=brokers.bootstrap), PREFIX)
    near.create_topic(Topic.TRANSACTIONS, len(SOURCES))
    far = KafkaLog(KafkaConfig(bootstrap=brokers.proxied), PREFIX, patience_s=PATIENCE_S)
    try:
        Reading(brokers, near, far).play()
    finally:
        far.close()
        near.close()


class Reading:
    """Every partition gets a record every 50 ms from one who reaches all, and is read by one who does not."""

    def __init__(self, brokers: Brokers, near: KafkaLog, far: KafkaLog) -> None:
        self.brokers, self.near, self.far = brokers, near, far
        self.sent = 0
        self.places = dict.fromkeys(SOURCES, 0)
        self.refusals = 0
        self.longest_s = 0.0
        """Of one look at all partitions."""

    def play(self) -> None:
        ports = ports_of_leaders(self.brokers)
        lost = ports[SOURCES[0]]
        silent = {source for source, port in ports.items() if port == lost}
        others = set(SOURCES) - silent
        assert others
        self.run(3)
        self.longest_s = 0.0
        self.brokers.proxy.half_open(*Direction, port=lost)
        self.run(15)
        stands = dict(self.places)
        assert self.refusals > 20
        assert self.longest_s < len(silent) * (PATIENCE_S + 2)
        before = self.sent
        self.run(15)  # everyone has been waited for once
        # Some 250 looks where none waits, 10 where each waits for a partition; between, a machine with other work.
        assert self.sent - before > 50
        assert all(self.places[source] >= before for source in others)
        assert all(self.places[source] == stands[source] for source in silent)
        self.brokers.proxy.heal()
        deadline = time.monotonic() + 30
        while min(self.places.values()) < before + 100:
            assert time.monotonic() < deadline
            self.run(0.5)

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.near.append([Append(source, None, b"%d" % self.sent) for source in SOURCES])
            self.sent += 1
            begun_s = time.monotonic()
            for source in SOURCES:
                self.read(source)
            self.longest_s = max(self.longest_s, time.monotonic() - begun_s)
            self.far.wait(50)

    def read(self, source: TopicPartition) -> None:
        """Without a hole: offsets are those of the records, since nothing else is written."""
        try:
            records = self.far.read(source, self.places[source], 1_000, 1 << 20)
        except Retryable:
            self.refusals += 1
            return
        for record in records:
            assert record.value == b"%d" % record.offset
            self.places[source] = record.offset + 1
