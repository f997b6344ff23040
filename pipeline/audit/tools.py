"""What an audit opens: the log, a verifier, scratch stores. All of it can be sent to other processes."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import PoolVerifier, Verifier
from pipeline.kv.memory import MemoryKeyValue
from pipeline.kv.port import KeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import EventLog


class Tools(NamedTuple):
    """`open_log`: the log, read-only. `new_verifier`: with the chain's suites. `new_kv`: an empty store for a shard.

    Each must be picklable where several processes audit, as module-level functions and `partial`s of them are.
    """

    open_log: Callable[[], EventLog]
    new_verifier: Callable[[], Verifier]
    new_kv: Callable[[int], KeyValue]


def memory_kv(shard: int) -> KeyValue:  # noqa: ARG001 - one for each shard
    """Scratch in memory: for ledgers whose state fits."""
    return MemoryKeyValue()


def open_directory(log: Path) -> EventLog:
    """The embedded log in a directory, read beside its owner as of now."""
    return EmbeddedLog(open_rocks(log, read_only_secondary=True), read_only=True)


def standard_verifier(threads: int | None = None) -> Verifier:
    """Of the suites that real chains use. `threads`: to verify with; None for one a processor."""
    return PoolVerifier(STANDARD_SUITES, threads)


def scratch_kv(directory: Path, shard: int) -> KeyValue:
    """Scratch on disk: for ledgers of any size."""
    return open_rocks(directory / str(shard))


@contextmanager
def directory_tools(log: Path, *, workers: int = 1) -> Iterator[Tools]:
    """Tools for the embedded log in directory `log`, with scratch stores in a temporary directory.

    Processes share the processors, so each verifies with one thread.
    """
    with tempfile.TemporaryDirectory(prefix="hauptbuch-audit-") as scratch:
        verifier = partial(standard_verifier, 1 if workers > 1 else None)
        yield Tools(partial(open_directory, log), verifier, partial(scratch_kv, Path(scratch)))
