"""Records that name a number, a height or a round, and stand in its order, among such as anybody may have made up.

A record that names a number of the future is not believed: it may be true, with what belongs before it gone, or made up
to hide what stands behind it. So it is set aside until its number comes, and reading goes on.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from pipeline.audit.streams import RecordStream
from pipeline.codec.topics import LogRecord

MOST_ASIDE: Final = 4096
_MOST_ASIDE_BYTES: Final = 64 << 20

NumberOf = Callable[[LogRecord], int]
"""What a record names; -1 where it names nothing that can be right: such a record is never set aside."""


class NumberedRecords:
    """A partition's records for one number after the other.

    At most `MOST_ASIDE` records of later numbers are set aside: with more of them in front, what stands behind them
    counts as missing. Those beyond `last`, a number that nothing honest exceeds, are not of them.
    """

    def __init__(self, stream: RecordStream, number_of: NumberOf, last: Callable[[], int]) -> None:
        """`last` is asked where a record names more than it said before."""
        self._stream = stream
        self._number_of = number_of
        self._ask_last = last
        self._last = -1
        self._aside: deque[tuple[int, LogRecord]] = deque()
        self._aside_bytes = 0

    @property
    def position(self) -> int:
        """Offset of the next record, or one before it; the end where there is none."""
        return self._aside[0][1].offset if self._aside else self._stream.position

    def next_for(self, number: int) -> LogRecord | None:
        """The next record that is not of a later number; None where there is none within reach."""
        for index, (named, record) in enumerate(self._aside):
            if named <= number:
                del self._aside[index]
                self._aside_bytes -= len(record.value or b"")
                return record
        while not self._is_full and (later := self._pop()) is not None:
            named = self._number_of(later)
            if named <= number or self._is_beyond(named):
                return later
            self._aside.append((named, later))
            self._aside_bytes += len(later.value or b"")
        return None

    def rest(self, end: int) -> list[LogRecord]:
        """No number follows: all that is left below the offset `end`."""
        records = [record for _, record in self._aside if record.offset < end]
        self._aside.clear()
        while (record := self._stream.peek()) is not None and record.offset < end:
            records.append(record)
            self._stream.pop()
        return records

    def _pop(self) -> LogRecord | None:
        record = self._stream.pop()
        return self._stream.pop() if record is None and self._stream.extend() else record

    @property
    def _is_full(self) -> bool:
        return len(self._aside) >= MOST_ASIDE or self._aside_bytes >= _MOST_ASIDE_BYTES

    def _is_beyond(self, named: int) -> bool:
        if named > self._last:
            self._last = self._ask_last()
        return named > self._last
