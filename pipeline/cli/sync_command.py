"""`hauptbuch sync`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.processes import Bootstrap, Data, GenesisFile, read_chain, read_key
from pipeline.cli.surroundings import settings, until_stopped
from topologies.sync import run_synchronizer


def run(
    kafka: Bootstrap,
    genesis: GenesisFile,
    data: Data,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="An attestor's key, where one signature suffices.")
    ] = None,
) -> None:
    """Check every block, propose rounds and publish signed state roots, until SIGINT or SIGTERM."""
    chain, config = read_chain(genesis), settings(None, kafka)
    signer = None if key is None else read_key(key)
    with until_stopped() as is_done:
        run_synchronizer(chain, config, data, signer, is_done)
