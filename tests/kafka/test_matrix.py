"""A small part of the fault matrix: `make soak` plays all of it, for as long as one likes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.testing.cluster.checker import Rule, check
from pipeline.testing.cluster.observed import observe
from pipeline.testing.kills.judge import LedgerBroken
from tests.kafka.matrix.brokers import Brokers
from tests.kafka.matrix.cases import CASES, Case, House
from tests.kafka.matrix.runner import Report, brokers_of, play, stage_of
from tests.kafka.matrix.stage import Stage

pytestmark = pytest.mark.kafka

KILLS = 20


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """Native ones whatever else is there: the matrix kills, restores and puts proxies before them."""
    with brokers_of(House.PLAIN, tmp_path_factory.mktemp("matrix")) as made:
        yield made


def case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def test_nothing_is_lost_by_twenty_kills(brokers: Brokers, tmp_path: Path) -> None:
    report = Report()
    with stage_of(House.PLAIN, tmp_path / "ledger", brokers, 1, report) as stage:
        while report.kills < KILLS:
            for name in ("worker killed", "synchronizer killed"):
                assert play(stage, case(name), report, print), report.table()
    assert report.ok
    assert report.transactions > 100
    assert {"Acked", "Told", "Settled", "SawRoot", "Proved"} <= report.events.keys()


def test_ends_of_transactions_that_come_late_and_cut_connections(brokers: Brokers, tmp_path: Path) -> None:
    report = Report()
    with stage_of(House.PROXIED, tmp_path / "ledger", brokers, 2, report) as stage:
        for name in ("end of a transaction delayed", "connections cut"):
            assert play(stage, case(name), report, print), report.table()


def test_a_ledger_that_counts_a_nonce_twice_is_seen(brokers: Brokers, tmp_path: Path) -> None:
    stage = Stage(tmp_path / "ledger", brokers, 3, mutant="replayable")
    try:
        stage.play()
        stage.pause(5, 5)
        stage.rest()
        with pytest.raises(LedgerBroken, match="nonces consumed twice"):
            stage.judge()
        log = stage.log()
        found = {one.rule for one in check(stage.history(), observe(log, stage.fleet.chain), at_rest=True)}
        log.close()
        assert Rule.ONE_NONCE in found
    finally:
        stage.close()
