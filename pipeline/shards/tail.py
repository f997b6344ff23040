"""The newest committed record of a partition."""

from typing import Final

from pipeline.codec.topics import LogRecord, TopicPartition
from pipeline.log.port import EventLog

_SPAN: Final = 64
_MAX_BYTES: Final = 64 << 20


def last_record(log: EventLog, source: TopicPartition) -> LogRecord | None:
    """The last record, or None where there is none: looks back in spans that grow, since offsets may have holes."""
    end, span = log.end_offset(source), _SPAN
    while end > 0:
        start = max(0, end - span)
        last, position = None, start
        # A read may give fewer than there are; only [] says that there are no more.
        while position < end and (records := log.read(source, position, span, _MAX_BYTES)):
            last, position = records[-1], records[-1].offset + 1
        if last is not None or start == 0:
            return last
        span *= 4
    return None
