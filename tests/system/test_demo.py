"""The demo: its figures, its checks, what makes it say no."""

import io
import json
import os
import shutil
import signal
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import start

from pipeline.audit.tamper import Damage
from pipeline.cli import init_command, main
from pipeline.cli.auditing import audit_directory
from pipeline.cli.demo import ledger as demo_ledger
from pipeline.cli.demo import lies
from pipeline.cli.demo.evidence import ProofCheck, final_balances
from pipeline.cli.demo.ledger import DemoLedger
from pipeline.cli.demo.own_node import OwnNode
from pipeline.cli.demo.payments import sample_payments
from pipeline.cli.demo.phases import Percentiles, play_fast
from pipeline.cli.demo.story import Story
from pipeline.cli.demo.tracker import Tracker
from pipeline.client.light import LightClient
from pipeline.client.receipts import ReceiptWatcher
from pipeline.client.trust import Trust, load_trust
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import Fatal, InvalidTransactionResult
from pipeline.ledger.checkpoints import Assurance
from pipeline.ledger.leaves import account_key
from pipeline.log.port import EventLog
from pipeline.node.layout import NodeLayout
from pipeline.node.reader import LedgerReader


@dataclass(frozen=True)
class Played:
    """`root`: the directory that `demo --keep` left; `document`: what `--json` printed."""

    root: Path
    document: dict[str, Any]
    errors: str


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The demo on 200 rows."""
    root = tmp_path_factory.mktemp("demo") / "ledger"
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main.run(["demo", "--rows", "200", "--json", "--keep", str(root)])
    assert code == 0, out.getvalue() + err.getvalue()
    return Played(root, json.loads(out.getvalue()), err.getvalue())


def test_every_payment_is_played_once(played: Played) -> None:
    document = played.document
    fast, slow = document["phase_1"], document["phase_2"]
    assert fast["transactions"] + slow["transactions"] == document["rows"] == document["signatures"] == 200
    assert 0 < fast["crossed_shards"] < fast["transactions"]
    assert fast["blocks"] >= document["shards"] == 4
    assert document["audit"]["figures"]["transactions"] >= 200 + 2  # the treasury's too
    assert document["held"] is True
    assert document["refused_roots"] == document["balances_that_differ"] == 0


def test_times_are_in_order(played: Played) -> None:
    slow = played.document["phase_2"]
    assert slow["transactions_per_second"] == pytest.approx(
        played.document["phase_1"]["transactions_per_second"] / 2, rel=0.01
    )
    for times in (slow["receipt_ms"], slow["settled_ms"], slow["signed_root_ms"]):
        assert 0 < times["p50"] <= times["p99"]
    assert slow["receipt_ms"]["p50"] <= slow["settled_ms"]["p50"]
    assert slow["receipt_ms"]["p50"] <= slow["signed_root_ms"]["p50"]


def test_balances_in_the_kept_ledger_are_those_of_the_file(played: Played) -> None:
    layout = NodeLayout(played.root)
    expected = final_balances(sample_payments(200))
    with LedgerReader(played.root) as reader:
        found = {view.address: sum(b.amount for _, b in view.balances) for view in reader.accounts()}
        treasury = layout.chain().genesis.treasury
        assert reader.stores[0].shard == 0
        assert account_key(treasury).startswith(b"account/")
    assert sum(found.values()) == sum(expected.values())
    assert sorted(amount for address, amount in found.items() if address != treasury) == sorted(expected.values())


def test_proofs_held_and_forgeries_were_refused(played: Played) -> None:
    proof, absence = played.document["proof"], played.document["absence"]
    assert proof["balance"] == max(final_balances(sample_payments(200)).values())
    assert absence["balance"] is None
    for check in (proof, absence):
        assert check["holds"]
        assert check["forgery_refused"]
        assert 3_000 < check["file_bytes"] < 10_000


def test_every_lie_is_caught_at_its_place(played: Played) -> None:
    told = played.document["lies"]
    assert len(told) == len(lies.TOLD) >= 5
    for lie in told:
        finding = lie["finding"]
        assert lie["caught"], lie
        assert (finding["topic"], finding["shard"]) == (lie["topic"], lie["shard"])
        assert finding["offset"] == lie["offset"] or finding["height"] == lie["height"] is not None
        assert finding["message"]


def test_conservation_is_part_of_the_audit(played: Played) -> None:
    audit = played.document["audit"]
    assert audit["ok"]
    (row,) = audit["conservation"]
    assert row["symbol"] == "ETH"
    assert int(row["balances"]) == int(row["issued"]) - int(row["burned"]) > 0


def test_progress_goes_to_standard_error(played: Played) -> None:
    assert "signing 200 payments" in played.errors
    assert "phase 2" in played.errors


def test_people_can_read_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "ledger"
    assert main.run(["demo", "--rows", "40", "--shards", "2", "--keep", str(kept)]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[-2].startswith("Result      everything held, in ")
    assert lines[-1] == f"Kept        the ledger and the proof files are in {kept}"
    assert len(list(kept.glob("*.proof"))) == 2
    assert "40 real Ethereum payments" in lines[0]
    assert max(len(line) for line in lines[:-1]) <= 120
    assert all(line == line.rstrip() for line in lines)
    assert "\x1b" not in text
    for label in ("Prepared", "Phase 1", "Phase 2", "Balances", "Proof", "Absence", "Audit", "Lies"):
        assert any(line.startswith(label) for line in lines)


def test_a_lie_that_nobody_notices_fails_the_demo(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(_editor: object) -> Damage:
        return Damage("nothing at all", Topic.BLOCKS, 0, 0, 0)

    monkeypatch.setattr(lies.tamper, "LIES", {**lies.tamper.LIES, "nothing": nothing})
    monkeypatch.setattr(lies, "TOLD", (*lies.TOLD[:5], "nothing"))
    assert main.run(["demo", "--rows", "12", "--shards", "2"]) == 1
    text = capsys.readouterr().out
    assert "NOT CAUGHT (0 findings elsewhere)" in text
    assert "SOMETHING DID NOT HOLD" in text
    assert "6 damaged copies of the log audited, 5 caught" in text


def test_lies_about_what_a_log_lacks_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    code = main.run(["demo", "--rows", "6", "--shards", "1", "--json"])
    out = capsys.readouterr()
    document = json.loads(out.out)
    assert code == 0
    assert len(document["lies"]) == len(lies.TOLD) - 2
    assert "left out: this log has no bundle" in out.err
    assert document["phase_1"]["crossed_shards"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "1"], "ask for 2 to 17,917 payments"),
        (["--rows", "-4"], "ask for 2 to 17,917 payments"),
        (["--rows", "20000"], "ask for 2 to 17,917 payments"),
        (["--rows", "2", "--shards", "0"], "--shards must be 1 to 1000"),
        (["--rows", "2", "--shards", "1001"], "shards"),
    ],
)
def test_what_it_can_not_do(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["demo", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("hauptbuch: ")
    assert message in error


def test_it_keeps_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").write_text("mine")
    assert main.run(["demo", "--rows", "2", "--keep", str(tmp_path)]) == 2
    assert (tmp_path / "precious").read_text() == "mine"
    assert "not empty" in capsys.readouterr().err


@pytest.mark.usefixtures("uncovered_children")
def test_interrupted_it_leaves_nothing_behind(tmp_path: Path) -> None:
    process = start("demo", "--rows", "3000", env={**os.environ, "TMPDIR": str(tmp_path)})
    assert process.stderr is not None
    for told in process.stderr:
        if told.startswith("signing"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == "hauptbuch: interrupted"
    assert list(tmp_path.iterdir()) == []


def test_percentiles_are_nearest_ranks() -> None:
    assert Percentiles.of([0.004]) == Percentiles(4, 4)
    assert Percentiles.of([n / 1000 for n in range(100, 0, -1)]) == Percentiles(50, 99)
    assert Percentiles.of([n / 1000 for n in range(1, 201)]) == Percentiles(100, 198)


def test_a_forgery_that_verifies_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    proof = ProofCheck("hb1x", 10**18, 4000, 3, 2, 1, forgery_refused=False, holds=False)
    Story(silent=False).proof(proof)
    text = capsys.readouterr().out
    assert "holds 1 ETH" in text
    assert "NOT VERIFIED" in text
    assert "a forged copy was ACCEPTED" in text


def test_a_damaged_ledger_fails_the_audit_and_says_where(
    played: Played, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "log"
    shutil.copytree(NodeLayout(played.root).log, copy)
    lies.tamper.tell(copy, lies.tamper.LIES["raise_bundle_amount"], STANDARD_SUITES)
    Story(silent=False).audited(audit_directory(copy, NodeLayout(played.root).chain(), None))
    text = capsys.readouterr().out
    assert "finding" in text.splitlines()[0]
    assert "relay offset 0: bundle altered: " in text


class _LateBlocks:
    """A log whose blocks are heard of last, as a consumer may hear of one topic before another."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.late = True

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        if self.late and source.topic is Topic.BLOCKS:
            return []
        return self._log.read(source, start, max_records, max_bytes)


def test_a_root_that_is_heard_of_before_its_block_counts_once_the_block_is_there(played: Played) -> None:
    with LedgerReader(played.root) as reader:
        chain, log = reader.chain, _LateBlocks(reader.log)
        client = LightClient(Trust.of(chain, Assurance.HEADERS), InlineVerifier(STANDARD_SUITES))
        watcher = ReceiptWatcher(reader.log, chain.chain_id, range(chain.genesis.shards))
        tracker = Tracker(log, chain, watcher, client)  # type: ignore[arg-type]  # it only reads
        heads = [reader.signed_head(shard) for shard in range(chain.genesis.shards)]
        heights = [head.root.height for head in heads if head is not None]
        tracker.poll(0.0)
        assert not tracker.covers([0] * chain.genesis.shards)
        log.late = False
        tracker.poll(1.0)
        assert tracker.covers(heights)


def test_a_ledger_that_stands_still_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init_command.create(tmp_path / "ledger", 1, "still")
    ledger = DemoLedger(OwnNode(tmp_path / "ledger"), sample_payments(2))
    try:
        monkeypatch.setattr(demo_ledger, "_PATIENCE_MS", 30)
        with pytest.raises(Fatal, match="stood still"):
            ledger.run_until(lambda: False)
    finally:
        ledger.close()


def test_a_rejected_payment_is_not_passed_over(tmp_path: Path) -> None:
    init_command.create(tmp_path / "ledger", 2, "poor")
    payments = sample_payments(4)
    ledger = DemoLedger(OwnNode(tmp_path / "ledger"), payments)
    try:
        ledger.fund(payments)
        dear = [payment._replace(amount=payment.amount + 1) for payment in payments]
        client = LightClient(load_trust(NodeLayout(tmp_path / "ledger").trust), InlineVerifier(STANDARD_SUITES))
        tracker = Tracker(ledger.node.log, ledger.chain, ledger.watcher, client)
        with pytest.raises(InvalidTransactionResult, match="payments were rejected"):
            play_fast(ledger, tracker, ledger.sign(dear).transactions)
        with pytest.raises(InvalidTransactionResult, match="funding failed"):
            ledger.fund(dear)  # the treasury has used these nonces
    finally:
        ledger.close()
