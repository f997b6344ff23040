"""Reading a partition once from a position to its end, what was never committed too."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from pipeline.codec.topics import LogRecord, TopicPartition
from pipeline.errors import HauptbuchError, Retryable, TaskDiverged
from pipeline.log.kafka.lane import Lane
from pipeline.log.kafka.patience import REQUEST_S
from pipeline.log.kafka.settings import Settings

_PAGE: Final = 256
_PAGE_BYTES: Final = 8 << 20
_PUMP_S: Final = 0.02


def read_uncommitted(
    settings: Settings,
    name_of: Callable[[TopicPartition], str],
    missing: Callable[[], HauptbuchError],
    source: TopicPartition,
    start: int,
) -> Iterator[LogRecord]:
    """As `EventLog.read_uncommitted`. `settings` are of a consumer that does not isolate."""
    lane = Lane(settings, name_of, missing)
    try:
        low, end = lane.bounds(source, REQUEST_S)
        name = f"{name_of(source)}, partition {source.partition}"
        if not low <= start <= end:
            raise TaskDiverged(
                f"{name} has offsets {low} to {end}, but {start} was asked for: the log was cut or replaced; restore it"
            )
        yield from _records(lane, source, start, end, name)
    finally:
        lane.close()


def _records(lane: Lane, source: TopicPartition, start: int, end: int, name: str) -> Iterator[LogRecord]:
    arrived_s = time.monotonic()
    fetched = lane.fetch(source, start, end, 0, arrived_s)
    window = fetched.window
    while start < end:
        records = window.take(start, _PAGE, _PAGE_BYTES)
        if records:
            yield from (record for record in records if record.offset < end)
            start, arrived_s = records[-1].offset + 1, time.monotonic()
            lane.resume(fetched)
        elif fetched.error is not None:
            raise fetched.error
        elif window.high >= end:
            return  # the rest are marks of transactions
        elif time.monotonic() - arrived_s > REQUEST_S:
            raise Retryable(f"{name}: Kafka gave nothing from offset {window.high} on in {REQUEST_S:.0f} s")
        else:
            lane.pump(_PUMP_S)
