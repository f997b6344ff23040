"""A copy of a log has the same records at the same offsets, and the same ends."""

from pathlib import Path

import pytest

from pipeline.audit import log_copy
from pipeline.audit.log_copy import copy_log
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.kv.memory import MemoryKeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append


def filled_log() -> EmbeddedLog:
    """Keys, nulls, holes inside and at the end, a topic without records, topics that are not there."""
    log = EmbeddedLog(MemoryKeyValue())
    for topic, partitions in ((Topic.TRANSACTIONS, 3), (Topic.BLOCKS, 2), (Topic.CONTROL, 1)):
        log.create_topic(topic, partitions)
    writer = log.writer("w")
    for number in range(5):
        log.append([Append(TopicPartition(Topic.TRANSACTIONS, number % 2), b"key" if number else b"", b"%d" % number)])
        appends = [
            Append(TopicPartition(Topic.TRANSACTIONS, 0), None, None),
            Append(TopicPartition(Topic.BLOCKS, 1), None, bytes([number])),
        ]
        writer.begin_commit(appends)
        assert writer.poll_commit() is not None
    return log


@pytest.mark.parametrize("page", [1, 1_024])
def test_it_is_the_same_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(log_copy, "_PAGE", page)
    source = filled_log()
    assert copy_log(source, tmp_path / "log") == 15
    copy = EmbeddedLog(open_rocks(tmp_path / "log"))
    try:
        for topic in Topic:
            assert copy.partitions(topic) == source.partitions(topic)
            for number in range(source.partitions(topic)):
                place = TopicPartition(topic, number)
                assert copy.end_offset(place) == source.end_offset(place)
                assert copy.read(place, 0, 100, 1 << 20) == source.read(place, 0, 100, 1 << 20)
        assert copy.end_offset(TopicPartition(Topic.BLOCKS, 1)) == 10
    finally:
        copy.close()
        source.close()
