"""`hauptbuch attest`."""

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
from topologies.attest import run_attestor


def run(
    genesis: GenesisFile,
    data: Data,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="This attestor's key.")],
    kafka: Bootstrap = "",
    log: LogAs = LogFormat.CONSOLE,
    log_level: Level = LogLevel.INFO,
    http: Http = "",
) -> None:
    """Execute every block again and sign the rounds that follow from them, until SIGINT or SIGTERM."""
    with logging_as(log, log_level):
        chain, config = read_chain(genesis), settings(None, kafka)
        signer = read_key(key)
        watch = RoundWatch(chain, "attestor")
        with until_stopped() as is_done, shown(watch, http, chain, config):
            run_attestor(chain, config, data, signer, watch, is_done)
