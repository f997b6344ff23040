"""The README's blocks for a cluster, as a producer, a subscriber and an auditor elsewhere would follow them."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Ledger

sys.path.append(str(Path(__file__).parents[1] / "system"))

from test_readme import BROKERS, Block, blocks, clean_environment, run_block

from pipeline.client.trust import load_trust

pytestmark = pytest.mark.kafka


@pytest.fixture
def ledger(tmp_path: Path, bootstrap: str) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "operator", bootstrap, shards=2)
    yield made
    made.close()


def test_a_producer_a_subscriber_and_an_auditor_without_a_directory(ledger: Ledger, tmp_path: Path) -> None:
    ledger.start("worker", "worker")
    ledger.start("sync", "sync", "--key", ledger.directory / "keys" / "attestor.json")
    rows = tmp_path / "payments.csv"
    rows.write_text("from,to,amount\nalice,bob,1275\n")
    ledger.run("load", ledger.directory, rows, "--from", "from", "--to", "to", "--amount", "amount")
    ledger.run("keygen", ledger.directory, "erin")
    ledger.run("send", ledger.directory, "--from", "bob", "--to", "erin", "--amount", "500")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(ledger.directory / "trust.json", elsewhere)
    shutil.copy(ledger.directory / "keys" / "erin.json", elsewhere)
    produce, subscribe, audit = [
        Block(block.line, block.language, block.text.replace(BROKERS, ledger.bootstrap))
        for block in blocks()
        if block.needs_cluster
    ]

    def play(block: Block) -> list[str]:
        return run_block(block, elsewhere, clean_environment()).splitlines()

    first, again = play(produce), play(produce)
    assert [first[0].split()[1], again[0].split()[1]] == ["OK", "DUPLICATE_NONCE"]
    assert first[0].split()[0] == again[0].split()[0], "the same transaction"
    assert "UNIT 375" in " ".join(ledger.run("account", ledger.directory, "erin").split()), "paid once"
    shown = play(subscribe)
    assert {line.split()[3] for line in shown} == {"0", "1"}

    verdict = play(audit)
    assert verdict[0] == f"chain {load_trust(elsewhere / 'trust.json').chain_id.hex()}"
    assert any(line.startswith("all checks hold") for line in verdict)
    other = ("--kafka", ledger.bootstrap, "--trust", _other_trust(ledger, tmp_path))
    assert "no topics of this chain" in ledger.run("audit", *other, code=2)

    rounds = [int(line.split()[1]) for line in shown]
    roots = ("roots", "--kafka", ledger.bootstrap, "--trust", elsewhere / "trust.json")
    late = ledger.run(*roots, "--from-round", rounds[-1]).splitlines()
    assert late == [line for line in shown if int(line.split()[1]) == rounds[-1]]
    assert "no topics of this chain" in ledger.run("roots", *other, code=2)


def _other_trust(ledger: Ledger, tmp_path: Path) -> Path:
    ledger.run("init", tmp_path / "other", "--shards", 1)
    return tmp_path / "other" / "trust.json"
