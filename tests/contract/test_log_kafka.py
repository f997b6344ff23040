"""The Kafka log on a real broker: the contract of every log, and what only a cluster can do to one."""

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, ResourceType
from kafka_fixture import Kafka
from log_contract import A0, A1, B0, B1, DEADLINE_S, LogContract, commit, poll_to_the_end, read_all, values

from pipeline.config import KafkaConfig
from pipeline.errors import (
    ConfigError,
    Fatal,
    LogStalled,
    OutcomeUnknown,
    Retryable,
    TaskDiverged,
    TaskFenced,
    TransactionAbortable,
)
from pipeline.log.kafka import KafkaLog
from pipeline.log.kafka import reader as reader_module
from pipeline.log.kafka import writer as writer_module
from pipeline.log.port import Append, EventLog, Topic, TopicPartition

pytestmark = pytest.mark.kafka


class TestKafkaLog(LogContract):
    options: dict[str, float] = {}  # noqa: RUF012 - never changed

    @pytest.fixture(autouse=True)
    def cluster(self, kafka: Kafka) -> None:
        self.kafka = kafka

    def make_log(self) -> KafkaLog:
        self.prefix = self.kafka.new_prefix()
        return self.kafka.log(self.prefix, **self.options)

    def reopen(self, log: EventLog) -> KafkaLog:
        log.close()
        return self.kafka.log(self.prefix, **self.options)


class TestImpatientKafkaLog(TestKafkaLog):
    """As workers have it."""

    options = {"patience_s": 1.0}  # noqa: RUF012 - never changed


@pytest.fixture
def prefix(kafka: Kafka) -> str:
    return kafka.new_prefix()


@pytest.fixture
def log(kafka: Kafka, prefix: str) -> Iterator[KafkaLog]:
    log = kafka.log(prefix, stall_s=0.5)
    log.create_topic(Topic.TRANSACTIONS, 2)
    log.create_topic(Topic.BLOCKS, 2)
    yield log
    log.close()


def until(condition: Callable[[], object], seconds: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def open_transaction(kafka: Kafka, prefix: str, value: bytes, source: TopicPartition = A0) -> Producer:
    """A stranger's transaction with one record, left open."""
    stranger = kafka.transactional(f"stranger-{prefix}")
    stranger.begin_transaction()
    stranger.produce(f"{prefix}.{source.topic.topic_name}", value, partition=source.partition)
    assert stranger.flush(10) == 0
    return stranger


def alter(kafka: Kafka, prefix: str, topic: Topic, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, f"{prefix}.{topic.topic_name}", incremental_configs=[entry])
    kafka.admin.incremental_alter_configs([resource])[resource].result(10)


def test_topics_keep_everything(kafka: Kafka, prefix: str, log: KafkaLog) -> None:
    resource = ConfigResource(ResourceType.TOPIC, f"{prefix}.blocks")
    found = {name: entry.value for name, entry in kafka.admin.describe_configs([resource])[resource].result(10).items()}
    assert found["cleanup.policy"] == "delete"
    assert found["retention.ms"] == found["retention.bytes"] == "-1"
    assert found["unclean.leader.election.enable"] == "false"
    assert found["min.insync.replicas"] == "1"
    assert int(found["max.message.bytes"]) > 1 << 20
    assert found["message.timestamp.type"] == "CreateTime"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("retention.ms", "1000"),
        ("retention.bytes", "1000"),
        ("cleanup.policy", "compact"),
        ("unclean.leader.election.enable", "true"),
        ("max.message.bytes", "1000"),
    ],
)
def test_a_topic_that_would_lose_records_is_refused(
    kafka: Kafka, prefix: str, log: KafkaLog, setting: str, value: str
) -> None:
    alter(kafka, prefix, Topic.BLOCKS, setting, value)

    def create_for_ever() -> None:  # brokers hear of new settings a moment later
        until(lambda: log.create_topic(Topic.BLOCKS, 2))

    with pytest.raises(ConfigError, match=f"blocks has {setting}={value}"):
        create_for_ever()


def test_a_small_batch_that_unpacks_to_more_than_any_reader_takes_is_refused(
    kafka: Kafka, prefix: str, log: KafkaLog
) -> None:
    sender = Producer(
        {"bootstrap.servers": kafka.bootstrap, "compression.type": "zstd", "message.max.bytes": 1_000_000_000}
    )
    refused: list[int | None] = []
    for value in (b"small" * 100, bytes(110 << 20)):
        sender.produce(
            f"{prefix}.transactions",
            value,
            partition=0,
            on_delivery=lambda error, _: refused.append(error and error.code()),
        )
        assert sender.flush(60) == 0
    assert refused == [None, KafkaError.MSG_SIZE_TOO_LARGE]
    assert values(log, A0) == [b"small" * 100]
    log.append([Append(A0, None, b"behind")])
    assert values(log, A0, 2)[1] == b"behind"
    alter(kafka, prefix, Topic.TRANSACTIONS, "compression.type", "producer")
    with pytest.raises(ConfigError, match=r"compression\.type=producer, not uncompressed"):
        until(lambda: log.create_topic(Topic.TRANSACTIONS, 2))


def test_what_can_not_be_opened(kafka: Kafka, log: KafkaLog) -> None:
    with pytest.raises(ConfigError, match="bootstrap"):
        KafkaLog(KafkaConfig(), "x")
    with pytest.raises(ConfigError, match="topic's name"):
        KafkaLog(KafkaConfig(bootstrap=kafka.bootstrap), "a/b")
    with pytest.raises(ConfigError, match="librdkafka"):
        KafkaLog(KafkaConfig(bootstrap=kafka.bootstrap, librdkafka={"no.such.setting": 1}), "x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="id"):
        log.writer("")


def test_aborted_records_are_never_seen(kafka: Kafka, prefix: str, log: KafkaLog) -> None:
    log.append([Append(A0, None, b"before")])
    stranger = open_transaction(kafka, prefix, b"aborted")
    log.append([Append(A0, None, b"behind")])
    assert values(log, A0) == [b"before"]
    stranger.abort_transaction(10)
    log.append([Append(A0, None, b"after")])
    assert values(log, A0, 3) == [b"before", b"behind", b"after"]
    # From inside the hole, from what stands behind it, and again from the start.
    records = read_all(log, A0, 3)
    assert records[1].offset - records[0].offset == 2
    assert log.read(A0, records[0].offset + 1, 1, 1000) == [records[1]]
    assert log.end_offset(A0) > records[-1].offset


def test_who_asks_for_it_sees_what_was_aborted_too(kafka: Kafka, prefix: str, log: KafkaLog) -> None:
    log.append([Append(A0, None, b"before")])
    for value in (b"aborted", b"open"):
        stranger = open_transaction(kafka, prefix, value)
        if value == b"aborted":
            stranger.abort_transaction(10)
            log.append([Append(A0, None, b"after")])
    expected = [b"before", b"aborted", b"after", b"open"]
    found = list(log.read_uncommitted(A0, 0))
    assert [record.value for record in found] == expected
    assert [record.value for record in log.read_uncommitted(A0, found[1].offset)] == expected[1:]
    assert list(log.read_uncommitted(A0, log.end_offset(A0))) == []
    with pytest.raises(TaskDiverged, match="cut or replaced"):
        list(log.read_uncommitted(A0, 1000))
    stranger.abort_transaction(10)
    assert [record.value for record in log.read_uncommitted(A0, 0)] == expected, "up to the mark of an abortion"
    assert values(log, A0, 2) == [b"before", b"after"]


def test_a_zombie_of_another_process_is_fenced_at_its_commit(kafka: Kafka, prefix: str, log: KafkaLog) -> None:
    zombie = log.writer("w")
    commit(zombie, [Append(A0, None, b"first")])
    other = kafka.log(prefix)
    try:
        owner = other.writer("w")
        zombie.begin_commit([Append(A0, None, b"zombie"), Append(B0, None, b"zombie")])
        with pytest.raises(TaskFenced):
            poll_to_the_end(zombie)
        with pytest.raises(TaskFenced):
            zombie.begin_commit([Append(A0, None, b"zombie")])
        commit(owner, [Append(A0, None, b"owner")])
        assert values(other, A0, 2) == [b"first", b"owner"]
        assert values(other, B0) == []
    finally:
        other.close()


def test_a_new_writer_ends_the_open_transaction_of_one_that_died(kafka: Kafka, prefix: str, log: KafkaLog) -> None:
    dead = open_transaction(kafka, prefix, b"half")
    assert len(dead) == 0
    with pytest.raises(Retryable, match="transaction is open at offset 0"):
        log.settle(A0)
    commit(log.writer(f"stranger-{prefix}"), [Append(A0, None, b"whole")])
    log.settle(A0)
    assert values(log, A0) == [b"whole"]


def test_an_open_transaction_hides_records_for_a_while_and_then_has_a_name(
    kafka: Kafka, prefix: str, log: KafkaLog
) -> None:
    log.append([Append(A0, None, b"before")])
    stranger = open_transaction(kafka, prefix, b"open")
    log.append([Append(A0, None, b"hidden")])
    assert values(log, A0) == [b"before"]

    def poll_for_ever() -> None:
        until(lambda: log.wait(20) or log.read(A0, 1, 10, 1000))

    with pytest.raises(LogStalled, match=r"transactions, partition 0: .* hides everything from offset 1 on"):
        poll_for_ever()
    with pytest.raises(Retryable, match="open at offset 1"):
        log.settle(A0)
    time.sleep(0.5)
    with pytest.raises(LogStalled, match="hides everything from offset 1"):
        log.settle(A0)
    log.settle(A1)
    stranger.commit_transaction(10)
    log.settle(A0)
    assert values(log, A0) == [b"before", b"open", b"hidden"], "the same log goes on"


def test_a_topic_made_again_is_another_topic(kafka: Kafka, prefix: str, log: KafkaLog) -> None:
    log.append([Append(A0, None, b"%d" % i) for i in range(5)])
    assert len(read_all(log, A0, 5)) == 5
    kafka.delete(prefix, A0)
    until(lambda: f"{prefix}.transactions" not in kafka.admin.list_topics(timeout=10).topics)
    new = NewTopic(f"{prefix}.transactions", 2, 1)
    kafka.admin.create_topics([new])[new.topic].result(10)
    with pytest.raises(TaskDiverged, match=r"transactions was deleted"):
        log.writer("w")
    with pytest.raises(TaskDiverged, match=r"transactions was deleted"):
        log.read(A0, 5, 1, 1000)
    with pytest.raises(TaskDiverged, match=r"transactions was deleted"):
        log.append([Append(A0, None, b"lost")])


def test_a_topic_that_vanishes_or_grows_is_noticed_without_asking(kafka: Kafka, prefix: str, log: KafkaLog) -> None:
    log.append([Append(B0, None, b"x")])
    assert len(read_all(log, B0, 1)) == 1
    kafka.admin.create_partitions([NewPartitions(f"{prefix}.blocks", 3)])[f"{prefix}.blocks"].result(10)

    def poll_for_ever() -> None:
        until(lambda: log.wait(50) or log.read(B0, 1, 1, 1000))

    with pytest.raises(TaskDiverged, match="blocks has 3 partitions instead of 2"):
        poll_for_ever()


def test_history_that_was_cut_is_noticed(kafka: Kafka, prefix: str, log: KafkaLog) -> None:
    log.append([Append(A0, None, b"%d" % i) for i in range(10)])
    kafka.delete_records(prefix, A0, 6)
    with pytest.raises(TaskDiverged, match="offsets 6 to 10, but 3 was asked for"):
        log.read(A0, 3, 1, 1000)
    assert log.read(A0, 6, 1, 1000)[0].value == b"6"
    with pytest.raises(TaskDiverged, match="but -1 was asked"):
        log.read(A1, -1, 1, 1000)


def test_reads_at_any_position_agree(log: KafkaLog) -> None:
    """Bisections, followers and tails of one partition at once, against what was appended."""
    writer = log.writer("w")
    offsets: list[int] = []
    for batch in range(30):
        done = commit(writer, [Append(A0, None, b"%d" % (batch * 10 + i)) for i in range(10)])
        offsets += [offset for offset in done.offsets if offset is not None]
    everything = read_all(log, A0, 300)
    assert [r.offset for r in everything] == offsets
    end = log.end_offset(A0)
    for step in range(40):
        start = step * 7919 % end
        expected = [r for r in everything if r.offset >= start]
        assert log.read(A0, start, 1, 1 << 20) == expected[:1]
        got = log.read(A0, start, 25, 1 << 20)
        assert got == expected[: len(got)]
        if step % 5 == 0:
            (added,) = log.append([Append(A0, None, b"tail %d" % step)])
            assert log.end_offset(A0) == added + 1
            tail = log.read(A0, added, 5, 1000)
            assert [(r.offset, r.value) for r in tail] == [(added, b"tail %d" % step)]
            everything += tail
            end = added + 1


def test_what_was_committed_before_an_end_was_asked_is_never_missed(kafka: Kafka, prefix: str, log: KafkaLog) -> None:
    """Another process appends; whoever asked for the end, or fenced, reads up to there without waiting."""
    other = kafka.log(prefix)
    try:
        position = 0
        for number in range(40):
            other.append([Append(A0, None, b"%d" % number)])
            if number % 2:
                assert log.end_offset(A0) == number + 1
            else:
                log.writer("w").close()
            records = log.read(A0, position, 10, 1000)
            assert [r.value for r in records] == [b"%d" % number]
            position = records[-1].offset + 1
    finally:
        other.close()


def test_a_partition_that_its_client_stopped_fetching_is_read_on(
    kafka: Kafka, prefix: str, log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client can stop for good and say nothing, when a partition had no leader for a while: it is replaced."""
    monkeypatch.setattr(reader_module, "_SURE_S", 0.2)
    monkeypatch.setattr(reader_module, "REQUEST_S", 0.3)
    assert log.append([Append(A0, None, b"0")]) == [0]
    assert values(log, A0) == [b"0"]
    tail = log._reader._tail
    fetched, client = tail.get(A0), tail._consumer
    assert fetched is not None
    client.pause([fetched.place])
    other = kafka.log(prefix)
    try:
        other.append([Append(A0, None, b"1")])
    finally:
        other.close()
    time.sleep(0.3)
    with pytest.raises(Retryable, match="gave nothing from offset 1 on"):
        until(lambda: log.read(A0, 1, 9, 1000))
    assert tail._consumer is not client
    monkeypatch.undo()  # the new client has to find its broker first
    assert [record.value for record in log.read(A0, 1, 9, 1000)] == [b"1"]


def test_what_nobody_reads_is_not_fetched_for_ever(
    kafka: Kafka, prefix: str, log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a recovery has read is given up; whoever comes back to it misses nothing."""
    monkeypatch.setattr(reader_module, "_FORGOTTEN_S", 0.2)
    monkeypatch.setattr(reader_module, "_BUSY_S", 0.1)

    def read(source: TopicPartition, start: int) -> list[bytes | None]:
        return [record.value for record in log.read(source, start, 9, 1000)]

    log.append([Append(A0, None, b"0"), Append(A1, None, b"1")])
    assert [read(source, 0) for source in (A0, A1)] == [[b"0"], [b"1"]]

    def is_given_up() -> bool:
        assert read(A1, 1) == []
        log.wait(20)
        return log._reader._tail.sources == [A1]

    until(is_given_up)
    other = kafka.log(prefix)
    try:
        other.append([Append(A0, None, b"2"), Append(A1, None, b"3")])
    finally:
        other.close()
    assert read(A0, 1) == [b"2"]
    until(lambda: read(A1, 1) == [b"3"])


def test_small_records_fast(log: KafkaLog, capsys: pytest.CaptureFixture[str]) -> None:
    count, value = 20_000, b"v" * 300
    started = time.perf_counter()
    for _ in range(20):
        log.append([Append(A0, None, value)] * (count // 20))
    appended = time.perf_counter()
    assert len(read_all(log, A0, count, page=8_192)) == count
    read = time.perf_counter()
    writer, latencies = log.writer("w"), []
    for _ in range(100):
        begun = time.perf_counter()
        writer.begin_commit([Append((B0, B1)[i % 2], None, value) for i in range(20)])
        while writer.poll_commit() is None:
            log.wait(20)
        latencies.append(1000 * (time.perf_counter() - begun))
    latencies.sort()
    with capsys.disabled():
        print(
            f"\nkafka: {count / (appended - started):,.0f} appends/s, {count / (read - appended):,.0f} reads/s, "
            f"commit of 20 records p50 {latencies[50]:.1f} ms, p99 {latencies[98]:.1f} ms"
        )
    assert appended - started < DEADLINE_S
    assert latencies[50] < 1000


def test_a_partition_with_much_unread_pauses_and_goes_on(kafka: Kafka, prefix: str) -> None:
    log = kafka.log(prefix)
    try:
        log.create_topic(Topic.RELAY, 2)
        first, second = TopicPartition(Topic.RELAY, 0), TopicPartition(Topic.RELAY, 1)
        big = bytes(1_000_000)
        for _ in range(12):
            log.append([Append(first, None, big)] * 4)
        log.append([Append(second, None, b"%d" % i) for i in range(100)])
        assert log.read(first, 0, 1, 1)  # the rest of it waits while the other is read
        for _ in range(50):
            log.wait(20)
        assert len(read_all(log, second, 100)) == 100
        assert [len(r.value or b"") for r in read_all(log, first, 48, page=3)] == [len(big)] * 48
    finally:
        log.close()


def test_closed_writers_and_logs_say_so(kafka: Kafka, prefix: str, log: KafkaLog) -> None:
    assert log.partitions(Topic.BLOCKS) == 2
    writer = log.writer("w")
    writer.close()
    with pytest.raises(Fatal, match="closed"):
        writer.begin_commit([])
    log.close()
    with pytest.raises(Fatal, match="log is closed"):
        log.read(A0, 0, 1, 1)


def test_wait_returns_when_something_arrives_or_a_commit_ends(kafka: Kafka, prefix: str, log: KafkaLog) -> None:
    other = kafka.log(prefix)
    try:
        assert log.read(A0, 0, 1, 1) == []
        log.wait(0)
        started = time.monotonic()
        log.wait(100)
        assert time.monotonic() - started >= 0.09
        other.append([Append(A0, None, b"x")])
        started = time.monotonic()
        log.wait(20_000)
        assert time.monotonic() - started < 10
        assert log.read(A0, 0, 1, 1)[0].value == b"x"
        log.wait(0)
        writer = log.writer("w")
        writer.begin_commit([Append(B1, None, b"y")])
        started = time.monotonic()
        log.wait(20_000)
        assert time.monotonic() - started < 10
        assert poll_to_the_end(writer).offsets == (0,)
    finally:
        other.close()


def test_a_commit_outlasts_a_broker_that_stands_still(kafka: Kafka, log: KafkaLog) -> None:
    writer = log.writer("w")
    commit(writer, [Append(A0, None, b"1")])
    with kafka.frozen():
        writer.begin_commit([Append(A0, None, b"2"), Append(B0, None, b"2")])
        begun = time.monotonic()
        while time.monotonic() - begun < 1:
            assert writer.poll_commit() is None
            log.wait(50)
    assert len(poll_to_the_end(writer).offsets) == 2
    assert values(log, A0, 2) == [b"1", b"2"]
    assert values(log, B0, 1) == [b"2"]


def test_a_commit_that_no_broker_answers_ends_and_happens_wholly_or_not(
    kafka: Kafka, log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "COMMIT_S", 0.5)
    writer = log.writer("w")
    commit(writer, [Append(A0, None, b"1")])
    with kafka.frozen():
        writer.begin_commit([Append(A0, None, b"2"), Append(B0, None, b"2")])
        with pytest.raises((OutcomeUnknown, TransactionAbortable)):
            poll_to_the_end(writer)
        writer.close()
    monkeypatch.undo()
    commit(log.writer("w"), [Append(A0, None, b"3"), Append(B0, None, b"3")])
    log.settle(A0)
    log.settle(B0)
    assert (values(log, A0), values(log, B0)) in (
        ([b"1", b"3"], [b"3"]),
        ([b"1", b"2", b"3"], [b"2", b"3"]),
    )
