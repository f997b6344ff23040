"""The process of one client of a ledger on a cluster.

    python -m pipeline.testing.cluster.client pay|read NAME NUMBER SEED --kafka B --genesis F --history FILE
                                              [--treasury KEY] [--data DIR]

It is told `play` and `rest` on standard input, a line each, and ends with it. It answers `playing` and `resting`: at
rest nothing is published, all that was has been answered and told, and a reader has proved every balance once more.
Only a ledger at rest may be given a new client. An error ends it with one line on standard error and code 2.
"""

import argparse
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from time import sleep
from typing import Final, Protocol

from pipeline.config import Config
from pipeline.config.groups import KafkaConfig
from pipeline.crypto.keystore import load_key
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import HauptbuchError
from pipeline.ledger.chain import Chain
from pipeline.ledger.genesis import Genesis
from pipeline.node.layout import NodeLayout
from pipeline.node.places import kafka_log
from pipeline.node.replica import ReplicaReader
from pipeline.testing.cluster.history import Recorder
from pipeline.testing.cluster.looker import Looker
from pipeline.testing.cluster.payer import Payer

_PAUSE_S: Final = 0.05


class Client(Protocol):
    """As `Payer` and `Looker`."""

    @property
    def is_resting(self) -> bool:
        """Whether nothing is left to be told."""

    def play(self) -> None:
        """Do something, and tell."""

    def follow(self) -> None:
        """Tell."""


class Orders:
    """What standard input said last. A thread reads it, since a client never waits."""

    def __init__(self) -> None:
        """Rest until told otherwise."""
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self.ended = False
        threading.Thread(target=self._listen, daemon=True).start()

    def take(self) -> str | None:
        """The next order that was not taken yet."""
        with self._lock:
            return self._waiting.pop(0) if self._waiting else None

    def _listen(self) -> None:
        for line in sys.stdin:
            with self._lock:
                self._waiting.append(line.strip())
        self.ended = True


def serve(client: Client, orders: Orders, begin: Callable[[str], None], say: Callable[[str], None]) -> None:
    """Until standard input ends. `begin` hears of each order before it is carried out."""
    order, answered = "rest", True
    while not orders.ended:
        new = orders.take()
        if new is not None:
            order, answered = new, False
            begin(order)
        if order == "play":
            client.play()
            if not answered:
                say("playing")
                answered = True
        else:
            client.follow()
            if not answered and client.is_resting:
                say("resting")
                answered = True
        sleep(_PAUSE_S)


def _say(text: str) -> None:
    print(text, flush=True)


def _run(options: argparse.Namespace) -> None:
    chain = Chain.of(Genesis.from_record(options.genesis.read_bytes()))
    config = Config(kafka=KafkaConfig(bootstrap=options.kafka))
    orders, random = Orders(), Random(options.seed)
    with ExitStack() as stack:
        recorder = stack.enter_context(Recorder(options.history))
        log = kafka_log(chain, config)
        stack.callback(log.close)
        if options.role == "pay":
            treasury = None if options.treasury is None else load_key(options.treasury, "", STANDARD_SUITES)
            payer = Payer(options.name, options.number, log, chain, recorder, random, treasury)
            payer.resume()
            serve(payer, orders, lambda _: None, _say)
            return
        layout = NodeLayout(options.data)
        layout.root.mkdir(parents=True, exist_ok=True)
        layout.genesis.write_bytes(options.genesis.read_bytes())
        view = stack.enter_context(ReplicaReader(layout, config, log))
        verifier = InlineVerifier(STANDARD_SUITES)
        stack.callback(verifier.close)
        looker = Looker(options.name, view, verifier, recorder, random)
        serve(looker, orders, lambda order: looker.ask_all() if order == "rest" else None, _say)


def main(arguments: Sequence[str]) -> int:
    """0 where standard input ended it."""
    parser = argparse.ArgumentParser(prog="client")
    parser.add_argument("role", choices=("pay", "read"))
    parser.add_argument("name")
    parser.add_argument("number", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--genesis", type=Path, required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--treasury", type=Path)
    parser.add_argument("--data", type=Path)
    try:
        _run(parser.parse_args(arguments))
    except (HauptbuchError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
