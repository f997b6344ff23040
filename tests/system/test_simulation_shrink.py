"""A failing run is made short: the same failure by few decisions, and the same way each time."""

import pytest
from simulation_mutants import nonce_stays_after_a_failure

from pipeline.testing.simulator import Plan, Report, SimulationFailed, draw_plan, run_plan, shrink
from pipeline.testing.simulator.__main__ import main
from pipeline.testing.simulator.plan import read_kept
from pipeline.testing.simulator.report import Trace


def failing(seeds: range) -> tuple[Plan, SimulationFailed]:
    for seed in seeds:
        plan = draw_plan(seed)
        try:
            run_plan(plan)
        except SimulationFailed as failure:
            return plan, failure
    raise AssertionError("nothing fails")


@pytest.mark.slow
def test_a_failing_run_becomes_short(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    nonce_stays_after_a_failure(monkeypatch)
    plan, failure = failing(range(20))
    short = shrink(plan, failure, most_runs=150)
    assert len(short.plan.decisions) * 5 < len(plan.decisions)
    assert short.failure.kind == failure.kind
    assert short.runs <= 150
    with pytest.raises(SimulationFailed) as again:
        run_plan(short.plan)
    assert (again.value.what, again.value.trace) == (short.failure.what, short.failure.trace)
    assert len(again.value.trace) < len(failure.trace)


def fails_with(needed: frozenset[int], faulty: frozenset[int], runs: list[int]) -> object:
    """A run that fails exactly where these decisions are there, some of them with faults."""

    def run(plan: Plan) -> Report | None:
        runs.append(len(plan.decisions))
        kept = plan.kept
        if needed <= kept.keys() and all(kept[number] for number in faulty):
            raise SimulationFailed(plan.seed, f"AssertionError: block {len(kept)} is gone", Trace())
        if len(kept) % 7 == 0:
            raise SimulationFailed(plan.seed, "AssertionError: something else", Trace())
        return None

    return run


def test_what_is_needed_is_left_and_nothing_else() -> None:
    plan, needed = draw_plan(5), frozenset({3, 40, 41, 55})
    failure = SimulationFailed(5, f"AssertionError: block {len(plan.decisions)} is gone", Trace())
    failure.decided = 60
    runs: list[int] = []
    short = shrink(plan, failure, run=fails_with(needed, frozenset({40}), runs))  # type: ignore[arg-type]
    assert short.plan.kept == {3: False, 40: True, 41: False, 55: False}
    assert short.runs == len(runs) < 150
    assert runs[0] <= 62


def test_it_stops_where_it_was_told_to() -> None:
    plan = draw_plan(5)
    failure = SimulationFailed(5, f"AssertionError: block {len(plan.decisions)} is gone", Trace())
    short = shrink(plan, failure, 10, run=fails_with(frozenset({3, 40}), frozenset(), []))  # type: ignore[arg-type]
    assert short.runs == 10
    assert {3, 40} < short.plan.kept.keys()


def test_the_command_prints_the_short_run_and_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: object) -> None:
        raise AssertionError("value out of nothing")

    monkeypatch.setattr("pipeline.testing.simulator.prediction.Prediction.check_conserved", broken)
    assert main(["--shrink", "2"]) == 1
    told = capsys.readouterr()
    assert "calm from here on" in told.out
    last = told.out.splitlines()[-1]
    assert last == "python -m pipeline.testing.simulator 2 --trace --keep ''"
    assert read_kept("") == {}
    assert "value out of nothing" in told.err
    assert main(["2", "--trace", "--keep", ""]) == 1
