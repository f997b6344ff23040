"""Asking the cluster for a scrape: in a thread of its own, over a log of its own.

So neither the driver nor a scrape ever waits for brokers that are away.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from threading import Condition, Thread
from typing import Final, Protocol, TypeVar

import structlog
from prometheus_client.metrics_core import Metric

from pipeline.codec.topics import LogRecord, TopicPartition
from pipeline.errors import HauptbuchError
from pipeline.watch.names import Sample, family

_PATIENCE_S: Final = 2.0
"""How long a scrape waits; Prometheus gives up on all of it after 10 s by default."""


class MeasuredLog(Protocol):
    """As `pipeline.log.kafka.KafkaLog`."""

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        """As the event log port."""

    def end_offset(self, source: TopicPartition) -> int:
        """As the event log port."""

    def stable_end(self, source: TopicPartition) -> int:
        """The last stable offset."""

    def close(self) -> None:
        """As the event log port."""


_Answer = TypeVar("_Answer")
Measure = Callable[[MeasuredLog], Sequence[Metric]]


class LogMeter:
    """Runs `measure` when asked; a measure that fails has no series."""

    def __init__(
        self, open_log: Callable[[], MeasuredLog], measure: Measure, *, patience_s: float = _PATIENCE_S
    ) -> None:
        """Opens the log at once, since that can take longer than a scrape waits."""
        self._open_log = open_log
        self._measure = measure
        self._patience_s = patience_s
        self._changed = Condition()
        self._asked = self._answered = 0
        self._answer: Sequence[Metric] | None = None
        self._closed = False
        self._thread = Thread(target=self._serve, name="log meter", daemon=True)
        self._thread.start()

    def collect(self) -> Iterator[Metric]:
        """A measure that began after this call, or nothing where the cluster is slower than our patience."""
        with self._changed:
            self._asked += 1
            mine = self._asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._answered >= mine or self._closed, self._patience_s)
            answer = self._answer if self._answered >= mine else None
        yield family("hauptbuch_log_answers", [([], float(answer is not None))])
        yield from answer or ()

    def close(self) -> None:
        """Let the thread end; waits for it as long as a scrape would."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(self._patience_s)

    def _serve(self) -> None:
        with contextlib.ExitStack() as stack:
            log = self._opened(stack)
            while (asked := self._next_question()) is not None:
                log = log or self._opened(stack)
                answer = None if log is None else _attempt(partial(self._measure, log))
                with self._changed:
                    self._answer, self._answered = answer, asked
                    self._changed.notify_all()

    def _opened(self, stack: contextlib.ExitStack) -> MeasuredLog | None:
        log = _attempt(self._open_log)
        if log is not None:
            stack.callback(log.close)
        return log

    def _next_question(self) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._asked > self._answered or self._closed)
            return None if self._closed else self._asked


def _attempt(ask: Callable[[], _Answer]) -> _Answer | None:
    try:
        return ask()
    except HauptbuchError as error:
        structlog.get_logger("hauptbuch").debug(f"metrics: the log gave no answer: {error}")
    except Exception:  # noqa: BLE001 - a thread that dies silently would be waited for at every scrape
        structlog.get_logger("hauptbuch").exception("metrics: the log could not be measured")
    return None


def hidden_records(log: MeasuredLog, sources: Iterable[TopicPartition]) -> Metric:
    """What open transactions hide on each partition. Raises as the log."""
    samples: list[Sample] = []
    for source in sources:
        end = log.end_offset(source)  # first, so that what comes between the two calls is not taken for hidden
        hidden = max(0, end - log.stable_end(source))
        samples.append(((source.topic.topic_name, source.partition), float(hidden)))
    return family("hauptbuch_log_hidden_records", samples)
