"""Bytes of the embedded log in its key-value store.

Record: key `r` ‖ topic:1 ‖ partition:2 ‖ offset:8, value flags:1 ‖ key length:4 ‖ key ‖ value ‖ CRC-32:4. Flag 1
says that the key is there, flag 2 that the value is (else null). Topic: `t` ‖ topic:1 → partitions:4. End:
`e` ‖ topic:1 ‖ partition:2 → offset:8. Writer: `w` ‖ id in UTF-8 → epoch:8. Integers are unsigned big-endian.

The CRC (IEEE 802.3, as zlib's) covers the store key too, so that a record in another's place is damage. It is
stored little-endian: then the CRC of a whole undamaged record is one constant, and checking needs no slicing.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final
from zlib import crc32

from pipeline.codec.topics import LogRecord, TopicPartition
from pipeline.errors import Fatal

_RECORD_KEY: Final = Struct(">cBHQ")
_END_KEY: Final = Struct(">cBH")
_HEAD: Final = Struct(">BI")
_CRC: Final = Struct("<I")
_HEAD_SIZE: Final = 5
_CRC_SIZE: Final = 4
_RESIDUE: Final = 0x2144DF1C  # CRC-32 of any message followed by its own CRC, low byte first
_HAS_KEY: Final = 1
_HAS_VALUE: Final = 2
_OFFSET_AT: Final = 4

RECORDS: Final = b"r"
TOPICS: Final = b"t"
ENDS: Final = b"e"
WRITERS: Final = b"w"


def record_key(source: TopicPartition, offset: int) -> bytes:
    """12 bytes that sort by topic, partition, offset."""
    return _RECORD_KEY.pack(RECORDS, source.topic, source.partition, offset)


def records_end_key(source: TopicPartition) -> bytes:
    """The first key behind every record of the partition."""
    return _END_KEY.pack(RECORDS, source.topic, source.partition) + b"\xff" * 9


def end_key(source: TopicPartition) -> bytes:
    """Where the partition's end offset is kept."""
    return _END_KEY.pack(ENDS, source.topic, source.partition)


def encode_record(store_key: bytes, key: bytes | None, value: bytes | None) -> bytes:
    """The stored value of a record."""
    flags = (0 if key is None else _HAS_KEY) | (0 if value is None else _HAS_VALUE)
    key = key or b""
    value = value or b""
    head = _HEAD.pack(flags, len(key)) + key
    return b"".join((head, value, _CRC.pack(crc32(value, crc32(head, crc32(store_key))))))


def decode_page(
    source: TopicPartition, page: Sequence[tuple[bytes, bytes]], records: list[LogRecord], room: int
) -> int:
    """Add the records of a scanned page to `records` while their keys and values fit into `room` bytes.

    The first one of `records` fits whatever its size. Returns the room that is left. Raises `Fatal` naming
    topic, partition and offset of a damaged record.
    """
    add, head, from_bytes = records.append, _HEAD.unpack_from, int.from_bytes
    new = tuple.__new__  # what LogRecord() ends in, without its Python frame: a fifth of the time here
    for store_key, stored in page:
        offset = from_bytes(store_key[_OFFSET_AT:])
        value_end = len(stored) - _CRC_SIZE
        if value_end < _HEAD_SIZE or crc32(stored, crc32(store_key)) != _RESIDUE:
            raise _damaged(source, offset)
        size = value_end - _HEAD_SIZE
        if size > room and records:
            break
        room -= size
        flags, key_length = head(stored)
        if flags == _HAS_VALUE and not key_length:  # the common shape
            add(new(LogRecord, (offset, None, stored[_HEAD_SIZE:value_end])))
            continue
        value_at = _HEAD_SIZE + key_length
        if (
            flags > _HAS_KEY | _HAS_VALUE
            or value_at > value_end
            or (key_length and not flags & _HAS_KEY)
            or (value_at < value_end and not flags & _HAS_VALUE)
        ):
            raise _damaged(source, offset)
        key = stored[_HEAD_SIZE:value_at] if flags & _HAS_KEY else None
        add(new(LogRecord, (offset, key, stored[value_at:value_end] if flags & _HAS_VALUE else None)))
    return room


def _damaged(source: TopicPartition, offset: int) -> Fatal:
    return Fatal(
        f"damaged record on {source.topic.topic_name}, partition {source.partition}, offset {offset}: "
        "restore the log from a backup"
    )
