"""Reading a partition that may be damaged: what can't be read becomes a finding, and reading goes on behind it."""

from collections import deque
from time import monotonic
from typing import Final

from pipeline.audit.findings import Finding, FindingKind, Report, one_line
from pipeline.codec.topics import LogRecord, TopicPartition
from pipeline.errors import LogStalled, Retryable
from pipeline.ledger.cursor import INPUT_TOPICS
from pipeline.log.port import EventLog

_PAGE: Final = 256
_PAGE_BYTES: Final = 8 << 20
_SETTLE_S: Final = 60.0
"""Longer than any transaction may stay open; one that does so nevertheless ends the audit with a word about it."""
_SHARED: Final = ("control", "checkpoints")


class RecordStream:
    """Records of one partition, in order, one ahead by `peek`."""

    def __init__(
        self, log: EventLog, source: TopicPartition, report: Report, *, start: int = 0, end: int | None = None
    ) -> None:
        """From `start` to before `end` (None: the end as of now)."""
        self._log = log
        self._report = report
        self._next = start
        self._page: deque[LogRecord] = deque()
        self.source = source
        self.end = log.end_offset(source) if end is None else end

    def peek(self) -> LogRecord | None:
        """The next record, left in place; None at the end."""
        while not self._page and self._next < self.end:
            self._fill()
        return self._page[0] if self._page else None

    def pop(self) -> LogRecord | None:
        """The next record; None at the end."""
        record = self.peek()
        if record is not None:
            self._page.popleft()
        return record

    def extend(self) -> bool:
        """Take in what was appended meanwhile; whether there was anything."""
        before, self.end = self.end, max(self.end, self._log.end_offset(self.source))
        return self.end > before

    @property
    def position(self) -> int:
        """Offset of the next record, or one before it; the end where there is none."""
        return self._page[0].offset if self._page else self._next

    def _fill(self) -> None:
        records = self._read()
        if not records and self._next < self.end:
            # A hole at the end, or records that an open transaction hides until it ends.
            self._settle()
            records = self._read()
        if not records:
            self._next = self.end
            return
        self._next = records[-1].offset + 1
        self._page.extend(record for record in records if record.offset < self.end)

    def _read(self) -> list[LogRecord]:
        try:
            return self._log.read(self.source, self._next, _PAGE, _PAGE_BYTES)
        except Exception as error:  # noqa: BLE001 - a hostile log may make its reader raise anything
            return self._read_around(error)

    def _settle(self) -> None:
        deadline = monotonic() + _SETTLE_S
        while True:
            try:
                self._log.settle(self.source)
            except LogStalled:
                raise
            except Retryable:
                if monotonic() > deadline:
                    raise
            else:
                return

    def _read_around(self, error: Exception) -> list[LogRecord]:
        """One record, and a finding for the damaged one before it, if the page begins with that."""
        damaged = None
        for offset in range(self._next, self.end):
            try:
                records = self._log.read(self.source, offset, 1, _PAGE_BYTES)
            except Exception as found:  # noqa: BLE001 - as above
                damaged, error = offset, found
                continue
            if damaged is not None:
                self._report(damage(self.source, damaged, error))
            return records
        self._report(damage(self.source, damaged, error))
        self._next = self.end  # nobody reads that again
        return []


def damage(source: TopicPartition, offset: int | None, error: Exception) -> Finding:
    """Stored bytes that the log itself refuses."""
    shard = None if source.topic.topic_name in _SHARED else source.partition
    return Finding(FindingKind.STORAGE_DAMAGED, one_line(error), shard, None, source.topic, offset)


def find_damage(
    log: EventLog, shard: int, positions: tuple[int, int, int], ends: tuple[int, int, int]
) -> list[Finding]:
    """The damaged records among a block's inputs: its ranges of control, relay and transactions, one by one."""
    found: list[Finding] = []
    for topic, start, end in zip(INPUT_TOPICS, positions, ends, strict=True):
        source = TopicPartition(topic, 0 if topic.topic_name in _SHARED else shard)
        stream = RecordStream(log, source, found.append, start=start, end=min(end, log.end_offset(source)))
        while stream.pop() is not None:
            pass
    return found
