"""What processes on a real broker show of themselves: metrics, health and logs, while payments flow and shards move."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from processes import Ledger
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.kafka

SHARDS = 2
COLUMNS = ("--from", "from", "--to", "to", "--amount", "amount")
OPTIONS = ("--http", 0, "--log", "json", "--log-level", "debug")


@pytest.fixture
def ledger(tmp_path: Path, bootstrap: str) -> Iterator[Ledger]:
    made = Ledger(tmp_path, bootstrap, shards=SHARDS)
    yield made
    made.close()


def lines(ledger: Ledger, name: str) -> list[dict[str, Any]]:
    """What a process logged; every line is an object."""
    return [json.loads(text) for text in ledger.said(name).splitlines()]


def url(ledger: Ledger, name: str) -> str:
    """Where a process serves."""
    found: list[str] = []

    def served() -> bool:
        found[:] = re.findall(r"http://127\.0\.0\.1:\d+", ledger.said(name))
        return bool(found)

    ledger.await_true(served, 60)
    return found[0]


def ready(base: str) -> list[str]:
    """Why the process does not serve; [] if it does."""
    try:
        with urlopen(f"{base}/readyz", timeout=10) as answer:
            assert answer.status == 200
            return json.load(answer)["reasons"]
    except HTTPError as error:
        return json.load(error)["reasons"]


def scrape(base: str) -> dict[tuple[str, ...], float]:
    """(name, values of labels in the order of their names) -> value."""
    with urlopen(f"{base}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
            for family in families
            for sample in family.samples
        }


def measured(ledger: Ledger, base: str) -> dict[tuple[str, ...], float]:
    """A scrape that the cluster answered in time, which a busy one may not."""
    found: dict[tuple[str, ...], float] = {}

    def answered() -> bool:
        found.clear()
        found.update(scrape(base))
        return found["hauptbuch_log_answers",] == 1

    ledger.await_true(answered, 60)
    return found


def test_processes_show_metrics_health_and_logs(ledger: Ledger, tmp_path: Path) -> None:
    ledger.start("one", "worker", *OPTIONS)
    ledger.start("sync", "sync", "--key", ledger.directory / "keys" / "attestor.json", *OPTIONS)
    one, sync = url(ledger, "one"), url(ledger, "sync")
    ledger.await_true(lambda: ready(one) == ready(sync) == [], 60)
    rows = "".join(f"payer{i % 5},payee{i % 7},{i + 1}\n" for i in range(50))
    (tmp_path / "payments.csv").write_text("from,to,amount\n" + rows)
    assert json.loads(ledger.run("load", ledger.directory, tmp_path / "payments.csv", *COLUMNS, "--json"))["all_ok"]

    status = json.loads(ledger.run("status", ledger.directory, "--kafka", ledger.bootstrap, "--json"))
    seen, rounds = measured(ledger, one), measured(ledger, sync)
    for shard in status["shards"]:
        number = str(shard["shard"])
        assert seen["hauptbuch_shard_state", number, "leading"] == 1
        assert seen["hauptbuch_shard_height", number] >= shard["height"] >= 1
        assert rounds["hauptbuch_signed_height", number] >= shard["signed_height"] >= 1
        assert seen["hauptbuch_shard_lag_records", number, "transactions"] == 0
        assert seen["hauptbuch_log_hidden_records", number, "transactions"] == 0
        assert seen["hauptbuch_shard_commit_seconds_count", number] == seen["hauptbuch_shard_blocks_total", number] >= 1
    assert sum(seen["hauptbuch_shard_records_total", "transactions", str(shard)] for shard in range(SHARDS)) >= 50
    assert seen["hauptbuch_signatures_verified_total",] >= 50
    assert rounds["hauptbuch_signed_round",] == rounds["hauptbuch_round_seconds_count",] - 1 >= 0
    assert not [key for key in rounds if key[0].startswith("hauptbuch_channel_in_flight")]
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"{one}/", timeout=10)

    ledger.start("two", "worker", *OPTIONS)
    two = url(ledger, "two")
    ledger.await_true(lambda: len(ledger.leads("one")) == len(ledger.leads("two")) == SHARDS // 2, 60)
    ledger.await_true(lambda: ready(one) == ready(two) == [], 60)
    (moved,) = ledger.leads("two")
    after, there = scrape(one), scrape(two)
    assert ("hauptbuch_shard_height", str(moved)) not in after
    assert ("hauptbuch_shard_commit_seconds_count", str(moved)) not in after
    assert after["hauptbuch_rebalances_total",] > seen["hauptbuch_rebalances_total",]
    assert there["hauptbuch_shard_state", str(moved), "leading"] == there["hauptbuch_group_shards",] == 1
    assert ledger.stop("one") == ledger.stop("sync") == 130

    assert lines(ledger, "one")[-1]["event"] == "interrupted"
    life = [line for line in lines(ledger, "one") if "state" in line]
    assert {line["shard"] for line in life} == set(range(SHARDS))
    assert {"leading", "unassigned"} <= {line["state"] for line in life}
    assert all("height" in line for line in life if line["state"] == "leading")
    assert any(line["event"].startswith("synchronizer: round ") for line in lines(ledger, "sync"))
    assert "CONFWARN" not in ledger.said()
