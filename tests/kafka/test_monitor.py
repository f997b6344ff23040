"""The Faust monitor on a real broker: what it prints is what the ledger's own tools measure."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Ledger

from topologies.monitor import main

pytestmark = pytest.mark.kafka

SHARDS = 2
COLUMNS = ("--from", "from", "--to", "to", "--amount", "amount")


@pytest.fixture
def ledger(tmp_path: Path, bootstrap: str) -> Iterator[Ledger]:
    made = Ledger(tmp_path, bootstrap, shards=SHARDS)
    yield made
    made.close()


def start_monitor(ledger: Ledger, out: Path) -> subprocess.Popen[bytes]:
    genesis = ledger.directory / "genesis.avro"
    command = ("--kafka", ledger.bootstrap, "--genesis", genesis, "--every", "0.5", "--window", "3600")
    with out.open("wb") as lines, out.with_suffix(".err").open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "topologies.monitor", *map(str, command)], stdout=lines, stderr=errors
        )


def await_report(out: Path, heights: dict[int, int]) -> dict[str, Any]:
    """The first report that has these blocks, and the bundles that they sent executed."""
    deadline = time.monotonic() + 90
    while True:
        for text in out.read_text().splitlines():
            report = json.loads(text)
            seen = {item["shard"]: item["height"] for item in report["shards"]}
            if all(seen.get(shard, -1) >= height for shard, height in heights.items()):
                return dict(report)
        assert time.monotonic() < deadline, out.with_suffix(".err").read_text() + out.read_text()[-1000:]
        time.sleep(0.1)


def test_the_monitor_prints_load_and_traffic_and_writes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    payments = tmp_path / "payments.csv"
    rows = [f"payer{i % 10},payee{i * 7 % 15},{i + 1}" for i in range(60)]
    payments.write_text("\n".join(["from,to,amount", *rows]) + "\n")
    out = tmp_path / "monitor.jsonl"
    monitor = start_monitor(ledger, out)
    try:
        ledger.start("worker", "worker")
        ledger.start("sync", "sync", "--key", ledger.directory / "keys" / "attestor.json")
        done = json.loads(ledger.run("load", ledger.directory, payments, *COLUMNS, "--json"))
        assert done["all_ok"] is True
        status = json.loads(ledger.run("status", ledger.directory, "--kafka", ledger.bootstrap, "--json"))
        heights = {item["shard"]: item["height"] for item in status["shards"]}
        report = await_report(out, heights)
        again = tmp_path / "again.jsonl"
        second = start_monitor(
            ledger, again
        )  # each start folds from the beginning: the first one's end changes nothing
        try:
            monitor.terminate()
            assert monitor.wait(30) == 0
            repeated = await_report(again, heights)
        finally:
            second.kill()
            second.wait()
    finally:
        monitor.kill()
        monitor.wait()
    for found in (report, repeated):
        assert sum(item["transactions"] for item in found["shards"]) >= done["transactions"]
        assert found["gas"] == sum(item["gas"] for item in found["shards"]) > 0
        assert {item["shard"] for item in found["hottest"]} == {0, 1}
        assert {(item["source"], item["destination"]) for item in found["channels"]} == {(0, 1), (1, 0)}
        assert all(item["sent"] == item["executed"] > 0 and item["value"] == {} for item in found["channels"])
        assert found["refused"] == 0
    audit = ledger.run("audit", ledger.directory, "--kafka", ledger.bootstrap)
    assert "\nall checks hold" in audit


def test_what_can_not_be_monitored_says_why(ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--kafka", ledger.bootstrap, "--genesis", str(tmp_path / "none")]) == 2
    assert "can't be read" in capsys.readouterr().err
    (tmp_path / "bad").write_bytes(b"no genesis")
    assert main(["--kafka", ledger.bootstrap, "--genesis", str(tmp_path / "bad")]) == 2
    assert "is no genesis" in capsys.readouterr().err
    genesis = str(ledger.directory / "genesis.avro")
    assert main(["--kafka", ledger.bootstrap, "--genesis", genesis, "--window", "0"]) == 2
    assert "give a positive one" in capsys.readouterr().err
    assert main(["--kafka", "nonsense", "--genesis", genesis]) == 2
    assert "kafka.bootstrap" in capsys.readouterr().err
