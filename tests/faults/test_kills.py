"""kill -9 under load, and that the judge of it sees what is wrong."""

import shutil
from pathlib import Path

import pytest
from fault_bed import Bed

from pipeline.audit import tamper
from pipeline.testing.kills import __main__ as command
from pipeline.testing.kills.campaign import KillReport, run_kills, start_victim, wait_for_word
from pipeline.testing.kills.judge import Judgement, LedgerBroken
from pipeline.testing.suite import TEST_SUITES


def test_five_kills(tmp_path: Path) -> None:
    seen: list[int] = []
    report = run_kills(5, 20260, tmp_path, lambda kills, judged: seen.append(judged.blocks))
    assert report.kills == 5
    assert len(seen) == 5
    assert report.finished >= 1
    assert report.transactions > 20
    assert report.roots_seen > 0


@pytest.mark.slow
def test_fifty_kills(tmp_path: Path) -> None:
    report = run_kills(50, 7, tmp_path)
    assert report.kills == 50
    assert 0 < report.young < 50
    assert report.bundles > 100


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.main(["1", "4", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 kills held, ")
    assert list(tmp_path.iterdir()) == []

    def broken(*_: object) -> KillReport:
        raise LedgerBroken("ledger-0 after kill 1: all is lost")

    monkeypatch.setattr(command, "run_kills", broken)
    assert command.main(["1", "4", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "seed 4: ledger-0 after kill 1: all is lost\n"
    assert len(list(tmp_path.iterdir())) == 1, "it is kept to be looked at"


def test_a_victim_that_dies_by_itself_is_no_success(bed: Bed, tmp_path: Path) -> None:
    shutil.rmtree(bed.root / "keys")
    said = tmp_path / "said"
    with start_victim(bed.root, 1, said) as process, pytest.raises(LedgerBroken, match=r"never said 'ready'.*attestor"):
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
