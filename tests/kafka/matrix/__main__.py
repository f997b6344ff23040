"""`python -m tests.kafka.matrix soak [--minutes N] | run CASE... | list`: the fault matrix on a native cluster."""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.kafka.matrix.cases import CASES
from tests.kafka.matrix.runner import Report, brokers_of, play, soak, stage_of


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt  # so that what was started is ended


def main(arguments: Sequence[str]) -> int:
    """0 where everything held; 1 else, and what is left stays."""
    parser = argparse.ArgumentParser(prog="matrix", description=__doc__)
    parser.add_argument("command", choices=("soak", "run", "list"))
    parser.add_argument("cases", nargs="*", help="names; all where none is given")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=int, default=1, help="of each case, for `run`")
    parser.add_argument("--folder", type=Path, help="where everything is made; else a temporary directory")
    options = parser.parse_args(arguments)
    chosen = [case for case in CASES if not options.cases or case.name in options.cases]
    if options.command == "list":
        for case in CASES:
            print(f"{case.name} ({case.house.value})")
        return 0
    if not chosen:
        print(f"no case is called {options.cases}: see `list`", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _terminate)
    root = Path(tempfile.mkdtemp(prefix="hauptbuch-matrix-", dir=options.folder))
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.0f}] {text}", flush=True)

    if options.command == "soak":
        report = soak(root, options.seed, options.minutes, say, chosen if options.cases else ())
    else:
        report = Report()
        for number, case in enumerate(chosen * options.times):
            place = root / str(number)
            with (
                brokers_of(case.house, place / "brokers") as brokers,
                stage_of(case.house, place / "ledger", brokers, options.seed + number, report) as stage,
            ):
                play(stage, case, report, say)
        report.seconds = time.monotonic() - started
    print("\n".join(report.table()))
    if report.ok:
        shutil.rmtree(root, ignore_errors=True)
    else:
        print(f"what is left: {root}", file=sys.stderr)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
