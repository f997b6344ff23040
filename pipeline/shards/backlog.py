"""Committed input records that a leader has read and no block has consumed."""

from typing import Final

from pipeline.codec.topics import LogRecord, Topic
from pipeline.errors import Retryable
from pipeline.ledger.composer import Waiting
from pipeline.ledger.cursor import INPUT_TOPICS, ShardCursor
from pipeline.log.port import EventLog

_MAX_RECORDS: Final = 8_192
_MAX_BYTES: Final = 64 << 20
_PAGE_BYTES: Final = 8 << 20


class Backlog:
    """One bounded queue an input topic; reads on where it ends."""

    def __init__(self, log: EventLog, cursor: ShardCursor) -> None:
        """Begins at the cursor's positions."""
        self._log = log
        self._sources = [cursor.source(topic) for topic in INPUT_TOPICS]
        self._next = list(cursor.positions)
        self._records: tuple[list[LogRecord], list[LogRecord], list[LogRecord]] = ([], [], [])
        self._bytes = [0, 0, 0]
        self.waiting_since_ms: int | None = None
        self.silent: Retryable | None = None
        """Why an input could not be read last time; the others were."""

    def fill(self, now_ms: int, *, all_control: bool = False) -> bool:
        """Read what has been committed since, as far as there is room. An input that gives no answer is left as it is.

        `all_control`: one more page of control, room or not; True where there was one, then fill again.
        """
        more, self.silent = False, None
        for index, source in enumerate(self._sources):
            queue = self._records[index]
            room_records, room_bytes = _MAX_RECORDS - len(queue), _MAX_BYTES - self._bytes[index]
            whole = all_control and source.topic is Topic.CONTROL
            if whole:
                room_records, room_bytes = _MAX_RECORDS, _PAGE_BYTES
            if room_records <= 0 or room_bytes <= 0:
                continue
            try:
                records = self._log.read(source, self._next[index], room_records, room_bytes)
            except Retryable as error:
                self.silent = error
                continue
            if records:
                queue += records
                self._bytes[index] += _size(records)
                self._next[index] = records[-1].offset + 1
                more |= whole
        since = self.waiting_since_ms
        # A clock that was set back must not make what waits linger for as long.
        if since is not None:
            self.waiting_since_ms = min(since, now_ms)
        elif any(self._records):
            self.waiting_since_ms = now_ms
        return more

    @property
    def waiting(self) -> Waiting:
        """What waits, by topic."""
        return Waiting(*self._records)

    @property
    def next_control(self) -> int:
        """Up to where control was read."""
        return self._next[0]

    @property
    def record_count(self) -> int:
        """How many records wait."""
        return sum(len(queue) for queue in self._records)

    @property
    def size_bytes(self) -> int:
        """Bytes of the keys and values that wait."""
        return sum(self._bytes)

    def take(self, taken: tuple[int, int, int], now_ms: int) -> None:
        """Remove what a block consumes."""
        for index, count in enumerate(taken):
            self._bytes[index] -= _size(self._records[index][:count])
            del self._records[index][:count]
        self.waiting_since_ms = now_ms if any(self._records) else None


def _size(records: list[LogRecord]) -> int:
    return sum(len(value or b"") + len(key or b"") for _, key, value in records)
