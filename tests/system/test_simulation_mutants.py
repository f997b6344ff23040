"""Proof that the simulator sees: each rule of the product taken out is found within the number of seeds that
docs/testing.md states."""

import re
from pathlib import Path

import pytest
from simulation_mutants import MUTANTS, Mutant

from pipeline.testing.simulator import SimulationFailed, simulate

DOCS = Path(__file__).parents[2] / "docs" / "testing.md"


def found(mutant: Mutant) -> SimulationFailed | None:
    """The first failure within the mutant's seeds."""
    for seed in range(mutant.within):
        try:
            simulate(seed)
        except SimulationFailed as failure:
            return failure
    return None


_QUICK = 15


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(mutant, id=mutant.apply.__name__, marks=[pytest.mark.slow] if mutant.within > _QUICK else [])
        for mutant in MUTANTS
    ],
)
def test_a_fault_of_the_product_is_seen(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.apply(monkeypatch)
    failure = found(mutant)
    assert failure is not None, f"{mutant.name}: not seen in {mutant.within} seeds"
    assert failure.trace


def test_the_documented_table_is_this_one() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| (\d+) \|$", DOCS.read_text(), re.MULTILINE)
    assert rows == [(mutant.rule, mutant.name, str(mutant.within)) for mutant in MUTANTS]
    assert len({mutant.apply for mutant in MUTANTS}) == len(MUTANTS) >= 18
