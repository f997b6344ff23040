"""A copy of any event log as an embedded one, record for record at the same offsets.

What a cluster holds can't be changed through its protocol, so whoever wants to show that damage is noticed damages a
copy. An audit reads both through the same port: what it says about the copy holds for a cluster with those records.
"""

from pathlib import Path
from typing import Final

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.kv.port import KeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.log.catalog import OFFSET
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import EventLog
from pipeline.log.records import encode_record, end_key, record_key

_PAGE: Final = 1_024
_PAGE_BYTES: Final = 8 << 20


def copy_log(source: EventLog, path: Path) -> int:
    """Copy all committed records, as of now, to a new embedded log in directory `path`; how many those are.

    Offsets are kept, holes too. Raises as `EventLog.read`, and as opening a store does.
    """
    kv = open_rocks(path)
    copy = EmbeddedLog(kv, durability="process")
    try:
        count = 0
        for topic in Topic:
            partitions = source.partitions(topic)
            if partitions:
                copy.create_topic(topic, partitions)
            count += sum(_copy_partition(source, kv, TopicPartition(topic, number)) for number in range(partitions))
        return count
    finally:
        copy.close()


def _copy_partition(source: EventLog, kv: KeyValue, place: TopicPartition) -> int:
    count, position, end = 0, 0, source.end_offset(place)
    while position < end and (records := source.read(place, position, _PAGE, _PAGE_BYTES)):
        batch: dict[bytes, bytes | None] = {}
        for offset, key, value in records:
            target = record_key(place, offset)
            batch[target] = encode_record(target, key, value)
        position = records[-1].offset + 1
        end = max(end, position)  # what came meanwhile
        kv.write(batch, sync=False)
        count += len(records)
    kv.write({end_key(place): OFFSET.pack(end)}, sync=False)
    return count
