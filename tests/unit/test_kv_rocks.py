import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, Fatal
from pipeline.kv.rocks import RocksKeyValue, open_rocks

ALL = (b"", b"\xff" * 9)
ROOT = Path(__file__).parents[2]


def key(number: int) -> bytes:
    return number.to_bytes(4, "big")


def filled(path: Path, count: int = 3000) -> Path:
    """A store whose keys are all in a table file: opening moves the write-ahead log there."""
    kv = open_rocks(path)
    kv.write({key(i): i.to_bytes(2, "big") * 50 for i in range(count)}, sync=True)
    kv.close()
    open_rocks(path).close()
    return path


def damage(file: Path, at: float) -> None:
    content = bytearray(file.read_bytes())
    start = int(len(content) * at)
    content[start : start + 64] = bytes(0xA5 ^ byte for byte in content[start : start + 64])
    file.write_bytes(content)


def python(code: str, *arguments: str, shell: str = "exec {python}") -> subprocess.Popen[str]:
    command = shell.format(python=f'{sys.executable} -c "$CODE" "$@"')
    return subprocess.Popen(
        ["/bin/sh", "-c", command, "sh", *arguments],
        env={"CODE": code, "PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_damaged_table_is_never_taken_for_absence(tmp_path: Path) -> None:
    path = filled(tmp_path / "db")
    (table,) = path.glob("*.sst")
    damage(table, 0.5)
    kv = open_rocks(path)
    held: list[BaseException] = []  # kept on purpose: their tracebacks must not keep the lock
    for reverse in (False, True):
        with pytest.raises(Fatal, match="damaged") as caught:
            kv.scan(*ALL, 10_000, reverse=reverse)
        held.append(caught.value)
    with pytest.raises(Fatal, match="damaged") as caught:
        kv.multi_get([key(i) for i in range(3000)])
    held.append(caught.value)
    lost = [i for i in range(3000) if not reads(kv, i)]
    assert lost
    assert lost == list(range(lost[0], lost[-1] + 1))
    # An empty page and a short page in front of the damage, and a full page that never gets there.
    with pytest.raises(Fatal, match="damaged"):
        kv.scan(key(lost[0]), key(lost[-1] + 1), 10)
    with pytest.raises(Fatal, match="damaged"):
        kv.scan(key(lost[0] - 5), key(lost[-1] + 1), 100)
    assert len(kv.scan(key(0), key(lost[0]), lost[0])) == lost[0]
    kv.close()
    open_rocks(path).close()
    assert len(held) == 3


def reads(kv: RocksKeyValue, number: int) -> bool:
    try:
        return kv.get(key(number)) is not None
    except Fatal:
        return False


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-*"])
def test_damaged_directory_does_not_open(tmp_path: Path, name: str) -> None:
    path = filled(tmp_path / "db", 10)
    for file in path.glob(name):
        file.write_bytes(b"\x00garbage\xff" * 8)
    with pytest.raises(Fatal, match=r"store .*db"):
        open_rocks(path)


def test_torn_tail_of_the_write_ahead_log_loses_only_the_tail(tmp_path: Path) -> None:
    path = tmp_path / "db"
    kv = open_rocks(path)
    for i in range(100):
        kv.write({key(i): b"x" * 100, b"last": key(i)}, sync=False)
    copy = shutil.copytree(path, tmp_path / "copy")  # as a power cut would leave it: closing flushes
    kv.close()
    (log,) = copy.glob("*.log")
    content = log.read_bytes()
    log.write_bytes(content[: len(content) * 2 // 3])
    kv = open_rocks(copy)
    last = kv.get(b"last")
    assert last is not None
    survivors = int.from_bytes(last, "big") + 1
    assert 0 < survivors < 100
    assert [k for k, _ in kv.scan(key(0), key(1000), 1000)] == [key(i) for i in range(survivors)]
    kv.close()


def test_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Fatal, match=r"file failed: .*exists"):
        open_rocks(tmp_path / "file")


HOLD = """
import sys
from pipeline.kv.rocks import open_rocks
kv = open_rocks(sys.argv[1])
print("open", flush=True)
for i in range(10**9):
    kv.write({b"count": b"%d" % i}, sync=True)
    print(i, flush=True)
"""


def test_lock_of_another_process_and_its_death(tmp_path: Path) -> None:
    holder = python(HOLD, str(tmp_path / "db"))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(Fatal, match="in use: stop the process"):
        open_rocks(tmp_path / "db")
    lines = [holder.stdout.readline() for _ in range(50)]
    holder.send_signal(signal.SIGKILL)
    lines += [line for line in holder.stdout if line.endswith("\n")]
    assert holder.wait() == -signal.SIGKILL
    kv = open_rocks(tmp_path / "db")
    assert int(kv.get(b"count") or b"-1") in (len(lines) - 1, len(lines))
    kv.close()


FILL = """
import sys, hashlib
from pipeline.errors import Fatal
from pipeline.kv.rocks import open_rocks
kv = open_rocks(sys.argv[1], write_buffer_bytes=1 << 18)
done = 0
try:
    for i in range(200):
        kv.write({b"%d/%d" % (i, part): hashlib.shake_128(bytes([i])).digest(10_000) for part in range(5)}, sync=True)
        done = i + 1
except Fatal as error:
    print(error)
try:
    kv.close()
except Fatal as error:
    print("close:", error)
try:
    kv = open_rocks(sys.argv[1])
    parts = [sum(kv.get(b"%d/%d" % (i, part)) is not None for part in range(5)) for i in range(200)]
    assert parts[:done] == [5] * done, parts
    assert set(parts[done:]) <= {0, 5}, parts
    print("whole batches", done > 0)
except Fatal as error:
    print("does not open:", error)
"""
ON_SMALL_DISK = "mkdir -p $1 && mount -t tmpfs -o size=3m none $1 && {python}"


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0,
    reason="needs unprivileged mounts",
)
def test_disk_full_stops_with_whole_batches(tmp_path: Path) -> None:
    process = python(FILL, str(tmp_path / "db"), shell=f"unshare -rm sh -c '{ON_SMALL_DISK}' sh \"$@\"")
    output, errors = process.communicate(timeout=60)
    assert "disk full" in output, output + errors
    assert "whole batches True" in output or "does not open: disk full" in output, output + errors


def test_writes_wait_out_a_stall(tmp_path: Path) -> None:
    kv = open_rocks(tmp_path / "db", write_buffer_bytes=1 << 16)
    values = [random.randbytes(100_000) for _ in range(20)]
    for i in range(40):
        kv.write({bytes((i, part)): value for part, value in enumerate(values)}, sync=False)
    assert kv.scan(*ALL, 2000) == [(bytes((i, part)), values[part]) for i in range(40) for part in range(20)]
    kv.close()


def test_secondary_follows_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    owner = open_rocks(tmp_path / "db")
    owner.write({b"a": b"1"}, sync=True)
    reader = open_rocks(tmp_path / "db", read_only_secondary=True)
    assert len(list(scratch.iterdir())) == 1
    owner.write({b"a": None, b"b": b"2"}, sync=True)
    assert reader.scan(*ALL, 9) == [(b"a", b"1")]
    reader.refresh()
    assert reader.scan(*ALL, 9) == [(b"b", b"2")]
    assert reader.scan(*ALL, 9, reverse=True) == [(b"b", b"2")]
    with pytest.raises(Fatal, match="for reading"):
        reader.write({b"c": b"3"}, sync=True)
    reader.close()
    reader.close()
    assert list(scratch.iterdir()) == []
    owner.close()
    # The owner need not run.
    reader = open_rocks(tmp_path / "db", read_only_secondary=True)
    assert reader.get(b"b") == b"2"
    reader.close()


READ_ONLY = "mount --bind $1 $1 && mount -o remount,bind,ro $1 && {python}"
READ_BESIDE = """
import sys
from pipeline.kv.rocks import open_rocks
kv = open_rocks(sys.argv[1], read_only_secondary=True)
for line in sys.stdin:
    kv.refresh()
    print(len(kv.scan(b"", b"\\xff", 10_000)), flush=True)
kv.close()
"""


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0,
    reason="needs unprivileged mounts",
)
def test_a_store_that_may_only_be_read_is_followed(tmp_path: Path) -> None:
    """The reader's view of the directory is read-only; the owner goes on writing, and makes new files."""
    owner = open_rocks(filled(tmp_path / "db", 10), write_buffer_bytes=1 << 16)
    process = python(READ_BESIDE, str(tmp_path / "db"), shell=f"unshare -rm sh -c '{READ_ONLY}' sh \"$@\"")
    assert process.stdin is not None
    assert process.stdout is not None
    for round_number in range(1, 4):
        owner.write({key(100 * round_number + i): random.randbytes(3_000) for i in range(100)}, sync=True)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"{10 + 100 * round_number}\n"
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    owner.close()


def test_secondary_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no store to read"):
        open_rocks(tmp_path / "none", read_only_secondary=True)
    assert not (tmp_path / "none").exists()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "CURRENT").write_text("nonsense")
    with pytest.raises(Fatal, match="bad"):
        open_rocks(tmp_path / "bad", read_only_secondary=True)
    assert list(scratch.iterdir()) == []


def test_secondary_refresh_meets_damage(tmp_path: Path) -> None:
    path = filled(tmp_path / "db", 10)
    reader = open_rocks(path, read_only_secondary=True)
    for file in path.glob("MANIFEST-*"):
        file.write_bytes(b"\xff" * 4096)
    (path / "CURRENT").write_text("MANIFEST-999999\n")
    with pytest.raises(Fatal, match="store"):
        reader.refresh()
    assert reader.get(key(3)) is not None
    reader.close()
