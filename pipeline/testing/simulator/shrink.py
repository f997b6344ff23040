"""Making a failing run short: decisions are left out as long as the same thing goes wrong.

Delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002) over the decisions of
a plan, then over those in which something may fail. A decision's chance is its own, so leaving one out changes nothing
else but what follows from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.testing.simulator.plan import Plan
from pipeline.testing.simulator.report import Report, SimulationFailed
from pipeline.testing.simulator.run import run_plan


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The shortest plan found, how it fails, and how many runs that took."""

    plan: Plan
    failure: SimulationFailed
    runs: int


def shrink(
    plan: Plan, failure: SimulationFailed, most_runs: int = 600, run: Callable[[Plan], Report] = run_plan
) -> Shrunk:
    """Shorten a plan that fails so; gives up after `most_runs` with what it has. Equal plans shrink to equal ones."""
    return _Shrinker(plan, failure, most_runs, run).shrink()


class _Shrinker:
    def __init__(self, plan: Plan, failure: SimulationFailed, most_runs: int, run: Callable[[Plan], Report]) -> None:
        self._plan, self._failure, self._left, self._run = plan, failure, most_runs, run
        self._most = most_runs

    def shrink(self) -> Shrunk:
        self._cut_tail()
        while True:
            before = self._plan
            self._reduce(sorted(self._plan.kept), self._without)
            self._reduce([number for number, faulty in sorted(self._plan.kept.items()) if faulty], self._calm)
            if self._plan == before or not self._left:
                return Shrunk(self._plan, self._failure, self._most - self._left)

    def _cut_tail(self) -> None:
        """What comes after the failure has no part in it."""
        reached = self._failure.decided + 1
        self._try(self._plan.only({number: faulty for number, faulty in self._plan.kept.items() if number <= reached}))

    def _without(self, numbers: Sequence[int]) -> Plan:
        gone = set(numbers)
        return self._plan.only({number: faulty for number, faulty in self._plan.kept.items() if number not in gone})

    def _calm(self, numbers: Sequence[int]) -> Plan:
        return self._plan.only(self._plan.kept | dict.fromkeys(numbers, False))

    def _reduce(self, numbers: list[int], remove: Callable[[Sequence[int]], Plan]) -> None:
        """Remove halves, then quarters, down to single ones, from the end, where most has no part in the failure."""
        size = len(numbers)
        while size and self._left:
            end = len(numbers)
            while end > 0 and self._left:
                start = max(0, end - size)
                if self._try(remove(numbers[start:end])):
                    del numbers[start:end]
                end = start
            size //= 2

    def _try(self, plan: Plan) -> bool:
        """Take the plan if it fails in the same way."""
        self._left -= 1
        try:
            self._run(plan)
        except SimulationFailed as failure:
            if failure.kind == self._failure.kind:
                self._plan, self._failure = plan, failure
                return True
        return False
