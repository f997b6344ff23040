"""What of the Kafka log needs no broker: windows, what errors mean, readers that nobody answers, settings."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import ConfigEntry, ConfigResource, TopicDescription
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.config import KafkaConfig
from pipeline.errors import (
    ConfigError,
    HauptbuchError,
    OutcomeUnknown,
    Retryable,
    TaskDiverged,
    TaskFenced,
    TransactionAbortable,
)
from pipeline.log.kafka import log as log_module
from pipeline.log.kafka import producing, topics, window
from pipeline.log.kafka.faults import plain_errors, read_fault, usable_settings, write_fault
from pipeline.log.kafka.lane import Lane
from pipeline.log.kafka.log import KafkaLog
from pipeline.log.kafka.producing import PlainProducer
from pipeline.log.kafka.settings import (
    LOGGER,
    admin_settings,
    consumer_settings,
    producer_settings,
    writer_settings,
)
from pipeline.log.kafka.topics import TopicCatalog
from pipeline.log.kafka.window import Window
from pipeline.log.kafka.writer import KafkaWriter
from pipeline.log.port import Append

A0 = TopicPartition(Topic.TRANSACTIONS, 0)
NOBODY = KafkaConfig(bootstrap="127.0.0.1:1", librdkafka={"log_level": 0})  # type: ignore[arg-type]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.booleans()), max_size=60),
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 12), st.integers(1, 200)), max_size=20),
)
def test_a_window_gives_what_was_added(steps: list[tuple[int, int, bool]], reads: list[tuple[int, int, int]]) -> None:
    found, everything = Window(5), []
    for hole, size, is_marker in steps:
        if is_marker:
            found.reach(found.high + hole)
        else:
            everything.append(LogRecord(found.high + hole, None, bytes(size)))
            found.add(everything[-1])
    for start, max_records, max_bytes in reads:
        expected = [record for record in everything if record.offset >= start]
        assert found.has(start) == bool(expected)
        assert found.covers(start) == (5 <= start <= found.high)
        got = found.take(start, max_records, max_bytes)
        assert got == expected[: len(got)]
        assert bool(got) == bool(expected)
        assert len(got) <= max_records
        size = sum(len(record.value or b"") for record in got)
        assert size <= max_bytes or len(got) == 1
        if len(got) < min(max_records, len(expected)):
            assert size + len(expected[len(got)].value or b"") > max_bytes


def test_a_window_forgets_what_was_taken_long_ago_and_is_full_of_what_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "KEPT_RECORDS", 10)
    monkeypatch.setattr(window, "FULL_RECORDS", 30)
    found = Window(0)
    for offset in range(0, 100, 2):
        assert not found.is_full
        found.add(LogRecord(offset, b"k", b"v"))
        assert found.take(offset, 1, 100) == [LogRecord(offset, b"k", b"v")]
    assert found.low > 20
    assert not found.covers(0)
    assert found.take(found.low, 100, 1000)[0].offset == found.low + 1
    for offset in range(100, 160, 2):
        found.add(LogRecord(offset, None, None))
    assert found.is_full
    assert len(found.take(100, 100, 1)) == 30
    assert not found.is_full


def test_a_window_is_full_by_bytes_and_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "FULL_BYTES", 100)
    found = Window(0)
    found.add(LogRecord(0, None, bytes(1000)))
    assert not found.is_full  # one record fits always
    found.add(LogRecord(1, None, bytes(1000)))
    assert found.is_full
    with pytest.raises(AssertionError):
        found.add(LogRecord(1, None, b""))


@pytest.mark.parametrize(
    ("error", "committing", "expected"),
    [
        (KafkaError(KafkaError._FENCED, "x", fatal=True), True, TaskFenced),
        (KafkaError(KafkaError.PRODUCER_FENCED, "x"), False, TaskFenced),
        (KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, "x", txn_requires_abort=True), True, TaskFenced),
        (KafkaError(KafkaError._TIMED_OUT, "x", txn_requires_abort=True), True, TransactionAbortable),
        (KafkaError(KafkaError._STATE, "x"), False, TransactionAbortable),
        (KafkaError(KafkaError._STATE, "x"), True, OutcomeUnknown),
        (KafkaError(KafkaError._STATE, "x", fatal=True), False, OutcomeUnknown),
        (KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "x", fatal=True), False, ConfigError),
        (KafkaError(KafkaError.INVALID_TRANSACTION_TIMEOUT, "x", fatal=True), False, ConfigError),
    ],
)
def test_errors_of_writers_name_their_recovery(
    error: KafkaError, committing: bool, expected: type[HauptbuchError]
) -> None:
    assert type(write_fault(error, "w", committing=committing)) is expected


@pytest.mark.parametrize(
    ("code", "expected", "says"),
    [
        (KafkaError._BAD_MSG, TaskDiverged, "damaged records on t.*restore"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, ConfigError, "refuses"),
        (KafkaError._NOT_IMPLEMENTED, TaskDiverged, "damaged records on t"),
        (KafkaError._FAIL, Retryable, "t can't be read now"),
        (KafkaError.UNKNOWN, Retryable, "t can't be read now"),
    ],
)
def test_errors_of_partitions_name_their_recovery(code: int, expected: type[HauptbuchError], says: str) -> None:
    with pytest.raises(expected, match=says):
        raise read_fault(KafkaError(code), "t")


def test_errors_that_the_client_wraps_are_unwrapped() -> None:
    wrapped = KafkaException(KafkaError(KafkaError._FENCED))
    with pytest.raises(KafkaException), plain_errors():
        raise SystemError from wrapped
    with pytest.raises(SystemError), plain_errors():
        raise SystemError("of another kind")


def gone() -> HauptbuchError:
    return TaskDiverged("t was deleted")


@pytest.fixture
def lane() -> Iterator[Lane]:
    lane = Lane(consumer_settings(NOBODY, "g", committed=True), lambda source: source.topic.topic_name, gone)
    yield lane
    lane.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KafkaError(KafkaError._AUTO_OFFSET_RESET), TaskDiverged),
        (KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), TaskDiverged),
        (KafkaError(KafkaError._BAD_MSG), TaskDiverged),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), ConfigError),
        (KafkaError(KafkaError.UNKNOWN), Retryable),
    ],
)
def test_what_befalls_a_partition_waits_for_its_reader(
    lane: Lane, error: KafkaError, expected: type[HauptbuchError]
) -> None:
    fetched = lane.fetch(A0, 3, 3, 0, 0.0)
    lane._note(error, None, fetched)
    assert type(fetched.error) is expected
    lane._note(KafkaError(KafkaError._PARTITION_EOF), 9, fetched)
    assert fetched.window.high == 3, "the client goes on behind what it can't read"
    lane._note(KafkaError(KafkaError._PARTITION_EOF), 9, fetched := lane.fetch(A0, 3, 3, 0, 0.0))
    assert fetched.window.high == 9


def test_nobody_answers(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Retryable, match="transactions, partition 0: no answer"):
        lane.bounds(A0, 0.2)
    lane._note(KafkaError(KafkaError._AUTHENTICATION, "bad password"), None, None)
    with pytest.raises(ConfigError, match="bad password"):
        lane.bounds(A0, 0.2)
    monkeypatch.setattr(topics, "_REQUEST_S", 0.2)
    catalog = TopicCatalog(admin_settings(NOBODY), "p", 1000)
    with pytest.raises(Retryable, match="brokers up"):
        catalog.partitions(Topic.BLOCKS)
    with pytest.raises(Retryable, match="brokers up"):
        catalog._create(Topic.BLOCKS, 1)
    with pytest.raises(Retryable, match="brokers up"):
        catalog._check_settings(Topic.BLOCKS)
    assert type(catalog.missing()) is Retryable
    monkeypatch.setattr(producing, "_DELIVERY_S", 0.1)
    producer = PlainProducer(producer_settings(NOBODY, 1000), lambda source: "t")
    with pytest.raises(OutcomeUnknown, match="did not confirm 2 of 2"):
        producer.append([Append(A0, None, b"x")] * 2)
    producer.close()


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), ConfigError),
        (KafkaError(KafkaError._MSG_TIMED_OUT), OutcomeUnknown),
        (None, OutcomeUnknown),
    ],
)
def test_a_call_is_refused_only_where_nothing_of_it_is_on_the_log(
    second: KafkaError | None, error: type[HauptbuchError]
) -> None:
    message = SimpleNamespace(offset=lambda: 7, topic=lambda: "t")
    producer = PlainProducer(producer_settings(NOBODY, 1000), lambda source: "t")
    delivery = producing.KafkaDelivery(producer, producer._client(), 2)
    refused = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    for index, outcome in enumerate((second, refused)):
        delivery._report(index, outcome, message)  # type: ignore[arg-type]
    with pytest.raises(error, match="refuses this client"):
        delivery.poll()
    producer.close()


def test_a_refusal_of_long_ago_is_no_reason_any_more(lane: Lane) -> None:
    lane._note(KafkaError(KafkaError._AUTHENTICATION, "bad password"), None, None)
    lane.renew()
    with pytest.raises(Retryable, match="no answer"):
        lane.bounds(A0, 0.2)


def test_settings_that_exactly_once_needs_are_never_overridden() -> None:
    config = KafkaConfig(bootstrap="b:1", librdkafka={"linger.ms": 3, "enable.partition.eof": False})  # type: ignore[arg-type]
    consumer = consumer_settings(config, "g", committed=True)
    assert consumer["isolation.level"] == "read_committed"
    assert consumer["auto.offset.reset"] == "error"
    assert consumer["enable.partition.eof"] is consumer["check.crcs"] is True
    made = writer_settings(config, 1000, "w")
    assert (made["transactional.id"], made["acks"], made["enable.idempotence"], made["linger.ms"]) == (
        "w",
        "all",
        True,
        3,
    )
    message, transaction = made["message.timeout.ms"], made["transaction.timeout.ms"]
    assert isinstance(message, int)
    assert isinstance(transaction, int)
    assert message < transaction


@pytest.mark.parametrize("transaction_ms", [1_000, 5_000, "7999", 10_000, 15_000])
def test_a_writer_can_be_made_for_every_transaction_timeout_that_is_taken(transaction_ms: int | str) -> None:
    config = KafkaConfig(bootstrap="b:1", librdkafka={"transaction.timeout.ms": transaction_ms, "log_level": 0})  # type: ignore[arg-type]
    made = writer_settings(config, 1000, "w")
    assert int(made["message.timeout.ms"]) < int(made["transaction.timeout.ms"])  # type: ignore[arg-type]
    Producer(made).close()


def test_settings_that_contradict_each_other_say_so_where_a_writer_is_opened() -> None:
    config = KafkaConfig(bootstrap="127.0.0.1:1", librdkafka={"linger.ms": 9_000, "log_level": 0})  # type: ignore[arg-type]
    settings = writer_settings(config, 1000, "w")
    writer = KafkaWriter(settings, "w", lambda appends: None, lambda source: "t", lambda: None)
    with pytest.raises(ConfigError, match=r"refuses its settings: .*must be greater than `linger.ms`; change"):
        writer.await_open()


def test_a_client_that_can_not_be_made_now_is_no_matter_of_settings() -> None:
    with pytest.raises(Retryable, match="no thread; are there threads"), usable_settings():
        raise KafkaException(KafkaError(KafkaError._CRIT_SYS_RESOURCE, "no thread"))


def test_the_client_is_not_heard_about_settings_of_its_sisters(caplog: pytest.LogCaptureFixture) -> None:
    LOGGER.warning("CONFWARN property x is a producer property and will be ignored by this consumer instance")
    LOGGER.warning("FAIL broker away")
    assert caplog.messages == ["FAIL broker away"]


def test_the_client_has_nothing_to_warn_about_in_a_writers_settings(caplog: pytest.LogCaptureFixture) -> None:
    producer = Producer(writer_settings(KafkaConfig(bootstrap="127.0.0.1:1"), 1000, "w"))
    deadline = time.monotonic() + 5
    while not caplog.messages and time.monotonic() < deadline:  # its first line is then of the broker that is not there
        producer.poll(0.05)
    producer.close()
    assert caplog.messages
    assert [text for text in caplog.messages if "CONFWARN" in text] == []


def test_a_broker_that_has_not_heard_of_a_new_topic_is_asked_again() -> None:
    """The one that described it may be another one."""
    good = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
    good |= {"unclean.leader.election.enable": "false", "max.message.bytes": "1000000"}
    entries = {name: ConfigEntry(name, value) for name, value in good.items()}
    answers: list[Any] = [KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)), entries]

    class Admin:
        def describe_configs(self, resources: list[ConfigResource], request_timeout: float) -> dict[Any, Any]:
            future: Future[Any] = Future()
            answer = answers.pop(0)
            if isinstance(answer, KafkaException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
            return {resources[0]: future}

    catalog = TopicCatalog(admin_settings(NOBODY), "p", 1000)
    catalog._admin = Admin()  # type: ignore[assignment]
    catalog._check_settings(Topic.BLOCKS)
    assert answers == []
    answers.append(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    with pytest.raises(ConfigError, match=r"p\.blocks: Kafka refuses this client"):
        catalog._check_settings(Topic.BLOCKS)


def test_whoever_reads_without_a_pause_notices_too_that_a_topic_was_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    now_s = [1_000.0]

    class Admin:
        uuid = "first"

        def describe_topics(self, names: TopicCollection, request_timeout: float) -> dict[str, Future[Any]]:
            asked.append(self.uuid)
            future: Future[Any] = Future()
            future.set_result(TopicDescription("p.blocks", self.uuid, False, [None] * 2))  # type: ignore[list-item]
            return {"p.blocks": future}

    log = KafkaLog(NOBODY, "p")
    admin = log._topics._admin = Admin()  # type: ignore[assignment]
    monkeypatch.setattr(log._reader, "read", lambda *_: [])
    monkeypatch.setattr(log_module, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    source = TopicPartition(Topic.BLOCKS, 1)

    def read_for(seconds: int) -> None:
        for _ in range(100 * seconds):
            now_s[0] += 0.01
            assert log.read(source, 0, 1, 1) == []

    read_for(20)
    assert 4 <= len(asked) <= 6
    admin.uuid = "second"
    with pytest.raises(TaskDiverged, match=r"p\.blocks was deleted and made again"):
        read_for(6)
    monkeypatch.undo()
    log.close()


def test_a_topic_that_one_broker_has_not_heard_of_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = TopicDescription("p.blocks", "uuid", False, [None] * 2)  # type: ignore[list-item]
    answers: list[TopicDescription | None] = [None, None, seen]
    catalog = TopicCatalog(admin_settings(NOBODY), "p", 1000)
    monkeypatch.setattr(catalog, "_describe", lambda topic: answers.pop(0))
    catalog._remember(Topic.BLOCKS, seen)
    catalog.verify()
    assert answers == []
    monkeypatch.setattr(topics, "_HEARD_S", 0.1)
    monkeypatch.setattr(catalog, "_describe", lambda topic: None)
    started = time.monotonic()
    with pytest.raises(TaskDiverged, match=r"p\.blocks was deleted"):
        catalog.verify()
    assert time.monotonic() - started >= 0.1
