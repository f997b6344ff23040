"""What the embedded log knows by heart: partition counts, end offsets and writer epochs.

The bytes are those of `pipeline.log.records`; anything else under these keys is damage.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from struct import error as struct_error
from typing import Final

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.errors import Fatal
from pipeline.kv.port import KeyValue
from pipeline.log.records import ENDS, TOPICS, WRITERS, record_key, records_end_key

MAX_PARTITIONS: Final = 0xFFFF
COUNT: Final = Struct(">I")
OFFSET: Final = Struct(">Q")
_PAGE: Final = 4096
_PARTITION: Final = Struct(">BH")


@dataclass(frozen=True, slots=True)
class Catalog:
    """Partition counts by topic, end offsets of every partition, epochs by writer id."""

    topics: dict[Topic, int]
    ends: dict[TopicPartition, int]
    epochs: dict[str, int]


def load_catalog(kv: KeyValue) -> Catalog:
    """Read the metadata. Raises `Fatal` where it is damaged."""
    topics: dict[Topic, int] = {}
    ends: dict[TopicPartition, int] = {}
    epochs: dict[str, int] = {}
    try:
        for suffix, value in _entries(kv, TOPICS):
            topic, count = Topic(suffix[0]), _partition_count(value)
            topics[topic] = count
            ends |= {TopicPartition(topic, partition): 0 for partition in range(count)}
        for suffix, value in _entries(kv, ENDS):
            number, partition = _PARTITION.unpack(suffix)
            source = TopicPartition(Topic(number), partition)
            if source not in ends:
                raise Fatal(f"damaged log: end offset of unknown partition {source}: restore it from a backup")
            (ends[source],) = OFFSET.unpack(value)
        for suffix, value in _entries(kv, WRITERS):
            (epochs[suffix.decode()],) = OFFSET.unpack(value)
    except (ValueError, IndexError, struct_error) as error:
        raise Fatal(f"damaged log: metadata can't be read ({error}): restore it from a backup") from None
    return Catalog(topics, ends, epochs)


def check_ends(kv: KeyValue, catalog: Catalog) -> None:
    """Raise `Fatal` where a record lies at or behind its partition's end: it would be overwritten."""
    for source, end in catalog.ends.items():
        if kv.scan(record_key(source, end), records_end_key(source), 1):
            raise Fatal(
                f"damaged log: {source.topic.topic_name}, partition {source.partition} has records behind its "
                f"end offset {end}: restore it from a backup"
            )


def _partition_count(stored: bytes) -> int:
    (count,) = COUNT.unpack(stored)
    if not 1 <= count <= MAX_PARTITIONS:
        raise ValueError(f"{count} partitions")
    return int(count)


def _entries(kv: KeyValue, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All pairs under a one-byte prefix, keys without it."""
    start, end = prefix, bytes((prefix[0] + 1,))
    while page := kv.scan(start, end, _PAGE):
        for key, value in page:
            yield key[1:], value
        start = page[-1][0] + b"\0"
