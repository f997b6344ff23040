"""Changing a copy of an embedded log behind its back, with every checksum put right again.

For demonstrations and tests only: what it does to a log, an attacker with access to the disk can do, and only
signatures and hashes can tell.
"""

from collections.abc import Iterator

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.crypto.suites import SuiteSet
from pipeline.errors import ConfigError
from pipeline.kv.port import KeyValue
from pipeline.log.catalog import OFFSET, load_catalog
from pipeline.log.records import decode_page, encode_record, end_key, record_key

_PAGE = 256
_ROOM = 1 << 40


class LogEditor:
    """Reads and writes records in place. Raises `Fatal` where the log is damaged already."""

    def __init__(self, kv: KeyValue, suites: SuiteSet) -> None:
        """`kv`: the store of a log that nobody has open; the caller closes it. `suites`: to forge signatures with."""
        self._kv = kv
        self.suites = suites
        self._catalog = load_catalog(kv)

    def partitions(self, topic: Topic) -> Iterator[TopicPartition]:
        """The partitions of a topic that exist."""
        return (TopicPartition(topic, number) for number in range(self._catalog.topics.get(topic, 0)))

    def records(self, source: TopicPartition) -> list[LogRecord]:
        """All records of a partition, in order."""
        found: list[LogRecord] = []
        low, high = record_key(source, 0), record_key(source, self.end(source))
        while page := self._kv.scan(low, high, _PAGE):
            decode_page(source, page, found, _ROOM)
            low = page[-1][0] + b"\0"
        return found

    def end(self, source: TopicPartition) -> int:
        """The end offset of a partition."""
        return self._catalog.ends[source]

    def put(self, source: TopicPartition, offset: int, value: bytes, key: bytes | None = None) -> None:
        """Write a record in place, its checksum with it; moves the end if the record lies at it."""
        place = record_key(source, offset)
        batch: dict[bytes, bytes | None] = {place: encode_record(place, key, value)}
        if offset >= self.end(source):
            self._catalog.ends[source] = offset + 1
            batch[end_key(source)] = OFFSET.pack(offset + 1)
        self._kv.write(batch, sync=True)

    def remove(self, source: TopicPartition, offset: int) -> None:
        """Delete a record; its offset becomes a hole like any other."""
        self._kv.write({record_key(source, offset): None}, sync=True)

    def cut(self, source: TopicPartition, end: int) -> None:
        """Delete every record from `end` on; the partition ends there."""
        batch: dict[bytes, bytes | None] = {
            record_key(source, record.offset): None for record in self.records(source) if record.offset >= end
        }
        end = min(end, self.end(source))
        self._catalog.ends[source] = end
        self._kv.write({**batch, end_key(source): OFFSET.pack(end)}, sync=True)

    def rot(self, source: TopicPartition, offset: int) -> None:
        """Flip one stored bit and leave the checksum as it was: a failing disk, not a liar."""
        place = record_key(source, offset)
        stored = self._kv.get(place)
        if stored is None:
            raise ConfigError(f"no record at offset {offset} of {source.topic.topic_name} to damage")
        middle = len(stored) // 2
        self._kv.write({place: stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :]}, sync=True)
