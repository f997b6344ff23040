"""`hauptbuch attest`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.processes import Bootstrap, Data, GenesisFile, read_chain, read_key
from pipeline.cli.surroundings import settings, until_stopped
from topologies.attest import run_attestor


def run(
    kafka: Bootstrap,
    genesis: GenesisFile,
    data: Data,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="This attestor's key.")],
) -> None:
    """Execute every block again and sign the rounds that follow from them, until SIGINT or SIGTERM."""
    chain, config = read_chain(genesis), settings(None, kafka)
    signer = read_key(key)
    with until_stopped() as is_done:
        run_attestor(chain, config, data, signer, is_done)
