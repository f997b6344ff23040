"""Readers behind an open transaction, or behind what can't be read, without a broker."""

from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition as Place

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.config import KafkaConfig
from pipeline.errors import Fatal, LogStalled, Retryable, TaskDiverged
from pipeline.log.kafka import reader as reader_module
from pipeline.log.kafka.lane import Fetched
from pipeline.log.kafka.patience import Patience
from pipeline.log.kafka.reader import Reader
from pipeline.log.kafka.settings import consumer_settings
from pipeline.log.kafka.window import Window

A0 = TopicPartition(Topic.TRANSACTIONS, 0)
NOBODY = KafkaConfig(bootstrap="127.0.0.1:1", librdkafka={"log_level": 0})  # type: ignore[arg-type]
STALL_S = 30.0
PATIENT = Patience(lambda source: 9)


class Stuck:
    """A lane whose partition has records up to 9, of which those from `stable` on are hidden."""

    def __init__(self, clock: "Clock") -> None:
        self.clock = clock
        self.stable = 5
        self.asked = 0
        self.answers_in_s = 0.001
        self.answers = True

    def high_watermark(self, source: TopicPartition) -> int:
        return 9

    def bounds(self, source: TopicPartition, timeout_s: float) -> tuple[int, int]:
        self.asked += 1
        self.clock.now_s += self.answers_in_s
        if not self.answers:
            raise Retryable("no answer from Kafka")
        return 0, self.stable


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(reader_module.time, "monotonic", lambda: made.now_s)
    return made


@pytest.fixture
def watched(clock: Clock) -> Iterator["Watched"]:
    made = Watched(clock)
    yield made
    made.reader.close()


class Watched:
    def __init__(self, clock: Clock) -> None:
        settings = consumer_settings(NOBODY, "g", committed=True)
        self.clock = clock
        self.reader = Reader(settings, lambda source: "t", lambda: Fatal("gone"), lambda source: 9, PATIENT, STALL_S)
        self.lane = Stuck(clock)
        self.fetched = Fetched(Place("t", 0), Window(5), 5, 0, 0.0, 0.0)

    def watch(self, seconds: float) -> None:
        """As a process does that finds nothing for so long."""
        until = self.clock.now_s + seconds
        while self.clock.now_s < until:
            self.reader._watch_stall(self.lane, A0, self.fetched, self.clock.now_s)  # type: ignore[arg-type]
            self.clock.now_s += 0.5


def test_what_one_transaction_hides_for_longer_than_it_may_is_told(watched: Watched) -> None:
    watched.watch(STALL_S - 1)
    with pytest.raises(LogStalled, match="a transaction that is open for 30 s hides everything from offset 5 on"):
        watched.watch(3)


def test_a_transaction_that_ended_is_not_held_against_the_log(watched: Watched) -> None:
    watched.watch(STALL_S - 1)
    watched.lane.stable = 9  # the records are on their way
    watched.watch(1.0)
    watched.lane.stable = 5
    watched.watch(STALL_S - 1)


def test_brokers_that_stand_still_can_end_no_transaction(watched: Watched) -> None:
    watched.watch(STALL_S - 1)
    watched.lane.answers_in_s = STALL_S  # stood still meanwhile, and answers now
    watched.watch(0.1)
    watched.lane.answers_in_s = 0.001
    watched.watch(STALL_S - 1)
    watched.lane.answers = False
    with pytest.raises(Retryable):
        watched.watch(1)
    watched.lane.answers = True
    watched.watch(STALL_S - 1)
    with pytest.raises(LogStalled):
        watched.watch(3)


def test_a_transaction_of_a_moment_costs_no_request(watched: Watched) -> None:
    watched.watch(0.1)
    assert watched.lane.asked == 0


class Message:
    def __init__(self, offset: int, code: int | None = None) -> None:
        self._offset, self._error = offset, None if code is None else KafkaError(code)

    def error(self) -> KafkaError | None:
        return self._error

    def offset(self) -> int:
        return self._offset

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    def key(self) -> bytes:
        return b"k"

    value = key


class Client:
    """A consumer that has 9 offsets to give, and gives what it is told in one go."""

    def __init__(self, *batches: list[Message]) -> None:
        self.batches = list(batches)
        self.places: list[int] = []
        self.closed = False

    def consume(self, count: int, timeout_s: float) -> list[Message]:
        return self.batches.pop(0) if self.batches else []

    def poll(self, timeout_s: float) -> None: ...

    def get_watermark_offsets(self, place: Place, timeout_s: float = 0, cached: bool = False) -> tuple[int, int]:
        return 0, 9

    def incremental_assign(self, places: list[Place]) -> None:
        self.places += [place.offset for place in places]

    def incremental_unassign(self, places: list[Place]) -> None: ...

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("code", "expected"), [(KafkaError.UNKNOWN, Retryable), (KafkaError._BAD_MSG, TaskDiverged)])
def test_nobody_is_given_what_stands_behind_an_error(watched: Watched, code: int, expected: type[Exception]) -> None:
    """The client skips what it can't read and goes on. An error that passes costs no other partition its client."""
    reader = watched.reader
    whole = [Message(offset) for offset in range(3, 9)]
    client = Client([Message(3), Message(4), Message(5, code), *whole[3:], Message(9, KafkaError._PARTITION_EOF)])
    reader._tail._consumer.close()
    reader._tail._consumer = client  # type: ignore[assignment]
    watched.clock.now_s += 100  # long enough since clients were made for new ones
    assert [record.offset for record in reader.read(A0, 3, 9, 1000)] == [3, 4]
    with pytest.raises(expected, match="t, partition 0"):
        reader.read(A0, 5, 9, 1000)
    client.batches.append(whole[2:])
    watched.clock.now_s += 1
    assert [record.offset for record in reader.read(A0, 5, 9, 1000)] == [5, 6, 7, 8]
    assert client.places == [3, 5]
    assert reader._tail._consumer is client  # type: ignore[comparison-overlap]
