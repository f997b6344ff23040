"""How fast a shard comes back: with its store, and with an empty disk from the log alone."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from benchmarks.bed import bed, play, publish, receiver, sample_rows, transfers
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.node.node import Node
from pipeline.shards.life import TaskState

SHARDS = 4
ROWS = 4_000


@dataclass(frozen=True, slots=True)
class RecoveryFigures:
    """Seconds until all shards lead again, and how many transactions were executed again."""

    transactions: int
    with_store_seconds: float
    from_log_seconds: float


def run() -> RecoveryFigures:
    """Play payments, stop, then open copies of the directory: whole, and without its state stores."""
    rows = sample_rows()[:ROWS]
    funds: dict[str, int] = {}
    for row in rows:
        funds[row.payer] = funds.get(row.payer, 0) + row.amount
    with tempfile.TemporaryDirectory(prefix="hauptbuch-bench-") as kept:
        with bed(SHARDS, funds) as (node, wallet, asset):
            bodies = [wallet.body(row.payer, transfers(asset, [(receiver(row.payee), row.amount)])) for row in rows]
            publish(node, wallet.sign(bodies))
            play(node)
            node.close()
            for name in ("whole", "bare"):
                shutil.copytree(node.layout.root, Path(kept) / name)
        shutil.rmtree(Path(kept) / "bare" / "shards")
        return RecoveryFigures(len(rows), _open(Path(kept) / "whole"), _open(Path(kept) / "bare"))


def _open(root: Path) -> float:
    started = perf_counter()
    node = Node.open(root, suites=STANDARD_SUITES)
    try:
        leading = node.run_until(lambda: all(task.state is TaskState.LEADING for task in node.tasks), 600_000)
        assert leading, "a shard did not recover"
        return perf_counter() - started
    finally:
        node.close()
