"""Replay seeds: `python -m pipeline.testing.simulator [--trace] SEED...`."""

import argparse
import sys

from pipeline.testing.simulator import SimulationFailed, simulate


def main(arguments: list[str] | None = None) -> int:
    """0 where every seed held, else 1."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.testing.simulator", description=__doc__)
    parser.add_argument("seeds", metavar="SEED", type=int, nargs="+")
    parser.add_argument("--trace", action="store_true", help="print all that happened")
    options = parser.parse_args(arguments)
    failed = 0
    for seed in options.seeds:
        try:
            report = simulate(seed)
        except SimulationFailed as failure:
            failed += 1
            print("\n".join(failure.trace) if options.trace else failure)
            print(f"seed {seed} failed: {failure.what}", file=sys.stderr)
            continue
        if options.trace:
            print("\n".join(report.trace))
        print(
            f"seed {seed}: {report.shards} shards, {report.records} records, {report.blocks} blocks, "
            f"{report.rounds} rounds; {report.events}; {report.digest[:16]}"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
