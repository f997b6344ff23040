"""`hauptbuch sync`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.processes import (
    Bootstrap,
    Data,
    GenesisFile,
    Http,
    Level,
    LogAs,
    logging_as,
    read_chain,
    read_key,
    shown,
)
from pipeline.cli.surroundings import settings, until_stopped
from pipeline.watch.logs import LogFormat, LogLevel
from pipeline.watch.rounds import RoundWatch
from topologies.sync import run_synchronizer


def run(
    genesis: GenesisFile,
    data: Data,
    kafka: Bootstrap = "",
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="An attestor's key, where one signature suffices.")
    ] = None,
    log: LogAs = LogFormat.CONSOLE,
    log_level: Level = LogLevel.INFO,
    http: Http = "",
) -> None:
    """Check every block, propose rounds and publish signed state roots, until SIGINT or SIGTERM."""
    with logging_as(log, log_level):
        chain, config = read_chain(genesis), settings(None, kafka)
        signer = None if key is None else read_key(key)
        watch = RoundWatch(chain, "synchronizer")
        with until_stopped() as is_done, shown(watch, http, chain, config):
            run_synchronizer(chain, config, data, signer, watch, is_done)
