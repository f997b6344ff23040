"""Logs of long-running processes on standard error: a sentence a line for people, or an object a line for machines.

Whatever happens to a shard names it, in the sentence and as the fields `shard` and `height`. What libraries log
through Python's own logging, librdkafka first of all, comes out in the same form.
"""

import logging
import re
import sys
from collections.abc import Callable
from enum import StrEnum
from time import monotonic
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_REPEAT_S: Final = 10.0
_INSTANCE: Final = re.compile(r"\[rdkafka#[^\]]*\]|\(after .*")
_MAX_KINDS: Final = 1_000


class LogFormat(StrEnum):
    """How a line looks."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least that is said. `debug`: every round too."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Repeats(logging.Filter):
    """Lets a line of the Kafka client through once in 10 s: its clients repeat themselves while a broker is away.

    Clients differ by an instance's number and a count of milliseconds only.
    """

    def __init__(self, clock_s: Callable[[], float] = monotonic) -> None:
        """Nothing said yet."""
        super().__init__()
        self._clock_s = clock_s
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is news."""
        if not record.name.startswith("pipeline.log.kafka"):
            return True
        now_s, kind = self._clock_s(), _INSTANCE.sub("", record.getMessage())
        if now_s - self._said.get(kind, -_REPEAT_S) < _REPEAT_S:
            return False
        if len(self._said) >= _MAX_KINDS:
            self._said.clear()
        self._said[kind] = now_s
        return True


def set_up_logs(form: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """Of the whole process, to standard error unless told otherwise. Replaces what was set up before."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared: list[Processor] = [structlog.stdlib.add_log_level, stamp, structlog.processors.format_exc_info]
    render: Processor = structlog.processors.JSONRenderer() if form is LogFormat.JSON else _sentence
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _ordered, render],
        )
    )
    handler.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.value.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _ordered(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Time, level and sentence first; a field without a value is left out."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "event")}
    return {**first, **{name: value for name, value in event.items() if value is not None}}


def _sentence(_logger: WrappedLogger, _name: str, event: EventDict) -> str:
    """Fields repeat what the sentence says, so they are left out here; a traceback is not."""
    line = f"{event['timestamp']} {event['level']:<7} {event['event']}"
    return "\n".join([line, event["exception"]]) if "exception" in event else line
