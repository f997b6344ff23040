"""`hauptbuch` as tests run it: with another clock, or with a rule removed.

python -m tests.kafka.matrix.entry [--clock-ms N] [--mutant NAME] COMMAND ...
python -m tests.kafka.matrix.entry [--clock-ms N] [--mutant NAME] client ROLE ...
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack


def move_clock(offset_ms: int) -> None:
    """Everything of this process that asks Python for the time gets another."""
    real_ns, real = time.time_ns, time.time
    time.time_ns = lambda: real_ns() + offset_ms * 1_000_000
    time.time = lambda: real() + offset_ms / 1_000


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="entry", allow_abbrev=False)
    parser.add_argument("--clock-ms", type=int, default=0)
    parser.add_argument("--mutant", default="")
    options, command = parser.parse_known_args(arguments)
    assert command, "a command, or `client`"
    if options.clock_ms:
        move_clock(options.clock_ms)  # before anything imports a name of that module
    from pipeline.cli.main import main as run_command  # noqa: PLC0415 - after the clock was moved
    from pipeline.testing.cluster.client import main as run_client  # noqa: PLC0415 - so too
    from pipeline.testing.cluster.mutants import mutated  # noqa: PLC0415 - so too

    with ExitStack() as stack:
        if options.mutant:
            stack.enter_context(mutated(options.mutant))
        if command[0] == "client":
            return run_client(command[1:])
        sys.argv = ["hauptbuch", *command]
        run_command()
    return 0  # never: the command ends the process


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
