"""`python -m benchmarks.timed FILE COMMAND ...`: `hauptbuch COMMAND ...`, with the time that its parts take in FILE.

A part is the time inside some functions, less that of parts called from there, in whichever thread. Waiting counts.
"""

import atexit
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from time import perf_counter
from typing import Any

from pipeline.cli import main
from pipeline.crypto.verifier import PoolVerifier
from pipeline.log.kafka.log import KafkaLog
from pipeline.log.kafka.writer import KafkaWriter
from pipeline.shards import leader
from pipeline.shards.backlog import Backlog
from pipeline.shards.block_reader import BlockReader
from pipeline.state.store import StateStore
from pipeline.sync import execution, signer_guard
from pipeline.sync.headers import HeaderChecker

SIGNATURES = "checks signatures"
PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "waits for the log": ((KafkaLog, "wait"),),
    "reads the log": ((Backlog, "fill"), (BlockReader, "read"), (execution, "read_inputs")),
    SIGNATURES: ((PoolVerifier, "prefetch"), (PoolVerifier, "verify")),
    "composes": ((leader, "compose"),),
    "executes": ((leader, "execute"), (execution, "follow")),
    "checks headers": ((HeaderChecker, "check"),),
    "encodes outputs": ((leader, "block_appends"), (leader, "encode_appends")),
    "writes the state": ((StateStore, "commit"),),
    "guards and signs": ((signer_guard.SignerGuard, "sign"),),
    "commits, another thread": ((KafkaWriter, "_commit"),),
}
EVERYTHING = "everything"
BLOCKS = "blocks"

_spent: Counter[str] = Counter()
_calls: Counter[str] = Counter()
_inside = threading.local()


def _timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def timed(*arguments: Any, **options: Any) -> Any:
        outer = getattr(_inside, "parts", 0.0)
        _inside.parts = 0.0
        started = perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            took = perf_counter() - started
            _spent[part] += took - _inside.parts
            _calls[part] += 1
            _inside.parts = outer + took

    return timed


def run(file: Path, arguments: list[str]) -> None:
    """Run the command; FILE is written when it ends."""
    for part, functions in PARTS.items():
        for owner, name in functions:
            setattr(owner, name, _timed(part, getattr(owner, name)))
    started = perf_counter()

    def write() -> None:
        document = {**_spent, EVERYTHING: perf_counter() - started, BLOCKS: _calls["executes"]}
        file.write_text(json.dumps(document), encoding="utf-8")

    atexit.register(write)
    sys.argv = ["hauptbuch", *arguments]
    main.main()


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
