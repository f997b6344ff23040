"""Auditing a directory or a copy of its log: what the audit needs to open, and its progress."""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

from pipeline.audit.report import AuditReport
from pipeline.audit.run import Tools, audit, memory_kv
from pipeline.cli.output import note
from pipeline.client.trust import Trust
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier, PoolVerifier, Verifier
from pipeline.kv.port import KeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.ledger.chain import Chain
from pipeline.log.embedded import EmbeddedLog

_LARGE_BYTES: Final = 64 << 20
_SAY_EVERY_S: Final = 1.0


def audit_log(
    path: Path, chain: Chain, trust: Trust | None, progress: Callable[[int, int], None] | None = None
) -> AuditReport:
    """Audit the embedded log in `path`, beside the process that owns it if there is one.

    A large log is replayed by one process a shard on all processors, with its states on disk; a small one here, where
    threads verify signatures. Raises `ConfigError` and `Fatal` where the log can't be opened.
    """
    opened = partial(_open_log, path)
    if _bytes_of(path) < _LARGE_BYTES:
        return audit(Tools(opened, _threads, memory_kv), chain=chain, trust=trust, progress=progress)
    with tempfile.TemporaryDirectory(prefix="hauptbuch-audit-") as scratch:
        tools = Tools(opened, _alone, partial(_scratch_kv, Path(scratch)))
        return audit(tools, chain=chain, trust=trust, progress=progress, workers=os.cpu_count() or 1)


def say_progress() -> Callable[[int, int], None]:
    """Tells standard error once a second where the replay is."""
    last = monotonic()

    def say(shard: int, height: int) -> None:
        nonlocal last
        if monotonic() - last >= _SAY_EVERY_S:
            last = monotonic()
            note(f"replaying shard {shard}, block {height}")

    return say


def _open_log(path: Path) -> EmbeddedLog:
    log = EmbeddedLog(open_rocks(path, read_only_secondary=True), read_only=True)
    log.refresh()
    return log


def _threads() -> Verifier:
    return PoolVerifier(STANDARD_SUITES)


def _alone() -> Verifier:
    return InlineVerifier(STANDARD_SUITES)


def _scratch_kv(folder: Path, shard: int) -> KeyValue:
    return open_rocks(folder / str(shard))


def _bytes_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*") if file.is_file())
