"""Many seeds on several cores, and what came of them."""

import math
import multiprocessing
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Final

from pipeline.testing.simulator.report import Report, SimulationFailed
from pipeline.testing.simulator.run import simulate

BATCH: Final = 5
"""Seeds that a process takes at once; what was begun is finished when the time is up."""


@dataclass(slots=True)
class Totals:
    """Of all simulations so far. Times in seconds: of the wall, and of all cores together."""

    simulations: int = 0
    records: int = 0
    blocks: int = 0
    rounds: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    events: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def count(self, report: Report) -> None:
        """One that held."""
        self.simulations += 1
        self.records += report.records
        self.blocks += report.blocks
        self.rounds += report.rounds
        self.events.update(report.events)

    def add(self, other: "Totals") -> None:
        """Those of another batch."""
        self.simulations += other.simulations
        self.records += other.records
        self.blocks += other.blocks
        self.rounds += other.rounds
        self.cpu_s += other.cpu_s
        self.events.update(other.events)
        self.failures += other.failures

    def render(self) -> list[str]:
        """The closing report."""
        lines = [
            f"{self.simulations} simulations, {self.records} records, {self.blocks} blocks, {self.rounds} rounds "
            f"in {self.wall_s:.0f} s ({self.cpu_s:.0f} s of processors)",
            *(f"{number:>9} {kind}" for kind, number in sorted(self.events.items())),
            *(f"seed {seed} failed: {what}" for seed, what in sorted(self.failures)),
        ]
        return [*lines, f"{len(self.failures)} failed" if self.failures else "all held"]


def run_seeds(
    first: int, count: int, jobs: int, progress: Callable[[Totals], None], most_s: float = math.inf
) -> Totals:
    """Simulate `count` seeds from `first` on, on `jobs` processes; `progress` is told after each batch.

    No batch is begun after `most_s` seconds: the totals say how many seeds there were.
    """
    totals, began = Totals(), perf_counter()
    with closing(_batches(first, count, jobs)) as batches:
        for batch in batches:
            totals.add(batch)
            totals.wall_s = perf_counter() - began
            progress(totals)
            if totals.wall_s > most_s:
                break
    return totals


def _batches(first: int, count: int, jobs: int) -> Generator[Totals, None, None]:
    seeds = range(first, first + count)
    batches = [seeds[start : start + BATCH] for start in range(0, count, BATCH)]
    if jobs == 1:
        yield from map(_run_batch, batches)
        return
    # Spawned: a fork of a process with threads would have their locks and stores, and not the threads.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(_run_batch, batches)
    finally:
        pool.shutdown(cancel_futures=True)


def _run_batch(seeds: range) -> Totals:
    totals, began = Totals(), process_time()
    for seed in seeds:
        try:
            totals.count(simulate(seed))
        except SimulationFailed as failure:
            totals.simulations += 1
            totals.failures.append((seed, failure.what))
    totals.cpu_s = process_time() - began
    return totals
