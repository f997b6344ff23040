"""The ledger on a real broker: worker, synchronizer and attestors as processes, one of them killed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Ledger

from pipeline.errors import ConfigError
from pipeline.log.kafka.group import SESSION_TIMEOUT_MS
from pipeline.node.layout import DirectoryLock, NodeLayout

pytestmark = pytest.mark.kafka

SHARDS = 4
COLUMNS = ("--from", "from", "--to", "to", "--amount", "amount")


@pytest.fixture
def ledger(tmp_path: Path, bootstrap: str) -> Iterator[Ledger]:
    """Two of three attestors sign."""
    made = Ledger(tmp_path, bootstrap, shards=SHARDS, attestors=3, threshold=2)
    yield made
    made.close()


def payments(path: Path, count: int) -> Path:
    rows = [f"payer{i % 20},payee{i * 7 % 30},{i + 1}" for i in range(count)]
    path.write_text("\n".join(["from,to,amount", *rows]) + "\n")
    return path


def test_a_killed_worker_is_replaced_and_two_of_three_signers_suffice(ledger: Ledger, tmp_path: Path) -> None:
    victim = ledger.start("one", "worker")
    ledger.start("two", "worker")
    ledger.start("sync", "sync")
    ledger.start_attestor("attestor")
    ledger.start_attestor("attestor-3")
    ledger.await_true(lambda: ledger.leads("one") | ledger.leads("two") == set(range(SHARDS)), 60)
    ledger.await_true(lambda: len(ledger.leads("one")) == len(ledger.leads("two")) == SHARDS // 2, 60)
    lost = ledger.leads("one")

    done = json.loads(ledger.run("load", ledger.directory, payments(tmp_path / "first.csv", 200), *COLUMNS, "--json"))
    assert (done["payments"], done["transactions"], done["all_ok"]) == (200, 200, True)
    assert done["crossed"] > 100
    assert done["rounds"] > 0

    victim.kill()
    victim.wait()
    took = ledger.await_true(lambda: lost <= ledger.leads("two"), 60)
    # A second on a machine that does nothing else (`benchmarks.takeover`); here many share it.
    assert took <= SESSION_TIMEOUT_MS / 1000 + 10

    options = ("--kafka", ledger.bootstrap, "--json")
    done = json.loads(ledger.run("load", ledger.directory, payments(tmp_path / "second.csv", 100), *COLUMNS, *options))
    assert (done["transactions"], done["all_ok"]) == (100, True)

    report = tmp_path / "report.json"
    verdict = ledger.run("audit", ledger.directory, "--json", report, "--kafka", ledger.bootstrap)
    assert "\nall checks hold" in verdict
    roots = [json.loads(text) for text in ledger.run("roots", ledger.directory, *options).splitlines()]
    assert {root["shard"] for root in roots} == set(range(SHARDS))
    assert {root["assurance"] for root in roots} == {"EXECUTION"}
    status = json.loads(ledger.run("status", ledger.directory, *options))
    assert [shard["waiting"] + shard["in_flight"] for shard in status["shards"]] == [0] * SHARDS
    assert all(shard["signed_height"] == shard["height"] for shard in status["shards"])

    ledger.run("send", ledger.directory, "--from", "treasury", "--to", "payee1", "--amount", "1", code=1)
    proof = tmp_path / "payee.proof"
    ledger.run("prove", ledger.directory, "payee7", "-o", proof)
    assert "balance of hb1" in ledger.run("verify", proof, "--trust", ledger.directory / "trust.json")
    assert ledger.stop("two") == 130
    assert ledger.leads("two") == set()
    assert "\nall checks hold" in ledger.run("audit", ledger.directory)


def test_what_can_not_run_says_why_in_one_line(ledger: Ledger, tmp_path: Path) -> None:
    genesis = ledger.directory / "genesis.avro"
    options = ("--kafka", ledger.bootstrap, "--data", tmp_path / "worker")
    ledger.start("worker", "worker")
    ledger.await_true(lambda: ledger.leads("worker") == set(range(SHARDS)), 60)
    assert "in use by pid" in ledger.run("worker", "--genesis", genesis, *options, code=2)
    missing = ledger.run("worker", "--genesis", tmp_path / "none", *options, code=2)
    assert missing.count("\n") == 1
    assert "genesis.avro" in missing
    local = tmp_path / "local"
    ledger.run("init", local, "--shards", "1")
    for command in (("status", local), ("audit", local), ("roots", local)):
        assert "has no topics of this chain" in ledger.run(*command, "--kafka", ledger.bootstrap, code=2)
    elsewhere = ("--genesis", local / "genesis.avro", "--kafka", ledger.bootstrap, "--data", tmp_path / "other")
    for name in ("worker", "sync"):
        assert "has no topics of this chain" in ledger.run(name, *elsewhere, code=2)
    accept = ledger.run("load", ledger.directory, genesis, *COLUMNS, "--accept-time", code=2)
    assert "hauptbuch worker" in accept


def test_several_workers_run_as_one_process(ledger: Ledger) -> None:
    ledger.start("pair", "worker", "--workers", 2)
    ledger.await_true(lambda: ledger.leads("pair") == set(range(SHARDS)), 60)
    assert {path.name for path in (ledger.root / "pair").iterdir()} == {"worker-0", "worker-1"}
    assert ledger.stop("pair") == 130
    assert ledger.leads("pair") == set()


def test_several_workers_end_with_the_process_that_started_them(ledger: Ledger) -> None:
    process = ledger.start("pair", "worker", "--workers", 2)
    ledger.await_true(lambda: ledger.leads("pair") == set(range(SHARDS)), 60)
    process.kill()
    process.wait()
    for number in range(2):
        lock = NodeLayout(ledger.root / "pair" / f"worker-{number}")
        ledger.await_true(lambda lock=lock: _is_free(lock), 20)


def _is_free(layout: NodeLayout) -> bool:
    try:
        DirectoryLock(layout).release()
    except ConfigError:
        return False
    return True
