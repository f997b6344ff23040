"""Auditing a directory, a copy of its log, or a cluster: what the audit needs to open, and its progress."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final

from pipeline.audit.report import AuditReport
from pipeline.audit.run import audit_log
from pipeline.audit.tools import Tools, directory_tools, memory_kv, scratch_kv, standard_verifier
from pipeline.cli.output import note
from pipeline.client.trust import Trust
from pipeline.ledger.chain import Chain
from pipeline.log.port import EventLog
from pipeline.node.bootstrap import require_topics

_LARGE_BYTES: Final = 64 << 20
_SAY_EVERY_S: Final = 1.0


def audit_directory(
    path: Path, chain: Chain, trust: Trust | None, progress: Callable[[int, int], None] | None = None
) -> AuditReport:
    """Audit the embedded log in `path`, beside the process that owns it if there is one.

    A large log is replayed by one process a shard on all processors, with its states on disk; a small one here, where
    threads verify signatures. Raises `ConfigError` and `Fatal` where the log can't be opened.
    """
    large = _bytes_of(path) >= _LARGE_BYTES
    workers = os.cpu_count() or 1 if large else 1
    with directory_tools(path, workers=workers) as tools:
        return audit_log(
            tools if large else tools._replace(new_kv=memory_kv),
            chain=chain,
            trust=trust,
            progress=progress,
            workers=workers,
        )


def audit_cluster(
    log: EventLog, chain: Chain, trust: Trust | None, progress: Callable[[int, int], None] | None = None
) -> AuditReport:
    """Audit a chain's topics on a cluster, as of now; one shard after the other, their states on disk.

    Raises `ConfigError` where the cluster has nothing of the chain, `Retryable` where it does not answer.
    """
    with TemporaryDirectory(prefix="hauptbuch-audit-") as scratch:
        require_topics(log)
        tools = Tools(lambda: log, standard_verifier, partial(scratch_kv, Path(scratch)))
        return audit_log(tools, chain=chain, trust=trust, progress=progress)


def say_progress() -> Callable[[int, int], None]:
    """Tells standard error once a second where the replay is."""
    last = monotonic()

    def say(shard: int, height: int) -> None:
        nonlocal last
        if monotonic() - last >= _SAY_EVERY_S:
            last = monotonic()
            note(f"replaying shard {shard}, block {height}")

    return say


def _bytes_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*") if file.is_file())
