"""Saving a trust file: the round in it never goes back, and the file stays what it was otherwise."""

import fcntl
import multiprocessing
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from sync_net import Net

from pipeline.client import locked_file
from pipeline.client.trust import SeenCheckpoint, Trust, load_trust, save_trust
from pipeline.codec.types import ChainId, Hash32
from pipeline.errors import ConfigError, VerificationFailed
from pipeline.ledger.checkpoints import Assurance

TRUST = Trust.of(Net(shards=1).chain, Assurance.HEADERS)
ROUNDS = 40


def seen(number: int, filling: int = 1) -> Trust:
    return TRUST.seen(SeenCheckpoint(number, Hash32(bytes([filling] * 32))))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "trust.json"
    save_trust(path, TRUST)
    return path


def test_the_newest_round_stays_whoever_saves_last(path: Path) -> None:
    for trust in (seen(100), seen(7, 2), TRUST, seen(100)):
        save_trust(path, trust)
        assert load_trust(path) == seen(100)
    save_trust(path, seen(101))
    assert load_trust(path) == seen(101)


def test_another_checkpoint_of_the_same_round_is_equivocation(path: Path) -> None:
    save_trust(path, seen(100))
    with pytest.raises(VerificationFailed, match=r"equivocation: round 100 was signed as 01.* and as 02"):
        save_trust(path, seen(100, 2))
    assert load_trust(path) == seen(100)


def test_other_keys_are_saved_and_another_chain_begins_anew(path: Path) -> None:
    save_trust(path, seen(100))
    save_trust(path, replace(TRUST, assurance=Assurance.EXECUTION))
    assert load_trust(path) == replace(seen(100), assurance=Assurance.EXECUTION)
    other = replace(TRUST, chain_id=ChainId(bytes(32)))
    save_trust(path, other)
    assert load_trust(path) == other


def test_what_is_no_trust_file_is_not_overwritten(path: Path) -> None:
    path.write_text("{}")
    with pytest.raises(ConfigError, match="can't be used"):
        save_trust(path, TRUST)
    assert path.read_text() == "{}"


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
def test_the_mode_stays(path: Path, mode: int) -> None:
    path.chmod(mode)
    save_trust(path, seen(1))
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.json"
    link.symlink_to(path)
    save_trust(link, seen(1))
    assert link.is_symlink()
    assert load_trust(path) == seen(1)
    assert list(link.parent.iterdir()) == [link], "the lock is that of the file, whatever its name"


def test_file_and_directory_are_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: kinds.append(stat.S_IFMT(os.fstat(descriptor).st_mode)))
    save_trust(path, seen(1))
    assert kinds == [stat.S_IFREG, stat.S_IFDIR]


def test_a_lock_that_is_never_given_up_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locked_file, "_PATIENCE_S", 0.05)
    with (path.parent / ".trust.json.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="can't be written: another process keeps it locked"):
            save_trust(path, seen(1))
    save_trust(path, seen(1))


def _save_some(path: Path, first: int) -> None:
    for number in range(first, ROUNDS, 2):
        before = load_trust(path).last_checkpoint
        save_trust(path, seen(number))
        after = load_trust(path).last_checkpoint
        assert after is not None
        assert after.round >= max(number, before.round if before is not None else 0)


def test_processes_side_by_side_never_go_back(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_save_some, args=(path, first)) for first in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert load_trust(path) == seen(ROUNDS - 1)
