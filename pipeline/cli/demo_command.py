"""`hauptbuch demo`."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from pipeline.cli.demo.run import Options, run_demo

DEFAULT_ROWS: Final = 7_000


def run(
    rows: Annotated[int, typer.Option("--rows", help="How many payments of the packaged sample.")] = DEFAULT_ROWS,
    shards: Annotated[int, typer.Option("--shards", help="Number of shards.")] = 4,
    json: Annotated[bool, typer.Option("--json", help="One JSON document with all figures.")] = False,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Keep the ledger in DIR; it must not exist.")
    ] = None,
    kafka: Annotated[
        str, typer.Option("--kafka", metavar="BOOTSTRAP", help="Play on this cluster: host:port of brokers.")
    ] = "",
) -> int:
    """Play real Ethereum payments over shards, prove a balance, audit the log, catch damaged copies of it.

    Every figure is measured in this run. With --kafka the log is on a real cluster, and workers and a synchronizer are
    processes of their own. Exit code 1 where anything did not hold.
    """
    with _place(keep) as root:
        return 0 if run_demo(Options(root, rows, shards, json, keep is not None, kafka)) else 1


@contextmanager
def _place(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="hauptbuch-demo-") as folder:
        yield Path(folder) / "ledger"
