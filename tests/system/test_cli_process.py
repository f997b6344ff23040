"""What only a process of its own shows: signals, pipes, reading beside a running node, quick help."""

import json
import os
import pty
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import COLUMNS, HAUPTBUCH, CommandLine, start, write_csv

from pipeline.cli import main as entry
from pipeline.cli.main import COMMANDS, build_app

PATIENCE_S = 60


def big_file(path: Path, rows: int) -> Path:
    chance = random.Random(7)
    return write_csv(path, [(f"n{chance.randrange(400)}", f"n{chance.randrange(400)}", 1) for _ in range(rows)])


def wait_for_node(cli: CommandLine, directory: Path, height: int = 1) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        status = json.loads(cli.ok("status", directory, "--json").out)
        if status["pid"] is not None and all(shard["height"] >= height for shard in status["shards"]):
            return
        time.sleep(0.01)
    raise AssertionError("the node does not start")


def test_help_is_quick_and_complete() -> None:
    started = time.monotonic()
    shown = subprocess.run([*HAUPTBUCH, "--help"], capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 2.5  # 0.25 s on a machine at rest
    for name in COMMANDS:
        assert f"  {name} " in shown.stdout
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", *HAUPTBUCH[1:], "--help"], capture_output=True, text=True, check=True
    )
    assert "rocksdict" not in imported.stderr
    assert "cryptography" not in imported.stderr


def test_every_command_explains_itself(cli: CommandLine) -> None:
    build_app(COMMANDS)  # every module of the list has its function
    for name in COMMANDS:
        shown = cli.ok(name, "--help").out
        assert shown.startswith(f"Usage: hauptbuch {name} ")
        assert "Options:" in shown


def test_usage_errors_are_one_line(cli: CommandLine) -> None:
    assert cli.ok().out.startswith("Usage: hauptbuch")
    assert cli.ok("--version").out.startswith("hauptbuch ")
    for arguments, word in (
        (("nonsense",), "No such command 'nonsense'"),
        (("--nonsense",), "--nonsense"),
        (("account",), "DIR"),
        (("account", "x", "y", "z"), "z"),
        (("accounts", "x", "--nonsense"), "--nonsense"),
    ):
        refused = cli(*arguments)
        assert refused.code == 2
        assert word in refused.error
        assert "--help" in refused.error


def test_debug_shows_where(cli: CommandLine, tmp_path: Path) -> None:
    shown = cli("--debug", "accounts", tmp_path)
    assert shown.code == 2
    assert "Traceback" in shown.err
    assert "ConfigError" in shown.err
    assert "Traceback" not in cli("accounts", tmp_path).err


def test_a_bug_is_told_in_one_line(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_command.py").write_text("def run() -> None:\n    raise ZeroDivisionError('oh\\nno')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(COMMANDS, "broken", entry.Command("broken_command", "x"))
    told = cli("broken")
    assert told.code == 2
    assert told.error == "internal error: ZeroDivisionError: oh no; run `hauptbuch --debug ...` to see where"


@pytest.mark.usefixtures("uncovered_children")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_load_stops_cleanly(cli: CommandLine, fresh: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = start("load", fresh, big_file(tmp_path / "p.csv", 20_000), *COLUMNS)
    wait_for_node(cli, fresh)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (130, "", "hauptbuch: interrupted\n")
    # Whoever comes next finds a ledger in order.
    cli.ok("load", fresh, write_csv(tmp_path / "q.csv", [("a", "b", 3)]), *COLUMNS)
    (found,) = cli.ok("account", fresh, "b", "--json").objects()
    assert found["balances"] == {"UNIT": "3"}
    assert all(s["waiting"] == s["in_flight"] == 0 for s in json.loads(cli.ok("status", fresh, "--json").out)["shards"])


def test_reading_beside_a_running_node(cli: CommandLine, fresh: Path, tmp_path: Path) -> None:
    process = start("load", fresh, big_file(tmp_path / "p.csv", 800), *COLUMNS)
    wait_for_node(cli, fresh)
    refused = cli("send", fresh, "--from", "treasury", "--to", "treasury", "--amount", 1)
    assert refused.code == 2
    assert refused.error == f"{fresh} is in use by pid {process.pid}"
    rounds, reads = set(), 0
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        status = json.loads(cli.ok("status", fresh, "--json").out)
        rounds.add(status["last_round"])
        cli.ok("accounts", fresh, "--json")
        cli.ok("roots", fresh, "--json")
        reads += 1
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "receipts all OK" in out
    assert reads >= 2
    held = sum(int(item["balances"].get("UNIT", 0)) for item in cli.ok("accounts", fresh, "--json").objects())
    assert held == 800


@pytest.mark.usefixtures("uncovered_children")
def test_roots_follow(cli: CommandLine, funded: Path) -> None:
    process = start("roots", funded, "--follow", "--json")
    assert process.stdout is not None
    before = [json.loads(process.stdout.readline()) for _ in cli.ok("roots", funded).out.splitlines()]
    cli.ok("send", funded, "--from", "a", "--to", "b", "--amount", 1)
    after = json.loads(process.stdout.readline())
    assert after["round"] > max(root["round"] for root in before)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert err == "hauptbuch: interrupted\n"


def test_a_closed_pipe_is_quiet(funded: Path) -> None:
    process = start("roots", funded, "--follow")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    # The next line that it prints finds nobody who reads.
    subprocess.run(
        [*HAUPTBUCH, "send", str(funded), "--from", "a", "--to", "b", "--amount", "1"], check=True, capture_output=True
    )
    assert process.wait(timeout=PATIENCE_S) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_terminal_gets_a_progress_bar(fresh: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    file = write_csv(tmp_path / "p.csv", [("a", "b", 1), ("b", "c", 1)])
    arguments = [*HAUPTBUCH, "load", str(fresh), str(file), *COLUMNS]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        with suppress(OSError):  # so a terminal whose other end is closed says that it ended
            while part := os.read(ours, 65536):
                shown.extend(part)

    reader = threading.Thread(target=read, daemon=True)  # a terminal that nobody reads is full after some seconds
    reader.start()
    try:
        out, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    reader.join(PATIENCE_S)
    os.close(ours)
    assert process.returncode == 0
    assert b"receipts all OK" in out
    assert b"paying" in shown
    assert b"100%" in shown
