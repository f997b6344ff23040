"""The part of a partition that a consumer has fetched: a contiguous stretch of its offsets.

Several readers of one partition in one process stand at nearly the same place, so what one of them took stays a while
for the others; without it each would move the one consumer back.
"""

from bisect import bisect_left, bisect_right
from typing import Final

from pipeline.codec.topics import LogRecord

KEPT_RECORDS: Final = 4_096
KEPT_BYTES: Final = 4 << 20
FULL_RECORDS: Final = 16_384
FULL_BYTES: Final = 32 << 20


class Window:
    """Committed records of the offsets [`low`, `high`). `high` is where the consumer stands."""

    __slots__ = ("_offsets", "_records", "_taken", "_totals", "high", "low")

    def __init__(self, start: int) -> None:
        """Nothing fetched yet."""
        self.low = start
        self.high = start
        self._offsets: list[int] = []
        self._records: list[LogRecord] = []
        self._totals: list[int] = []  # bytes of keys and values up to and with each record, from any origin
        self._taken = start

    def add(self, record: LogRecord) -> None:
        """The next record of the partition."""
        offset, key, value = record
        assert offset >= self.high, f"offset {offset} was fetched after {self.high}"
        total = self._totals[-1] if self._totals else 0
        self._totals.append(total + (len(key) if key else 0) + (len(value) if value else 0))
        self._offsets.append(offset)
        self._records.append(record)
        self.high = offset + 1

    def reach(self, offset: int) -> None:
        """There is nothing before `offset` that was not added."""
        self.high = max(self.high, offset)

    def covers(self, start: int) -> bool:
        """Whether records from `start` on are here, or come next."""
        return self.low <= start <= self.high

    def has(self, start: int) -> bool:
        """Whether a record with offset >= `start` was fetched."""
        return bool(self._offsets) and self._offsets[-1] >= start

    def take(self, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        """Fetched records from `start` on within both limits; the first fits always."""
        totals = self._totals
        first = bisect_left(self._offsets, start)
        if first == len(totals):
            self._taken = max(self._taken, start)
            return []
        before = totals[first - 1] if first else totals[0] - _size(self._records[0])
        last = bisect_right(totals, before + max_bytes, first, min(first + max_records, len(totals)))
        records = self._records[first : max(last, first + 1)]
        self._taken = max(self._taken, records[-1].offset + 1)
        self._trim()
        return records

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be taken that fetching should pause."""
        untaken = bisect_left(self._offsets, self._taken)
        waiting = len(self._offsets) - untaken
        if waiting >= FULL_RECORDS:
            return True
        return waiting > 0 and self._totals[-1] - self._totals[untaken] > FULL_BYTES

    def _trim(self) -> None:
        """Forget what was taken long ago; seldom, since it moves all the rest."""
        taken = bisect_left(self._offsets, self._taken)
        if taken < 2 * KEPT_RECORDS and (not taken or self._totals[taken - 1] - self._totals[0] < 2 * KEPT_BYTES):
            return
        first = max(taken - KEPT_RECORDS, bisect_left(self._totals, self._totals[taken - 1] - KEPT_BYTES))
        self.low = self._offsets[first - 1] + 1
        del self._offsets[:first], self._records[:first], self._totals[:first]


def _size(record: LogRecord) -> int:
    return len(record.key or b"") + len(record.value or b"")
