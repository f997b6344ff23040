"""The process that is killed: runs a node and publishes to it without end, or some batches and then finishes.

    python -m pipeline.testing.kills.victim DIR SEED [--batches N] [--durability process]

It tells on standard output what it knows to be durable, a line each, written only after the node said so:
`ack PARTITION OFFSET SHA256` of a published record, `root SHARD HEIGHT HASH STATE ROUND CHECKPOINT` of a state root
that a subscriber verified, `ready` once it leads, `done`. Whoever kills it holds those lines against what is left.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from itertools import count
from pathlib import Path
from random import Random
from types import FrameType
from typing import Final, NoReturn

from pipeline.client.light import LightClient
from pipeline.client.subscriber import StateRootSubscriber
from pipeline.client.trust import load_trust
from pipeline.config import Config
from pipeline.config import Durability as DurabilityName
from pipeline.config.groups import StoreConfig
from pipeline.errors import HauptbuchError
from pipeline.log.port import Append
from pipeline.node.node import Node
from pipeline.shards.life import TaskState
from pipeline.testing.kills.finish import PATIENCE_MS, finish
from pipeline.testing.kills.ledger import reopened_chain
from pipeline.testing.kills.traffic import Traffic
from pipeline.testing.kills.words import Ack, seen_root
from pipeline.testing.suite import TEST_SUITES

INTERRUPTED: Final = 130
_BATCH: Final = 12
_STEPS: Final = 12


class Victim:
    """One node, its traffic, and what it tells."""

    def __init__(self, node: Node, random: Random, tell: Callable[[str], None]) -> None:
        """Nothing runs yet. `tell` takes whole lines, several at once."""
        layout = node.layout
        self._node = node
        self._random = random
        self._told = tell
        self._traffic = Traffic(node, reopened_chain(layout), random)
        client = LightClient(load_trust(layout.trust), node.verifier)
        self._subscriber = StateRootSubscriber(node.log, client, range(len(node.tasks)))

    def lead(self) -> None:
        """Drive until every shard leads."""
        self._node.run_until(lambda: all(task.state is TaskState.LEADING for task in self._node.tasks))
        self._tell(["ready"])
        self._publish(self._traffic.funding())

    def play(self) -> None:
        """Publish some records and drive a random number of steps: what is published is ahead of what is executed."""
        self._publish(self._traffic.batch(self._random.randint(1, _BATCH)))
        for _ in range(self._random.randint(1, _STEPS)):
            self._node.step()
        self._tell_roots()

    def finish(self, patience_ms: int = PATIENCE_MS) -> None:
        """Drive until everything is executed and signed. Raises as `finish.finish`."""
        finish(self._node, patience_ms)
        self._tell_roots()
        self._tell(["done"])

    def _publish(self, appends: Sequence[Append]) -> None:
        offsets = self._node.log.append(appends)
        self._tell(
            str(Ack(append.target.partition, offset, sha256(append.value or b"").hexdigest()))
            for append, offset in zip(appends, offsets, strict=True)
        )

    def _tell_roots(self) -> None:
        self._tell([str(seen_root(root)) for root in self._subscriber.catch_up()])
        assert not self._subscriber.refused, self._subscriber.refused[0]

    def _tell(self, lines: Iterable[str]) -> None:
        self._told("".join(f"{line}\n" for line in lines))


def _say(text: str) -> None:
    """Unbuffered: what was said outlives this process."""
    os.write(sys.stdout.fileno(), text.encode())


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """0 finished, 2 with one line on standard error, 130 interrupted by SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="victim")
    parser.add_argument("directory", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("--batches", type=int, help="publish so many batches, then finish")
    parser.add_argument("--durability", type=DurabilityName, default=DurabilityName.SYNC)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        config = Config(store=StoreConfig(durability=options.durability))
        node = Node.open(options.directory, config=config, suites=TEST_SUITES)
        try:
            victim = Victim(node, Random(options.seed), _say)
            victim.lead()
            for _ in count() if options.batches is None else range(options.batches):
                victim.play()
            victim.finish()
        finally:
            node.close()
    except HauptbuchError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
