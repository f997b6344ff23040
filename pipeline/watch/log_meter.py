"""Asking the cluster for a scrape: in a thread of its own, over a log of its own.

So neither the driver nor a scrape ever waits for brokers that are away.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Condition, Thread
from typing import Final, Protocol

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


Measure = Callable[[MeasuredLog], Sequence[Metric]]


class LogMeter:
    """Runs `measure` when asked. The log is opened at the first time; a measure that fails has no series."""

    def __init__(
        self, open_log: Callable[[], MeasuredLog], measure: Measure, *, patience_s: float = _PATIENCE_S
    ) -> None:
        """Nothing runs before the first scrape."""
        self._open_log = open_log
        self._measure = measure
        self._patience_s = patience_s
        self._changed = Condition()
        self._asked = self._answered = 0
        self._answer: Sequence[Metric] | None = None
        self._closed = False
        self._thread = Thread(target=self._serve, name="log meter", daemon=True)

    def collect(self) -> Iterator[Metric]:
        """A measure that began after this call, or nothing where the cluster is slower than our patience."""
        with self._changed:
            if self._thread.ident is None:
                self._thread.start()
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
            started = self._thread.ident is not None
        if started:
            self._thread.join(self._patience_s)

    def _serve(self) -> None:
        with contextlib.ExitStack() as stack:
            log: MeasuredLog | None = None
            while (asked := self._next_question()) is not None:
                answer: Sequence[Metric] | None = None
                try:
                    if log is None:
                        log = self._open_log()
                        stack.callback(log.close)
                    answer = self._measure(log)
                except HauptbuchError as error:
                    structlog.get_logger("hauptbuch").debug(f"metrics: the log gave no answer: {error}")
                except Exception:  # noqa: BLE001 - a thread that dies silently would be waited for at every scrape
                    structlog.get_logger("hauptbuch").exception("metrics: the log could not be measured")
                with self._changed:
                    self._answer, self._answered = answer, asked
                    self._changed.notify_all()

    def _next_question(self) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._asked > self._answered or self._closed)
            return None if self._closed else self._asked


def hidden_records(log: MeasuredLog, sources: Iterable[TopicPartition]) -> Metric:
    """What open transactions hide on each partition. Raises as the log."""
    samples: list[Sample] = []
    for source in sources:
        end = log.end_offset(source)  # first, so that what comes between the two calls is not taken for hidden
        hidden = max(0, end - log.stable_end(source))
        samples.append(((source.topic.topic_name, source.partition), float(hidden)))
    return family("hauptbuch_log_hidden_records", samples)
