"""A partition that does not answer holds up no other: a reader with clients that nobody answers, without a broker."""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from threading import Event

import pytest

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.config import KafkaConfig
from pipeline.errors import Fatal, Retryable, TaskDiverged
from pipeline.log.kafka import patience as patience_module
from pipeline.log.kafka.lane import Lane
from pipeline.log.kafka.patience import REQUEST_S, Patience
from pipeline.log.kafka.reader import Reader
from pipeline.log.kafka.settings import consumer_settings

A0 = TopicPartition(Topic.TRANSACTIONS, 0)
A1 = TopicPartition(Topic.TRANSACTIONS, 1)
NOBODY = KafkaConfig(bootstrap="127.0.0.1:1", librdkafka={"log_level": 0})  # type: ignore[arg-type]
WAIT_S = 0.2


class Brokers:
    """Every partition holds 9 offsets. A silent one lets everyone wait for as long as he likes."""

    def __init__(self) -> None:
        self.silent: set[TopicPartition] = set()
        self.deaf_clients = False
        """Whether only probes are answered."""
        self.asked: list[tuple[TopicPartition, float]] = []
        self.probes = 0
        self.end = 9
        self.woken = Event()

    def bounds(self, source: TopicPartition, timeout_s: float) -> tuple[int, int]:
        self.asked.append((source, timeout_s))
        if source in self.silent or self.deaf_clients:
            time.sleep(timeout_s)
            raise Retryable(f"{source.partition} does not answer")
        return 0, self.end

    def probe(self, source: TopicPartition) -> int:
        self.probes += 1
        while source in self.silent:
            self.woken.wait(0.01)
        return 9


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Brokers]:
    made = Brokers()
    monkeypatch.setattr(Lane, "bounds", made.bounds)
    monkeypatch.setattr(patience_module, "_FIRST_PAUSE_S", 0.02)
    yield made
    made.silent.clear()


@pytest.fixture
def reader(brokers: Brokers) -> Iterator[Reader]:
    settings = consumer_settings(NOBODY, "g", committed=True)
    patience = Patience(brokers.probe, WAIT_S)
    made = Reader(settings, lambda source: "t", lambda: Fatal("gone"), lambda source: 9, patience, 30.0)
    yield made
    made.close()


def arrive(reader: Reader, source: TopicPartition, *offsets: int) -> None:
    """As fetched by the client."""
    fetched = reader._tail.get(source)
    assert fetched is not None
    for offset in offsets:
        fetched.window.add(LogRecord(offset, b"k", b"v"))


def timed(call: Callable[[], object]) -> float:
    begun_s = time.monotonic()
    call()
    return time.monotonic() - begun_s


def silent(reader: Reader, source: TopicPartition, start: int) -> None:
    with pytest.raises(Retryable):
        reader.read(source, start, 9, 1000)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def reads(reader: Reader, source: TopicPartition, start: int) -> bool:
    try:
        reader.read(source, start, 9, 1000)
    except Retryable:
        return False
    return True


def test_a_silent_partition_is_waited_for_once_and_the_other_is_read_at_its_rate(
    brokers: Brokers, reader: Reader
) -> None:
    assert reader.read(A1, 9, 9, 1000) == []
    brokers.silent.add(A0)
    assert WAIT_S <= timed(lambda: silent(reader, A0, 9)) < 10 + WAIT_S
    begun_s = time.monotonic()
    for offset in range(9, 209):
        silent(reader, A0, 9)
        arrive(reader, A1, offset)
        assert [record.offset for record in reader.read(A1, offset, 9, 1000)] == [offset]
    assert time.monotonic() - begun_s < 100 * WAIT_S, "half of what it takes to wait each time"
    assert [source for source, _ in brokers.asked].count(A0) == 1
    assert brokers.probes == 1
    brokers.silent.clear()
    until(lambda: reads(reader, A0, 9))
    assert reader.read(A0, 9, 9, 1000) == []


def test_a_silent_partition_never_gives_nothing(brokers: Brokers, reader: Reader) -> None:
    """What arrived is given; that there is no more is not said before the partition was asked."""
    assert reader.read(A0, 9, 9, 1000) == []
    reader.fenced()
    brokers.silent.add(A0)
    for _ in range(3):
        silent(reader, A0, 9)
    arrive(reader, A0, 9, 10)
    assert [record.offset for record in reader.read(A0, 9, 9, 1000)] == [9, 10]
    silent(reader, A0, 11)
    with pytest.raises(Retryable):
        reader.stable_end(A0)


def test_what_is_owed_and_does_not_arrive_is_waited_for_once(brokers: Brokers, reader: Reader) -> None:
    """The partition answers where it ends, but its records do not come."""
    assert timed(lambda: silent(reader, A0, 3)) >= WAIT_S
    assert timed(lambda: [silent(reader, A0, 3) for _ in range(20)]) < WAIT_S
    arrive(reader, A0, *range(3, 6))
    assert len(reader.read(A0, 3, 9, 1000)) == 3
    assert timed(lambda: silent(reader, A0, 6)) >= WAIT_S  # news, so that it is worth to wait again
    arrive(reader, A0, *range(6, 9))
    assert len(reader.read(A0, 6, 9, 1000)) == 3
    assert reader.read(A0, 9, 9, 1000) == []


def test_time_in_which_nothing_was_owed_is_no_waiting(
    brokers: Brokers, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reader.read(A0, 9, 9, 1000) == []
    client, end = reader._tail._consumer, brokers.end
    time.sleep(1.5 * WAIT_S)
    assert reader.read(A0, end, 9, 1000) == []
    brokers.end += 1
    reader.told_end(A0, brokers.end)

    def pump(timeout_s: float) -> bool:
        if timeout_s > 0:  # of one who waits for it
            arrive(reader, A0, end)
        return timeout_s > 0

    monkeypatch.setattr(reader._tail, "pump", pump)
    assert [record.offset for record in reader.read(A0, end, 9, 1000)] == [end]
    assert reader._tail._consumer is client


def test_a_probe_counts_until_it_ends_though_its_silence_is_forgotten(brokers: Brokers) -> None:
    patience = Patience(brokers.probe, 0.01)
    brokers.silent.add(A0)
    with pytest.raises(Retryable):
        patience.ask(A0, lambda timeout_s: brokers_away())
    assert patience.is_probing
    patience.forget()
    assert patience.is_probing, "closing what it asks would pull it from under the request"
    brokers.silent.clear()
    until(lambda: not patience.is_probing)


def test_a_client_is_replaced_where_others_are_answered_for_long(
    brokers: Brokers, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = reader._tail._consumer
    brokers.silent.add(A0)
    silent(reader, A0, 9)
    monkeypatch.setattr(patience_module, "REQUEST_S", 0.5)
    monkeypatch.setattr("pipeline.log.kafka.reader.REQUEST_S", 0.0)
    time.sleep(0.6)
    silent(reader, A0, 9)
    assert reader._tail._consumer is client  # the broker is away: a new client could do no more
    brokers.deaf_clients = True
    brokers.silent.clear()
    until(lambda: not reads(reader, A0, 9) and reader._tail._consumer is not client)
    brokers.deaf_clients = False
    until(lambda: reads(reader, A0, 9))


def test_slow_brokers_are_given_the_time_that_they_need(brokers: Brokers) -> None:
    patience = Patience(brokers.probe, 0.05)

    def slow(timeout_s: float) -> str:
        time.sleep(min(0.15, timeout_s))
        if timeout_s < 0.15:
            raise Retryable("too slow")
        return "at last"

    patience._probe = lambda source: time.sleep(0.15)
    with pytest.raises(Retryable):
        patience.ask(A0, slow)
    answers: list[str] = []

    def is_answered() -> bool:
        try:
            answers.append(patience.ask(A0, slow))
        except Retryable:
            return False
        return True

    until(is_answered)
    for _ in range(3):  # from now on at once
        assert patience.ask(A0, slow) == "at last"


def test_pauses_grow_and_probes_do_not_pile_up(brokers: Brokers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience_module, "_LONGEST_PAUSE_S", 0.16)
    patience = Patience(brokers.probe, 0.01)
    asked: list[float] = []

    def never(timeout_s: float) -> None:
        asked.append(time.monotonic())
        raise Retryable("does not answer")

    def is_asked_often() -> bool:
        with pytest.raises(Retryable):
            patience.ask(A0, never)
        return len(asked) > 8

    until(is_asked_often)
    pauses = [later - before for before, later in pairwise(asked)]
    assert min(pauses[-3:]) >= 0.15
    assert min(pauses[:3]) < 0.15
    assert pauses[-1] > 0.15
    assert brokers.probes <= 2 * len(asked)


def test_a_refusal_is_news_and_is_told_to_who_asks(brokers: Brokers) -> None:
    def refused(source: TopicPartition) -> None:
        raise TaskDiverged("the topic was deleted")

    patience = Patience(refused, 0.01)
    with pytest.raises(Retryable):
        patience.ask(A0, lambda timeout_s: brokers_away())
    until(lambda: not patience.is_probing)
    time.sleep(0.03)
    with pytest.raises(TaskDiverged):
        patience.ask(A0, lambda timeout_s: refused(A0))


def brokers_away() -> None:
    raise Retryable("does not answer")


def test_a_patient_log_asks_every_time(brokers: Brokers) -> None:
    patience = Patience(brokers.probe)
    waits: list[float] = []
    for _ in range(2):
        with pytest.raises(Retryable):
            patience.ask(A0, lambda timeout_s: (waits.append(timeout_s), brokers_away()))
    assert waits == [REQUEST_S, REQUEST_S]
    assert brokers.probes == 0
