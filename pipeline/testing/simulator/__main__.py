"""Replay seeds, shorten one that fails, or run many: `python -m pipeline.testing.simulator SEED... [--trace]`."""

import argparse
import math
import sys

from pipeline.errors import ConfigError
from pipeline.testing.simulator import Report, SimulationFailed
from pipeline.testing.simulator.campaign import BATCH, Totals, run_seeds
from pipeline.testing.simulator.plan import Plan, draw_plan, kept_text, read_kept
from pipeline.testing.simulator.run import run_plan
from pipeline.testing.simulator.shrink import shrink


def main(arguments: list[str] | None = None) -> int:
    """0 where every seed held, 1 where one failed, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.testing.simulator", description=__doc__)
    parser.add_argument("seeds", metavar="SEED", type=int, nargs="*")
    parser.add_argument("--trace", action="store_true", help="print all that happened")
    parser.add_argument("--keep", metavar="LIST", help="only these decisions of the seed, as --shrink prints them")
    parser.add_argument("--shrink", metavar="SEED", type=int, help="shorten the run of a seed that fails")
    parser.add_argument("--count", type=int, help="run so many seeds and report on all of them")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="SEED", help="where --count begins")
    parser.add_argument("--jobs", type=int, default=1, help="processes for --count")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no seed of --count after so long")
    options = parser.parse_args(arguments)
    if options.shrink is not None:
        return _shrink(options.shrink)
    if options.count is not None:
        totals = run_seeds(options.first, options.count, max(1, options.jobs), _tell, 60 * options.minutes)
        print("\n".join(totals.render()))
        return 1 if totals.failures else 0
    if not options.seeds:
        parser.error("give a SEED, --shrink SEED or --count N")
    try:
        kept = None if options.keep is None else read_kept(options.keep)
    except ConfigError as error:
        parser.error(str(error))
    plans = [draw_plan(seed) for seed in options.seeds]
    outcomes = [_replay(plan if kept is None else plan.only(kept), trace=options.trace) for plan in plans]
    return 0 if all(outcomes) else 1


def _tell(totals: Totals) -> None:
    if totals.simulations % 500 < BATCH:
        print(
            f"{totals.simulations} simulations, {len(totals.failures)} failed, {totals.wall_s:.0f} s", file=sys.stderr
        )


def _replay(plan: Plan, *, trace: bool) -> bool:
    """Whether it held."""
    outcome = _outcome(plan)
    if isinstance(outcome, SimulationFailed):
        print("\n".join(outcome.trace) if trace else outcome)
        print(f"seed {plan.seed} failed: {outcome.what}", file=sys.stderr)
        return False
    if trace:
        print("\n".join(outcome.trace))
    print(
        f"seed {plan.seed}: {outcome.shards} shards, {outcome.records} records, {outcome.blocks} blocks, "
        f"{outcome.rounds} rounds; {outcome.events}; {outcome.digest[:16]}"
    )
    return True


def _outcome(plan: Plan) -> Report | SimulationFailed:
    try:
        return run_plan(plan)
    except SimulationFailed as failure:
        return failure


def _shrink(seed: int) -> int:
    plan = draw_plan(seed)
    outcome = _outcome(plan)
    if isinstance(outcome, Report):
        print(f"seed {seed} holds: there is nothing to shorten")
        return 0
    short = shrink(plan, outcome)
    left, faulty = len(short.plan.decisions), sum(short.plan.kept.values())
    print("\n".join(short.failure.trace))
    print(f"seed {seed} failed: {short.failure.what}", file=sys.stderr)
    print(
        f"{left} of {len(plan.decisions)} decisions, {faulty} with faults, after {short.runs} runs:\n"
        f"python -m pipeline.testing.simulator {seed} --trace --keep '{kept_text(short.plan.kept)}'"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
