"""Processes that are told to stop in the middle of a block, and two that want the same directory."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from fault_bed import Bed

from pipeline.errors import ConfigError
from pipeline.testing.kills.campaign import errors_of, running_victim, wait_for_word

PATIENCE_S = 60


@pytest.mark.usefixtures("uncovered_children")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_stops_cleanly_mid_block_and_resumes(bed: Bed, number: signal.Signals) -> None:
    said = bed.root.parent / "said"
    for seed in range(2):
        with running_victim(bed.root, seed, said, "--durability", "process") as process:
            wait_for_word("ready", said, process)
            time.sleep(0.05 + 0.1 * seed)
            process.send_signal(number)
            assert process.wait(PATIENCE_S) == 130
        assert errors_of(said) == ""
        bed.words.hear(said.read_text())
        bed.judge(finished=False)
    bed.play(seed=9)
    assert bed.judge().transactions > 0


def test_one_process_a_directory(bed: Bed) -> None:
    first, second = bed.root.parent / "first", bed.root.parent / "second"
    with running_victim(bed.root, 1, first) as owner:
        wait_for_word("ready", first, owner)
        with running_victim(bed.root, 2, second) as other:
            assert other.wait(PATIENCE_S) == 2
        assert errors_of(second) == f"{bed.root} is in use by pid {owner.pid}"
        assert second.read_text() == ""
        assert owner.poll() is None
        owner.kill()
        owner.wait()
    bed.words.hear(first.read_text())
    # The kernel gave the lock back: nothing is in the way of whoever comes next.
    with running_victim(bed.root, 3, second, "--batches", "2") as other:
        assert other.wait(PATIENCE_S) == 0, errors_of(second)
    bed.words.hear(second.read_text())
    bed.judge()


@pytest.mark.slow
def test_a_race_for_the_directory_has_one_winner(bed: Bed) -> None:
    sayings = [bed.root.parent / f"said-{number}" for number in range(3)]
    with ExitStack() as running:
        processes = [
            running.enter_context(running_victim(bed.root, number, said)) for number, said in enumerate(sayings)
        ]
        deadline = time.monotonic() + PATIENCE_S
        while sum(process.poll() is None for process in processes) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (winner,) = [process for process in processes if process.poll() is None]
        wait_for_word("ready", sayings[processes.index(winner)], winner)
    losers = [number for number, process in enumerate(processes) if process is not winner]
    assert [processes[number].returncode for number in losers] == [2, 2]
    for number in losers:
        assert errors_of(sayings[number]) == f"{bed.root} is in use by pid {winner.pid}"
    bed.words.hear(sayings[processes.index(winner)].read_text())
    bed.play(seed=9)
    bed.judge()


def test_the_owner_is_named_even_if_it_came_this_moment(bed: Bed) -> None:
    """The file still names one that died while the new owner has the lock and has not written its name yet."""
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    path = bed.root / "lock"
    path.write_text(str(dead.pid))
    with path.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        writing = threading.Timer(0.03, path.write_text, [str(os.getpid())])
        writing.start()
        with pytest.raises(ConfigError, match=f"is in use by pid {os.getpid()}$"):
            bed.open()
        writing.join()
    path.write_text("")
    with path.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"is in use by pid \?$"):
            bed.open()
    bed.play(seed=2)
    bed.judge()


HAUPTBUCH = (sys.executable, "-m", "pipeline.cli.main")


def hauptbuch(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [*HAUPTBUCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


@pytest.mark.slow
def test_a_load_that_is_killed_leaves_a_ledger_that_holds(tmp_path: Path) -> None:
    """The command line itself, with real signatures."""
    root, file = tmp_path / "ledger", tmp_path / "p.csv"
    rows = [f"n{number % 40},n{number * 7 % 40},1" for number in range(3_000)]
    file.write_text("from,to,amount\n" + "\n".join(rows) + "\n")
    columns = ("--from", "from", "--to", "to", "--amount", "amount")
    assert hauptbuch("init", root, "--shards", 2).returncode == 0
    command = [*HAUPTBUCH, "load", str(root), str(file), *columns]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as load:
        deadline = time.monotonic() + PATIENCE_S
        while '"height": 1' not in hauptbuch("status", root, "--json").stdout:
            assert load.poll() is None
            assert time.monotonic() < deadline
        load.kill()
        assert load.wait() == -signal.SIGKILL
    killed = hauptbuch("audit", root)
    assert killed.returncode == 0, killed.stdout
    assert "\nall checks hold" in killed.stdout
    resumed = hauptbuch("load", root, file, *columns, "--limit", 20)
    assert resumed.returncode == 0, resumed.stderr
    assert "receipts all OK" in resumed.stdout
    finished = hauptbuch("audit", root)
    assert finished.returncode == 0, finished.stdout
    assert "0 blocks not signed yet, 0 bundles in flight" in finished.stdout
