"""Clocks that jump: far ahead halts, back stays monotone and unsigned until the time has come."""

import pytest
from fault_bed import Bed

from pipeline.audit.tools import open_directory
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.errors import Fatal, TaskDiverged
from pipeline.ledger.blocks import BlockHeader
from pipeline.node.node import wall_clock_ms

DAY_MS = 86_400_000


class Clock:
    """The wall clock, set wrong by `offset_ms`."""

    def __init__(self) -> None:
        self.offset_ms = 0

    def __call__(self) -> int:
        return wall_clock_ms() + self.offset_ms


def times(bed: Bed) -> list[list[int]]:
    """Of the blocks of each shard."""
    log = open_directory(bed.layout.log)
    headers = [
        [
            BlockHeader.from_record(record.value)[0]
            for record in log.read(TopicPartition(Topic.BLOCKS, shard), 0, 100_000, 1 << 30)
        ]
        for shard in range(2)
    ]
    log.close()
    return [[header.timestamp_ms for header in of_shard] for of_shard in headers]


def test_a_jump_of_eight_days_halts_until_an_operator_vouches(bed: Bed) -> None:
    clock = Clock()
    node = bed.open(clock_ms=clock)
    try:
        bed.play_in(node, seed=2)
        before = times(bed)
        clock.offset_ms = 8 * DAY_MS  # while it runs
        with pytest.raises(TaskDiverged, match=r"s ahead of the last block.*--accept-time if it is right"):
            bed.play_in(node, seed=3)
    finally:
        node.close()
    assert times(bed) == before
    with pytest.raises(TaskDiverged, match="--accept-time"):
        bed.play(seed=4, clock_ms=clock)
    bed.judge(finished=False)
    bed.play(seed=5, clock_ms=clock, accept_time=True)
    assert max(times(bed)[0]) > wall_clock_ms() + 7 * DAY_MS
    bed.judge()


def test_a_jump_below_seven_days_is_taken(bed: Bed) -> None:
    clock = Clock()
    clock.offset_ms = 6 * DAY_MS
    bed.play(seed=2, clock_ms=clock)
    bed.judge()


def test_a_clock_some_seconds_back_goes_on(bed: Bed) -> None:
    clock = Clock()
    node = bed.open(clock_ms=clock)
    try:
        bed.play_in(node, seed=2)
        clock.offset_ms = -5_000
        bed.play_in(node, seed=3)
    finally:
        node.close()
    assert all(of_shard == sorted(of_shard) for of_shard in times(bed))
    bed.judge()


def test_a_clock_an_hour_back_executes_and_signs_when_the_time_has_come(bed: Bed) -> None:
    clock = Clock()
    clock.offset_ms = -3_600_000
    signed, last = set(bed.words.roots), [of_shard[-1] for of_shard in times(bed)]
    node = bed.open(clock_ms=clock)
    try:
        with pytest.raises(Fatal, match="not finished within 300 ms"):
            bed.play_in(node, seed=2, patience_ms=300)
    finally:
        node.close()
    assert [of_shard[-1] for of_shard in times(bed)] == last, "time stood still"
    assert set(bed.words.roots) == signed
    bed.judge(finished=False)
    clock.offset_ms = 0
    bed.play(seed=3, clock_ms=clock)
    assert set(bed.words.roots) > signed
    bed.judge()
