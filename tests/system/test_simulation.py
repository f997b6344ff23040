"""Seeded simulations of the whole system."""

from collections import Counter
from functools import cache

import pytest

from pipeline.testing.simulator import Plan, Report, SimulationFailed, draw_plan, run_plan, simulate
from pipeline.testing.simulator.__main__ import main
from pipeline.testing.simulator.campaign import run_seeds
from pipeline.testing.simulator.plan import kept_text, read_kept

SEEDS = 50
"""By default; the mixture takes twice as many to be met in full."""
_BATCH = 10


report_of = cache(simulate)


def hold(seeds: range) -> list[Report]:
    return [report_of(seed) for seed in seeds]


@pytest.mark.parametrize("first", range(0, SEEDS, _BATCH))
def test_seeds_hold(first: int) -> None:
    reports = hold(range(first, first + _BATCH))
    assert all(report.blocks and report.rounds for report in reports)


@pytest.mark.parametrize("seed", [141, 216, 344])
def test_every_round_is_published_where_others_propose_too(seed: int) -> None:
    """These found a round that was never published: the next one had its quorum before the proposer recovered."""
    assert report_of(seed).rounds > 2


@pytest.mark.slow
@pytest.mark.parametrize("first", range(SEEDS, SEEDS + 1_000, 50))
def test_many_more_seeds_hold(first: int) -> None:
    reports = hold(range(first, first + 50))
    assert all(report.blocks and report.rounds for report in reports)


@pytest.mark.slow
def test_the_mixture_has_everything_in_it() -> None:
    """The first seeds together meet every kind of fault, lie and control record that there is."""
    events: Counter[str] = Counter()
    shards = set()
    for report in hold(range(2 * SEEDS)):
        events.update(report.events)
        shards.add(report.shards)
    assert {
        "commit prefix", "commit committed", "commit lost", "commit late", "commit fenced", "commit aborted",
        "commit retry", "commit slow", "crash", "disk crash", "lost store", "take over", "replaced", "lost memory",
        "away", "back", "power cut",
        "lie replay", "lie misrouted", "lie forged", "lie gap", "lie cut", "lie bytes", "lie null", "lie control",
        "lie relay bytes", "lie relay replay", "lie relay misrouted", "lie bundle",
        "lie proposal", "lie proposal wrong", "lie signature",
        "lie control replay", "lie control alone", "lie control jump", "lie control unbacked",
        "lie control twice signed",
        "control CollectFees", "control CreateShard", "control Quarantine", "control SetAttestors",
    } <= set(events)  # fmt: skip
    assert shards >= {1, 2, 3, 4}
    chaos = [draw_plan(seed).chaos for seed in range(2 * SEEDS)]
    assert {(item.attestors, item.threshold) for item in chaos} == {(0, 1), (1, 1), (2, 1), (2, 2), (3, 2)}
    assert any(item.executes_again and item.attestors for item in chaos)


def test_a_seed_replays_exactly() -> None:
    first, again = report_of(7), simulate(7)
    assert first == again
    assert first.digest != report_of(8).digest


def test_what_is_left_out_changes_nothing_before_it() -> None:
    plan = draw_plan(7)
    kept = {number: faulty for number, faulty in plan.kept.items() if number < 60}
    short = run_plan(plan.only(kept))
    calm = next(at for at, line in enumerate(short.trace) if "calm from here on" in line) - 1  # the power is cut before
    assert calm > 5
    assert short.trace[:calm] == report_of(7).trace[:calm]


def test_decisions_are_written_as_they_are_read() -> None:
    plan: Plan = draw_plan(3)
    kept = {number: number % 3 == 0 for number in plan.kept if number % 2}
    assert read_kept(kept_text(kept)) == kept
    assert plan.only(read_kept(kept_text(kept))).kept == kept


def test_the_command_replays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["3", "--trace"]) == 0
    held = capsys.readouterr()
    assert "calm from here on" in held.out
    assert "seed 3: " in held.out
    assert main(["3", "--keep", "0,1,2!"]) == 0
    assert "seed 3: " in capsys.readouterr().out
    assert main(["--shrink", "3"]) == 0
    assert "nothing to shorten" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["3", "--keep", "some"]])
def test_the_command_says_what_it_wants(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_many_seeds_end_in_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "4", "--from", "5"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("4 simulations, ")
    assert "power cut" in told
    assert told.endswith("all held\n")
    alone, together = (run_seeds(5, 4, jobs, lambda totals: None) for jobs in (1, 2))
    assert (alone.records, alone.blocks, alone.rounds) == (together.records, together.blocks, together.rounds)
    assert alone.events == together.events
    assert alone.blocks == sum(report_of(seed).blocks for seed in range(5, 9))


def test_a_failure_says_how_to_go_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object) -> None:
        raise AssertionError("value out of nothing, or into it: {'x': 3}")

    monkeypatch.setattr("pipeline.testing.simulator.prediction.Prediction.check_conserved", broken)
    with pytest.raises(SimulationFailed) as failed:
        simulate(2)
    assert failed.value.kind == "AssertionError: value out of nothing, or into it:"
    for option in ("--trace", "--shrink"):
        assert f"python -m pipeline.testing.simulator {option} 2" in str(failed.value)
    assert main(["2"]) == 1
    told = capsys.readouterr()
    assert "seed 2 failed: AssertionError: value out of nothing" in told.err
    assert "published transactions" in told.out
    assert main(["--count", "2", "--from", "2"]) == 1
    told = capsys.readouterr()
    assert "seed 3 failed: AssertionError: value out of nothing" in told.out
    assert told.out.endswith("2 failed\n")
