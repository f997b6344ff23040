"""Writers of the Kafka log without a broker: a client that does as it is told, or that nobody answers."""

import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline.codec.topics import Topic, TopicPartition
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
from pipeline.log.kafka import writer
from pipeline.log.kafka.settings import Settings, writer_settings
from pipeline.log.kafka.writer import KafkaWriter
from pipeline.log.port import Append

A0 = TopicPartition(Topic.TRANSACTIONS, 0)
NOBODY = KafkaConfig(bootstrap="127.0.0.1:1", librdkafka={"log_level": 0})  # type: ignore[arg-type]


class Script:
    """A producer of the client's that does as it is told; what it raises is the client's."""

    def __init__(self, commits: list[KafkaError | None], delivers: bool = True) -> None:
        self.commits, self.delivers = commits, delivers
        self.aborted = self.closed = False
        self.waiting: list[Any] = []
        self.opens: list[KafkaError] = []
        self.aborts: list[KafkaError] = []

    def list_topics(self, topic: str, timeout: float) -> None: ...

    def init_transactions(self, timeout: float) -> None:
        if self.opens:
            raise KafkaException(self.opens.pop(0))

    def begin_transaction(self) -> None: ...

    def produce(self, topic: str, value: bytes, key: bytes, partition: int, on_delivery: Any) -> None:
        self.waiting.append(on_delivery)

    def flush(self, timeout: float) -> int:
        time.sleep(0.001)
        return 0 if self._report() else len(self.waiting)

    def _report(self) -> bool:
        if self.delivers:
            for report in self.waiting:
                report(None, type("Message", (), {"offset": lambda self: 7})())
            self.waiting.clear()
        return self.delivers

    def commit_transaction(self, timeout: float) -> None:
        self._report()
        error = self.commits.pop(0) if len(self.commits) > 1 else self.commits[0]
        if error is not None:
            raise KafkaException(error)

    def abort_transaction(self, timeout: float) -> None:
        self.aborted = True
        if self.aborts:
            raise KafkaException(self.aborts.pop(0))

    def close(self) -> None:
        self.closed = True


def scripted(script: Script, monkeypatch: pytest.MonkeyPatch) -> KafkaWriter:
    monkeypatch.setattr(writer, "Producer", lambda settings: script)
    monkeypatch.setattr(writer, "COMMIT_S", 0.3)
    return opened({})


def opened(settings: Settings, refuse: Callable[[], None] = lambda: None) -> KafkaWriter:
    made = KafkaWriter(settings, "w", lambda appends: None, lambda source: "t", refuse)
    try:
        made.await_open()
    finally:
        if made._refused is not None:
            made.close()
            made.join(10)
    return made


def outcome(made: KafkaWriter) -> object:
    made.begin_commit([Append(A0, None, b"x")] * 2)
    deadline = time.monotonic() + 10
    while (done := made.poll_commit()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return done


TIMEOUT = KafkaError(KafkaError._TIMED_OUT, "slow", retriable=True)


def test_a_commit_that_times_out_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script([TIMEOUT, TIMEOUT, None])
    made = scripted(script, monkeypatch)
    assert getattr(outcome(made), "offsets", None) == (7, 7)
    made.close()
    made.join(10)
    assert script.closed
    assert not script.aborted


@pytest.mark.parametrize(
    ("script", "expected", "aborted"),
    [
        (Script([TIMEOUT]), OutcomeUnknown, False),
        (Script([KafkaError(KafkaError._STATE, "?")]), OutcomeUnknown, False),
        (Script([KafkaError(KafkaError._FAIL, "?", txn_requires_abort=True)]), TransactionAbortable, True),
        (Script([None], delivers=False), TransactionAbortable, False),
    ],
)
def test_a_writer_that_failed_stays_failed(
    script: Script, expected: type[HauptbuchError], aborted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scripted(script, monkeypatch)
    with pytest.raises(expected):
        outcome(made)
    assert script.aborted is aborted
    with pytest.raises(expected):
        made.begin_commit([])
    made.close()


def test_whoever_was_fenced_hears_it_from_the_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a transaction that meets a newer writer's opening can fail as if the broker had a fault."""
    odd = KafkaError(KafkaError.UNKNOWN, "a fault of the broker", txn_requires_abort=True)
    for said, expected in (
        (KafkaError(KafkaError._FENCED, "a newer one", fatal=True), TaskFenced),
        (KafkaError(KafkaError._TIMED_OUT, "slow", retriable=True), TransactionAbortable),
    ):
        script = Script([odd])
        script.aborts = [said]
        made = scripted(script, monkeypatch)
        with pytest.raises(expected):
            outcome(made)
        assert script.aborted
        made.close()


def test_the_client_of_a_failed_commit_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    clients: list[weakref.ref[Script]] = []

    def client(_settings: Settings) -> Script:
        made = Script([KafkaError(KafkaError._FENCED, "a newer one", fatal=True)])
        clients.append(weakref.ref(made))
        return made

    monkeypatch.setattr(writer, "Producer", client)
    gc.disable()
    try:
        made = opened({})
        with pytest.raises(TaskFenced):
            outcome(made)
        made.join(10)
        assert [found() for found in clients] == [None]
    finally:
        gc.enable()


def test_an_opening_that_does_not_come_to_its_end_is_resumed_by_the_same_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "_PAUSE_S", 0)
    script, made = Script([None]), []
    script.opens = [TIMEOUT, KafkaError(KafkaError._TRANSPORT, "no broker"), TIMEOUT]
    monkeypatch.setattr(writer, "Producer", lambda settings: made.append(1) or script)
    one = opened({})
    assert len(made) == 1
    assert getattr(outcome(one), "offsets", None) == (7, 7)
    one.close()
    one.join(10)

    script.opens = [KafkaError(KafkaError._FENCED, "a newer one")]
    with pytest.raises(TaskFenced):
        opened({})
    script.opens = [KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "no")]
    with pytest.raises(ConfigError):
        opened({})


def test_who_may_refuse_what_was_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "Producer", lambda settings: Script([None]))

    def replaced() -> None:
        raise TaskDiverged("another topic")

    def broken() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(TaskDiverged, match="another topic"):
        opened({}, replaced)
    with pytest.raises(OutcomeUnknown, match="a bug"):
        opened({}, broken)


def test_a_writer_is_busy_until_somebody_was_told_that_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(writer, "Producer", lambda settings: Script([None]))
    made = KafkaWriter({}, "w", lambda appends: None, lambda source: "t", lambda: go_on.wait(10))  # type: ignore[arg-type]
    assert not made.poll_open()
    assert made.is_busy
    assert not made.is_due
    go_on.set()
    deadline = time.monotonic() + 10
    while not made.is_due:
        assert time.monotonic() < deadline
    assert made.is_busy
    assert made.poll_open()
    assert not made.is_busy
    assert not made.is_due
    made.close()
    made.join(10)


class Late(Script):
    """A client whose request for an epoch is answered late."""

    def __init__(self, answer: threading.Event) -> None:
        super().__init__([None])
        self.answer = answer

    def init_transactions(self, timeout: float) -> None:
        if not self.answer.wait(0.01):
            raise KafkaException(TIMEOUT)


def test_a_request_for_an_epoch_that_is_answered_late_fences_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_OPEN_S", 0.1)
    answer, clients = threading.Event(), list[Late]()

    def client(_settings: Settings) -> Late:
        clients.append(Late(answer))
        return clients[-1]

    monkeypatch.setattr(writer, "Producer", client)

    def begun(older: KafkaWriter | None) -> KafkaWriter:
        return KafkaWriter({}, "w", lambda appends: None, lambda source: "t", lambda: None, older)

    first = begun(None)
    with pytest.raises(Retryable, match="could not be opened"):
        first.await_open()
    second = begun(first)
    with pytest.raises(Retryable, match="an earlier request has no answer"):
        second.await_open()
    third = begun(second)
    with pytest.raises(Retryable, match="an earlier request has no answer"):
        third.await_open()
    assert len(clients) == 1
    answer.set()
    first.join(10)
    assert clients[0].closed
    last = begun(third)
    last.await_open()
    assert len(clients) == 2
    last.close()
    last.join(10)


def test_a_client_that_could_not_be_opened_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_OPEN_S", 0.05)
    clients: list[weakref.ref[Script]] = []

    def client(_settings: Settings) -> Script:
        made = Script([None])
        made.list_topics = failing  # type: ignore[method-assign]
        clients.append(weakref.ref(made))
        return made

    def failing(*_arguments: object, **_options: object) -> None:
        raise KafkaException(TIMEOUT)

    monkeypatch.setattr(writer, "Producer", client)
    gc.disable()
    try:
        made = KafkaWriter({}, "w", lambda appends: None, lambda source: "t", lambda: None)
        with pytest.raises(Retryable, match="could not be opened"):
            made.await_open()
        made.join(10)
        assert [found() for found in clients] == [None]
    finally:
        gc.enable()


def test_nobody_answers_a_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_OPEN_S", 0.2)
    with pytest.raises(Retryable, match="could not be opened"):
        opened(writer_settings(NOBODY, 1000, "w"))
