import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Literal
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, Fatal, TaskDiverged, TaskFenced
from pipeline.kv.memory import MemoryKeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.log.catalog import COUNT, OFFSET
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append, LogRecord, Topic, TopicPartition
from pipeline.log.records import decode_page, encode_record, end_key, record_key
from pipeline.testing.faulty_kv import FaultyKeyValue, SimulatedCrash

A0 = TopicPartition(Topic.TRANSACTIONS, 0)
A1 = TopicPartition(Topic.TRANSACTIONS, 1)
B0 = TopicPartition(Topic.BLOCKS, 0)
SOURCES = (A0, A1, B0)
When = Literal["before", "after"]
Contents = tuple[tuple[LogRecord, ...], ...]


def opened(kv: MemoryKeyValue | None = None, **options: object) -> EmbeddedLog:
    log = EmbeddedLog(kv or MemoryKeyValue(), **options)
    log.create_topic(Topic.TRANSACTIONS, 2)
    log.create_topic(Topic.BLOCKS, 1)
    return log


def contents(log: EmbeddedLog) -> Contents:
    return tuple(tuple(log.read(s, 0, 10_000, 1 << 30)) if log.partitions(s.topic) else () for s in SOURCES)


# -- crashes ---------------------------------------------------------------------------------------------------


def story(kv: object, note: Callable[[Contents], None], *, durability: str = "sync") -> None:
    """Every kind of write; `note` hears the contents after each call that returned."""
    log = EmbeddedLog(kv, durability=durability)
    for action in (
        lambda: log.create_topic(Topic.TRANSACTIONS, 2),
        lambda: log.create_topic(Topic.BLOCKS, 1),
        lambda: log.append([Append(A0, b"k", b"1"), Append(A1, None, b"2"), Append(A0, None, b"3")]),
        lambda: log.writer("w").begin_commit([Append(s, None, b"4") for s in SOURCES]),
        lambda: log.append([Append(A1, None, None)]),
        lambda: log.writer("w").begin_commit([Append(s, b"k", b"5") for s in (B0, B0, A1, A0)]),
    ):
        action()
        note(contents(log))
    log.close()


def story_length() -> int:
    kv = FaultyKeyValue(MemoryKeyValue())
    story(kv, lambda _: None)
    return kv.writes


FAULT_POINTS = range(1, story_length() + 1)


def test_the_story_has_the_fault_points_that_it_should() -> None:
    assert len(FAULT_POINTS) == 1 + 2 + 2 + 4  # stamp, topics, appends, two writers with a commit each


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", FAULT_POINTS)
def test_power_cut_at_every_write_of_a_synced_log(point: int, when: When) -> None:
    reference: list[Contents] = [((), (), ())]
    story(MemoryKeyValue(), reference.append)
    disk = MemoryKeyValue()
    heard: list[Contents] = [((), (), ())]
    with pytest.raises(SimulatedCrash):
        story(FaultyKeyValue(disk, crash_at=point, when=when), heard.append)
    disk.crash()
    log = EmbeddedLog(disk.reopen())
    found = contents(log)
    assert found in reference
    # What was acknowledged is there; of what was under way, all or nothing.
    assert found in reference[len(heard) - 1 : len(heard) + 1]
    for source in SOURCES:
        if log.partitions(source.topic):
            last = log.read(source, 0, 10_000, 1 << 30)[-1:]
            assert log.end_offset(source) in ({last[0].offset + 1, last[0].offset + 2} if last else {0})
    # The log goes on, and never reuses an offset.
    log.create_topic(Topic.TRANSACTIONS, 2)
    (offset,) = log.append([Append(A0, None, b"next")])
    assert contents(log)[0] == (*found[0], LogRecord(offset, None, b"next"))


@pytest.mark.parametrize("keep", range(len(FAULT_POINTS)))
def test_power_cut_without_sync_keeps_a_prefix(keep: int) -> None:
    reference: list[Contents] = [((), (), ())]
    disk = MemoryKeyValue()
    story(disk, reference.append, durability="process")
    disk = disk.reopen()
    assert disk.unsynced == len(FAULT_POINTS) - 1  # all but the stamp
    disk.crash(keep)
    assert contents(EmbeddedLog(disk.reopen())) in reference


def test_epochs_survive_a_power_cut() -> None:
    disk = MemoryKeyValue()
    log = opened(disk)
    log.writer("w")
    disk.crash()
    log = EmbeddedLog(disk.reopen())
    second = log.writer("w")
    third = log.writer("w")
    with pytest.raises(TaskFenced, match="writer w"):
        second.begin_commit([Append(A0, None, b"x")])
    third.begin_commit([Append(A0, None, b"x")])
    assert third.poll_commit() is not None


@pytest.mark.parametrize("point", range(5, 9))
def test_disk_full_stops_the_log_until_it_is_opened_again(point: int) -> None:
    disk = MemoryKeyValue()
    log = opened(FaultyKeyValue(disk, disk_full_at=point))
    writer = log.writer("w")
    kept = point - 5  # the stamp, two topics and the writer came before
    for _ in range(kept):
        writer.begin_commit([Append(A0, None, b"x"), Append(B0, None, b"y")])
        writer.poll_commit()
    with pytest.raises(Fatal, match="disk full"):
        writer.begin_commit([Append(A0, None, b"x"), Append(B0, None, b"y")])
    before = contents(log)
    assert [len(records) for records in before] == [kept, 0, kept]
    for call in (
        lambda: log.append([Append(A0, None, b"z")]),
        lambda: log.writer("other"),
        lambda: log.create_topic(Topic.RELAY, 1),
    ):
        with pytest.raises(Fatal, match="stopped at a failed write"):
            call()
    log.close()
    log = EmbeddedLog(disk.reopen())
    assert contents(log) == before
    log.append([Append(A0, None, b"z")])
    assert len(contents(log)[0]) == kept + 1


def test_read_error_is_passed_on() -> None:
    disk = MemoryKeyValue()
    log = opened(disk)
    log.append([Append(A0, None, b"x")])
    log.close()
    kv = FaultyKeyValue(disk.reopen())
    log = EmbeddedLog(kv)
    kv._read_error_at = kv.reads + 1
    with pytest.raises(Fatal, match="damaged"):
        log.read(A0, 0, 1, 1)
    assert len(log.read(A0, 0, 1, 1)) == 1


# -- damage ----------------------------------------------------------------------------------------------------


@given(
    key=st.none() | st.binary(max_size=9),
    value=st.none() | st.binary(max_size=30),
    offset=st.integers(min_value=0, max_value=2**64 - 1),
)
def test_record_round_trip(key: bytes | None, value: bytes | None, offset: int) -> None:
    store_key = record_key(A1, offset)
    records: list[LogRecord] = []
    size = len(key or b"") + len(value or b"")
    assert decode_page(A1, [(store_key, encode_record(store_key, key, value))], records, 100) == 100 - size
    assert records == [LogRecord(offset, key, value)]


@given(data=st.data(), key=st.none() | st.binary(max_size=5), value=st.none() | st.binary(max_size=5))
def test_any_changed_bit_cut_or_extension_is_found(data: st.DataObject, key: bytes | None, value: bytes | None) -> None:
    store_key = record_key(A1, 7)
    good = encode_record(store_key, key, value)
    bit = data.draw(st.integers(min_value=0, max_value=8 * len(good) - 1))
    flipped = bytearray(good)
    flipped[bit // 8] ^= 1 << bit % 8
    cut = data.draw(st.integers(min_value=0, max_value=len(good) - 1))
    for bad in (bytes(flipped), good[:cut], good + b"\x00"):
        with pytest.raises(Fatal, match="transactions, partition 1, offset 7"):
            decode_page(A1, [(store_key, bad)], [], 100)
    with pytest.raises(Fatal, match="offset 8"):
        decode_page(A1, [(record_key(A1, 8), good)], [], 100)


@pytest.mark.parametrize(
    "body",
    [
        b"\x04\x00\x00\x00\x00",  # unknown flag
        b"\x03\x00\x00\x00\x02k",  # key longer than the record
        b"\x02\x00\x00\x00\x01kv",  # key bytes, but no key
        b"\x01\x00\x00\x00\x01kv",  # value bytes, but no value
    ],
)
def test_impossible_record_with_a_good_checksum(body: bytes) -> None:
    store_key = record_key(A0, 3)
    stored = body + crc32(body, crc32(store_key)).to_bytes(4, "little")
    with pytest.raises(Fatal, match="transactions, partition 0, offset 3"):
        decode_page(A0, [(store_key, stored)], [], 100)


@settings(max_examples=300)
@given(stored=st.binary(max_size=40))
def test_hostile_bytes_are_only_ever_fatal(stored: bytes) -> None:
    with pytest.raises(Fatal, match="damaged record"):
        decode_page(A0, [(record_key(A0, 0), stored)], [], 100)


def test_damage_in_the_middle_of_a_read() -> None:
    disk = MemoryKeyValue()
    log = opened(disk)
    log.append([Append(A0, None, b"%d" % i) for i in range(100)])
    disk.write({record_key(A0, 60): b"\x02\x00\x00\x00\x00x\x00\x00\x00\x00"}, sync=True)
    assert len(log.read(A0, 0, 60, 1 << 20)) == 60
    with pytest.raises(Fatal, match="transactions, partition 0, offset 60: restore"):
        log.read(A0, 0, 100, 1 << 20)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"t\x63", COUNT.pack(1)),  # no such topic
        (b"t", COUNT.pack(1)),
        (b"t\x02", b"short"),
        (b"t\x02", COUNT.pack(0)),
        (b"t\x02", COUNT.pack(2**32 - 1)),
        (end_key(A0), b"short"),
        (end_key(TopicPartition(Topic.TRANSACTIONS, 9)), OFFSET.pack(1)),
        (b"e\x02", OFFSET.pack(1)),
        (end_key(A0), OFFSET.pack(1)),  # records behind the end
        (b"w\xff", OFFSET.pack(1)),
        (b"ww", b""),
    ],
)
def test_damaged_metadata_does_not_open(key: bytes, value: bytes) -> None:
    disk = MemoryKeyValue()
    log = opened(disk)
    log.append([Append(A0, None, b"x"), Append(A0, None, b"y")])
    log.close()
    disk = disk.reopen()
    disk.write({key: value}, sync=True)
    with pytest.raises(Fatal, match="damaged log"):
        EmbeddedLog(disk)


def test_another_format_does_not_open() -> None:
    disk = MemoryKeyValue()
    disk.write({b"\xff/format": b"state/1"}, sync=True)
    with pytest.raises(ConfigError, match=r"'state/1'.*'log/1'"):
        EmbeddedLog(disk)


# -- reading ---------------------------------------------------------------------------------------------------

RECORDS = st.lists(
    st.tuples(st.sampled_from(SOURCES), st.none() | st.binary(max_size=4), st.none() | st.binary(max_size=60)),
    max_size=30,
)
READS = st.lists(
    st.tuples(st.sampled_from(SOURCES), st.integers(0, 80), st.integers(1, 40), st.integers(0, 800)), max_size=10
)


@settings(max_examples=150, deadline=None)
@given(calls=st.lists(st.tuples(st.booleans(), RECORDS, READS, st.booleans()), max_size=6))
def test_behaves_as_lists(calls: list[tuple]) -> None:
    disk = MemoryKeyValue()
    log = opened(disk)
    model: dict[TopicPartition, list[LogRecord]] = {source: [] for source in SOURCES}
    ends = dict.fromkeys(SOURCES, 0)
    for transactional, records, reads, reopen in calls:
        appends = [Append(*record) for record in records]
        if transactional:
            writer = log.writer("w")
            writer.begin_commit(appends)
            done = writer.poll_commit()
            assert done is not None
            offsets = [*done.offsets]
        else:
            offsets = [*log.append(appends)]
        for append, offset in zip(appends, offsets, strict=True):
            assert offset == ends[append.target]
            ends[append.target] += 1
            model[append.target].append(LogRecord(offset, append.key, append.value))
        for source in {append.target for append in appends}:
            ends[source] += transactional
        if reopen:
            log.close()
            disk = disk.reopen()
            log = EmbeddedLog(disk)
        assert {source: log.end_offset(source) for source in SOURCES} == ends
        for source, start, max_records, max_bytes in reads:
            if start > ends[source]:
                with pytest.raises(TaskDiverged, match=f"offsets 0 to {ends[source]}, but {start}"):
                    log.read(source, start, max_records, max_bytes)
                continue
            got = log.read(source, start, max_records, max_bytes)
            there = [record for record in model[source] if record.offset >= start]
            assert got == there[: len(got)]
            assert bool(got) == bool(there)
            assert len(got) <= max_records
            sizes = [len(r.key or b"") + len(r.value or b"") for r in there]
            assert len(got) <= 1 or sum(sizes[: len(got)]) <= max_bytes


def test_a_read_fills_its_budget_and_scans_little_more() -> None:
    kv = MemoryKeyValue()
    log = opened(kv)
    log.append([Append(A0, None, bytes(1000)) for _ in range(2000)])
    scanned: list[int] = []
    scan = kv.scan
    spy = FaultyKeyValue(kv)
    spy.scan = lambda *a: scanned.append(len(page := scan(*a))) or page  # type: ignore[method-assign]
    log._kv = spy
    assert len(log.read(A0, 0, 10_000, 500_000)) == 500
    assert sum(scanned) <= 502
    scanned.clear()
    assert len(log.read(A0, 0, 10_000, 1_000_000)) == 1000  # now that the size is known, in one page
    assert len(scanned) == 1


def test_negative_start() -> None:
    log = opened()
    with pytest.raises(TaskDiverged, match="offsets 0 to 0, but -1"):
        log.read(A0, -1, 1, 1)


def test_a_damaged_table_on_disk_is_fatal(tmp_path: Path) -> None:
    log = opened(open_rocks(tmp_path / "log"))
    log.append([Append(A0, None, bytes((i % 251,)) * 3000) for i in range(1000)])
    log.close()
    (table,) = (tmp_path / "log").glob("*.sst")
    content = bytearray(table.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 40] = bytes(40)
    table.write_bytes(content)
    with pytest.raises(Fatal, match="damaged"):
        contents(EmbeddedLog(open_rocks(tmp_path / "log")))


# -- writers, waiting, closing ----------------------------------------------------------------------------------


def test_oversize_counts_key_and_value() -> None:
    log = opened(max_message_bytes=100)
    log.append([Append(A0, bytes(40), bytes(60))])
    with pytest.raises(ConfigError, match="101 bytes for transactions is over the limit of 100"):
        log.append([Append(A0, bytes(40), bytes(61))])
    assert log.end_offset(A0) == 1


@pytest.mark.parametrize("partitions", [0, -1, 65_536])
def test_partition_count_out_of_range(partitions: int) -> None:
    with pytest.raises(ConfigError, match="1 to 65535"):
        EmbeddedLog(MemoryKeyValue()).create_topic(Topic.CONTROL, partitions)


def test_writer_needs_an_id_and_is_used_in_turn() -> None:
    log = opened()
    with pytest.raises(ConfigError, match="id"):
        log.writer("")
    writer = log.writer("w")
    with pytest.raises(AssertionError, match="no transaction"):
        writer.poll_commit()
    writer.begin_commit([])
    with pytest.raises(AssertionError, match="not polled"):
        writer.begin_commit([])
    writer.close()
    with pytest.raises(Fatal, match="writer w is closed"):
        writer.poll_commit()
    with pytest.raises(Fatal, match="writer w is closed"):
        writer.begin_commit([])


def test_closed_log_refuses() -> None:
    log = opened()
    writer = log.writer("w")
    log.close()
    for call in (
        lambda: log.read(A0, 0, 1, 1),
        lambda: log.end_offset(A0),
        lambda: log.partitions(Topic.BLOCKS),
        lambda: log.append([]),
        lambda: log.writer("w"),
        lambda: log.create_topic(Topic.BLOCKS, 1),
        lambda: log.wait(0),
        log.refresh,
        lambda: writer.begin_commit([]),
    ):
        with pytest.raises(Fatal, match="the log is closed"):
            call()


def timed(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_wait_knows_what_this_thread_has_not_seen() -> None:
    log = opened()
    assert timed(lambda: log.wait(30)) >= 0.03
    log.append([Append(A0, None, b"x")])
    assert timed(lambda: log.wait(10_000)) < 5  # appended before the wait: no wake-up is lost
    assert timed(lambda: log.wait(30)) >= 0.03
    assert timed(lambda: log.wait(0)) < 5
    for wake in (lambda: log.append([Append(A0, None, b"x")]), log.close):
        thread = threading.Thread(target=log.wait, args=(30_000,))
        thread.start()
        if wake != log.close:
            thread.join(5)  # a thread that never waited has not seen the first append
            thread = threading.Thread(target=lambda: (log.wait(0), log.wait(30_000)))
            thread.start()
        time.sleep(0.05)
        wake()
        thread.join(10)
        assert not thread.is_alive()


def test_read_only_log_follows_the_owner(tmp_path: Path) -> None:
    owner = opened(open_rocks(tmp_path / "log"))
    owner.append([Append(A0, None, b"1")])
    reader = EmbeddedLog(open_rocks(tmp_path / "log", read_only_secondary=True), read_only=True)
    assert [r.value for r in reader.read(A0, 0, 9, 99)] == [b"1"]
    owner.writer("w").begin_commit([Append(A0, None, b"2"), Append(B0, None, b"2")])
    owner.create_topic(Topic.RELAY, 3)
    assert reader.end_offset(A0) == 1
    assert reader.read(A0, 1, 9, 99) == []
    reader.refresh()
    assert [r.value for r in reader.read(A0, 1, 9, 99)] == [b"2"]
    assert (reader.end_offset(A0), reader.end_offset(B0), reader.partitions(Topic.RELAY)) == (3, 2, 3)
    for call in (
        lambda: reader.append([Append(A0, None, b"x")]),
        lambda: reader.writer("w"),
        lambda: reader.create_topic(Topic.CONTROL, 1),
    ):
        with pytest.raises(ConfigError, match="reading only"):
            call()
    reader.wait(0)
    assert timed(lambda: reader.wait(30)) >= 0.03
    timer = threading.Timer(0.05, lambda: owner.append([Append(A1, None, b"3")]))
    timer.start()
    assert timed(lambda: reader.wait(20_000)) < 15
    assert reader.end_offset(A1) == 1
    timer.join()
    owner.refresh()
    reader.close()
    owner.close()


def interrupted_at(step: int, work: Callable[[], object]) -> bool:
    """Whether `work` has so many steps in the locks' own code; there a signal raises, as Ctrl-C does."""
    left = step

    def trace(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal left
        if frame.f_code.co_filename == threading.__file__:
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interrupt_never_leaves_the_log_locked() -> None:
    works: list[Callable[[EmbeddedLog], object]] = [
        lambda log: log.append([Append(A0, None, b"x")]),
        lambda log: log.writer("w").begin_commit([Append(B0, None, b"x")]),
        lambda log: log.refresh(),
        lambda log: log.create_topic(Topic.RELAY, 2),
    ]
    for work in works:
        for step in count():
            log = opened()
            was_interrupted = interrupted_at(step, partial(work, log))
            closing = threading.Thread(target=log.close, daemon=True)
            closing.start()
            closing.join(10)
            assert not closing.is_alive(), f"locked for ever, interrupted at step {step}"
            if not was_interrupted:
                break


def test_copy_of_a_live_directory_opens_with_whole_transactions(tmp_path: Path) -> None:
    log = opened(open_rocks(tmp_path / "log"))
    writer = log.writer("w")
    for i in range(50):
        writer.begin_commit([Append(s, None, b"%d" % i * 50) for s in SOURCES])
        writer.poll_commit()
    for cut in (0, 1, 100, 5000):
        copy = tmp_path / f"copy-{cut}"
        shutil.copytree(tmp_path / "log", copy)
        (wal,) = [path for path in copy.glob("*.log") if path.stat().st_size]
        wal.write_bytes(wal.read_bytes()[: wal.stat().st_size - cut])
        with contextlib.closing(EmbeddedLog(open_rocks(copy))) as torn:
            lengths = {len(records) for records in contents(torn)}
        assert len(lengths) == 1
        assert (lengths == {50}) == (cut == 0)
    log.close()
