import pytest

from pipeline.errors import Fatal
from pipeline.kv.memory import MemoryKeyValue
from pipeline.testing.faulty_kv import FaultyKeyValue, SimulatedCrash


@pytest.mark.parametrize(("when", "kept"), [("before", [b"1"]), ("after", [b"1", b"2"])])
def test_crash_point(when: str, kept: list[bytes]) -> None:
    disk = MemoryKeyValue()
    kv = FaultyKeyValue(disk, crash_at=2, when=when)
    kv.write({b"1": b""}, sync=True)
    with pytest.raises(SimulatedCrash, match=f"{when} write 2"):
        kv.write({b"2": b""}, sync=True)
    for call in (lambda: kv.get(b"1"), lambda: kv.write({b"3": b""}, sync=True), kv.refresh):
        with pytest.raises(SimulatedCrash, match="earlier"):
            call()
    kv.close()
    assert [key for key, _ in disk.scan(b"", b"z", 9)] == kept  # not closed: the process was gone


def test_crash_is_no_ordinary_exception() -> None:
    assert not issubclass(SimulatedCrash, Exception)


def test_disk_stays_full() -> None:
    kv = FaultyKeyValue(MemoryKeyValue(), disk_full_at=2)
    kv.write({b"1": b""}, sync=True)
    for _ in range(2):
        with pytest.raises(Fatal, match="disk full"):
            kv.write({b"2": b""}, sync=True)
    assert kv.scan(b"", b"z", 9) == [(b"1", b"")]
    assert kv.writes == 3


def test_read_error_once() -> None:
    kv = FaultyKeyValue(MemoryKeyValue(), read_error_at=2)
    assert kv.get(b"1") is None
    with pytest.raises(Fatal, match="damaged"):
        kv.multi_get([b"1"])
    assert kv.scan(b"", b"z", 9) == []
    assert kv.reads == 3
    kv.close()
    with pytest.raises(Fatal, match="closed"):
        kv.get(b"1")
