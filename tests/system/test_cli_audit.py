"""`hauptbuch audit`: verdict, report, exit codes."""

import json
import re
import shutil
from pathlib import Path

import pytest
from command_line import CommandLine

from pipeline.audit import tamper
from pipeline.cli import audit_command, auditing
from pipeline.cli.surroundings import running_node
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.node.layout import NodeLayout


def remember(directory: Path, cli: CommandLine) -> Path:
    """The trust file, after a subscriber on each shard has seen the newest round."""
    for name in "abcdefgh":
        cli.ok("prove", directory, name, "-o", directory / "seen.proof")
        cli.ok("verify", directory / "seen.proof", "--trust", NodeLayout(directory).trust)
    return NodeLayout(directory).trust


def test_an_honest_log_holds(funded: Path, cli: CommandLine, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = cli.ok("audit", funded, "--json", report)
    chain_id = NodeLayout(funded).chain().chain_id.hex()
    assert result.out.startswith(f"chain {chain_id}\nall checks hold; complete up to round ")
    assert "no outside checkpoint given" in result.out
    assert re.search(
        r"^UNIT: balances 8000.00 \+ fees 0.00 \+ in flight 0.00 = issued 8000.00 - burned 0.00$", result.out, re.M
    )
    document = json.loads(report.read_text())
    assert document["ok"] is True
    assert document["findings"] == []
    assert document["figures"]["transactions"] == 8 + 1  # payments, and the treasury


def test_the_checkpoint_seen_before_is_looked_for(funded: Path, cli: CommandLine) -> None:
    trust = remember(funded, cli)
    assert "that was seen before" in cli.ok("audit", funded, "--trust", trust).out


def test_history_cut_is_seen_by_who_kept_a_checkpoint(funded: Path, cli: CommandLine) -> None:
    cli.ok("send", funded, "--from", "a", "--to", "b", "--amount", "1")
    cli.ok("send", funded, "--from", "b", "--to", "a", "--amount", "1")
    trust = remember(funded, cli)
    tamper.tell(NodeLayout(funded).log, tamper.LIES["cut_history"], STANDARD_SUITES)
    assert cli("audit", funded).code == 0, "nobody else can tell"
    result = cli("audit", funded, "--trust", trust)
    assert result.code == 1
    assert "history was cut" in result.out


@pytest.mark.parametrize("lie", ["flip_block_byte", "raise_transaction_amount", "resign_state_root", "alter_receipt"])
def test_a_lie_is_named_with_its_place(lie: str, funded: Path, cli: CommandLine, tmp_path: Path) -> None:
    damage = tamper.tell(NodeLayout(funded).log, tamper.LIES[lie], STANDARD_SUITES)
    report = tmp_path / "report.json"
    result = cli("audit", funded, "--json", report)
    assert result.code == 1
    assert result.out.splitlines()[1].startswith(("1 finding;", "2 findings;", "3 findings;"))
    found = json.loads(report.read_text())["findings"]
    assert any((item["topic"], item["shard"]) == (damage.topic.topic_name, damage.shard) for item in found)


def test_another_ledgers_log_is_not_taken(funded: Path, cli: CommandLine, tmp_path: Path) -> None:
    other = tmp_path / "other"
    cli.ok("init", other, "--shards", "2")
    shutil.rmtree(NodeLayout(funded).log)
    shutil.copytree(NodeLayout(other).log, NodeLayout(funded).log)
    result = cli("audit", funded)
    assert result.code == 1
    assert "the log is of chain" in result.out


def test_another_ledgers_trust_file_is_not_taken(funded: Path, cli: CommandLine, tmp_path: Path) -> None:
    cli.ok("init", tmp_path / "other", "--shards", "2")
    result = cli("audit", funded, "--trust", NodeLayout(tmp_path / "other").trust)
    assert result.code == 1
    assert "trusted is" in result.out


def test_it_audits_beside_a_running_node(funded: Path, cli: CommandLine) -> None:
    with running_node(funded, accept_time=False) as node:
        node.run_until(lambda: False, 50)
        assert "\nall checks hold" in cli.ok("audit", funded).out


def test_a_large_log_is_replayed_by_processes(funded: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    small = cli.ok("audit", funded).out.splitlines()
    monkeypatch.setattr(auditing, "_LARGE_BYTES", 0)
    monkeypatch.setattr(auditing.os, "cpu_count", lambda: 2)
    large = cli.ok("audit", funded).out.splitlines()
    assert small[:2] == large[:2]
    assert small[3:] == large[3:]


def test_an_older_report_stays_until_there_is_a_new_one(
    funded: Path, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.json"
    report.write_text("older, and longer than nothing")
    monkeypatch.setattr(audit_command, "audit_directory", _interrupted)
    assert cli("audit", funded, "--json", report).code == 130
    assert report.read_text() == "older, and longer than nothing"
    monkeypatch.undo()
    cli.ok("audit", funded, "--json", report)
    assert json.loads(report.read_text())["ok"] is True


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_progress_is_told(funded: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "_SAY_EVERY_S", 0.0)
    result = cli.ok("audit", funded)
    assert "replaying shard 1, block 0" in result.err
    assert "replaying" not in result.out


def test_what_can_not_be_audited(funded: Path, cli: CommandLine, tmp_path: Path) -> None:
    assert "holds no ledger" in cli("audit", tmp_path).error
    assert cli("audit", tmp_path).code == 2
    assert cli("audit", funded, "--trust", tmp_path / "none").code == 2
    result = cli("audit", funded, "--json", tmp_path / "no" / "such")
    assert result.code == 2
    assert "can't be written" in result.error
    assert result.out == "", "found out before the replay"
    shutil.rmtree(NodeLayout(funded).log)
    result = cli("audit", funded)
    assert result.code == 2
    assert "no store to read" in result.error
