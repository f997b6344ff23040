"""kill -9 under load, and that the judge of it sees what is wrong."""

import shutil
from pathlib import Path

import pytest
from fault_bed import Bed

from pipeline.audit import tamper
from pipeline.testing.kills import __main__ as command
from pipeline.testing.kills.campaign import KillReport, run_kills, running_victim, wait_for_word
from pipeline.testing.kills.judge import Judgement, LedgerBroken
from pipeline.testing.suite import TEST_SUITES


def test_five_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["5", "20260", "--folder", str(tmp_path)]) == 0
    *progress, last = capsys.readouterr().out.splitlines()
    assert [line.split(" kills;")[0] for line in progress] == ["1", "2", "3", "4", "5"]
    assert last.startswith("5 kills held, ")
    receipts = int(last.split(" receipts")[0].rsplit(" ", 1)[1])
    assert receipts > 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_fifty_kills(tmp_path: Path) -> None:
    report = run_kills(50, 7, tmp_path)
    assert report.kills == 50
    assert 0 < report.young < 50
    assert report.bundles > 100


def test_a_ledger_that_does_not_hold_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> KillReport:
        raise LedgerBroken("ledger-0 after kill 1: all is lost")

    monkeypatch.setattr(command, "run_kills", broken)
    assert command.main(["1", "4", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "seed 4: ledger-0 after kill 1: all is lost\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_victim_that_dies_by_itself_is_no_success(bed: Bed, tmp_path: Path) -> None:
    shutil.rmtree(bed.root / "keys")
    said = tmp_path / "said"
    with (
        running_victim(bed.root, 1, said) as process,
        pytest.raises(LedgerBroken, match=r"never said 'ready'.*attestor"),
    ):
        wait_for_word("ready", said, process)
    assert process.returncode == 2


# The judge


def test_an_honest_ledger_is_judged_to_hold(bed: Bed) -> None:
    judged = bed.judge()
    assert isinstance(judged, Judgement)
    assert judged.transactions > 10
    assert judged.bundles > 0
    assert judged.roots_seen == len(bed.words.roots) > 0


@pytest.mark.parametrize("lie", sorted(tamper.LIES))
def test_every_lie_on_the_log_is_seen(bed: Bed, lie: str) -> None:
    tamper.tell(bed.layout.log, tamper.LIES[lie], TEST_SUITES)
    with pytest.raises(LedgerBroken):
        bed.judge()
