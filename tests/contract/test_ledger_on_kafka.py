"""A whole ledger on a real broker: shards, synchronizer, audit; stopped and taken over in between."""

import time
from collections.abc import Iterator

import pytest
from kafka_fixture import Kafka
from ledger_on_kafka import KafkaNet, names_on

from pipeline.audit.run import audit_log
from pipeline.audit.tools import Tools, memory_kv
from pipeline.codec.topics import Topic
from pipeline.crypto.verifier import InlineVerifier
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.checkpoints import Assurance
from pipeline.log.kafka import KafkaLog
from pipeline.shards.life import TaskState
from pipeline.sync.life import SyncState
from pipeline.testing.suite import TEST_SUITES

pytestmark = pytest.mark.kafka

PAYMENTS = 300


@pytest.fixture
def logs(kafka: Kafka) -> Iterator[list[KafkaLog]]:
    opened: list[KafkaLog] = []
    yield opened
    for log in opened:
        log.close()


def test_a_ledger_of_two_shards_settles_is_taken_over_and_audits_clean(kafka: Kafka, logs: list[KafkaLog]) -> None:
    prefix = kafka.new_prefix()
    logs.append(kafka.log(prefix))
    net = KafkaNet(logs[0])
    sync = net.synchronizer(MemoryKeyValue(), assurance=Assurance.EXECUTION)
    people = [names_on(net, shard, 5) for shard in (0, 1)]
    net.fund({name: 10_000 for group in people for name in group})
    net.drive(sync)
    started = time.perf_counter()
    for number in range(PAYMENTS):
        group, other = people[number % 2], people[1 - number % 2]
        net.pay(group[number % 5], {group[(number + 1) % 5]: 1, other[number % 5]: 2})
    published = time.perf_counter()
    net.drive(sync)
    seconds = time.perf_counter() - published
    print(f"{PAYMENTS} payments published in {published - started:.2f} s, settled and signed in {seconds:.2f} s")
    heads = [task.committed.height for task in net.tasks]
    assert min(heads) >= 1
    assert sync.follower is not None
    assert sync.follower.unsigned_blocks == 0

    # Another process takes over with empty stores; the old one finds itself fenced, and nothing is done twice.
    logs.append(kafka.log(prefix))
    heir = KafkaNet(logs[1], after=net)
    heir_sync = heir.synchronizer(MemoryKeyValue())
    heir.pay(people[0][0], {people[1][0]: 7})
    heir.drive(heir_sync)
    assert [task.state for task in heir.tasks] == [TaskState.LEADING] * 2
    assert heir_sync.state is SyncState.RUNNING
    assert min(task.committed.height for task in heir.tasks) >= min(heads)
    net.nonces = dict(heir.nonces)
    net.pay(people[0][1], {people[0][2]: 1})
    for task in net.tasks:
        task.step(net.now_ms)
    heir.drive(heir_sync)

    report = audit_log(Tools(lambda: kafka.log(prefix), lambda: InlineVerifier(TEST_SUITES), memory_kv))
    assert report.findings == ()
    assert report.unsigned_blocks == 0
    assert report.in_flight == ()
    assert report.rounds >= 2
    assert report.figures.transactions >= PAYMENTS + 3
    heights = [net.heights(shard) for shard in (0, 1)]
    assert all(len(found) == len(set(found)) + net.repeats(shard) for shard, found in enumerate(heights))
    assert heir.receipts() == PAYMENTS + 3
    assert len(heir.read(Topic.STATE_ROOTS, 0)) >= 2
