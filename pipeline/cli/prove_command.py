"""`hauptbuch prove`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.assets import DEFAULT_ASSET, asset_of
from pipeline.cli.names import KeyRing
from pipeline.cli.output import json_line, line
from pipeline.cli.proving import key_to_prove, prove_signed, write_proof
from pipeline.cli.surroundings import Directory, Json, reading
from pipeline.ledger.checkpoints import Checkpoint, StateRoot
from pipeline.node.layout import NodeLayout


def run(
    directory: Directory,
    account: Annotated[str, typer.Argument(metavar="ADDRESS|NAME", help="Whose balance.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the proof.")],
    asset: Annotated[str, typer.Option("--asset", metavar="SYMBOL", help="Of which asset.")] = DEFAULT_ASSET,
    json: Json = False,
) -> None:
    """Write a proof of a balance, or of its absence, that anyone with the trust file can verify offline.

    Waits up to 10 s until the newest block is under a signed root.
    """
    layout = NodeLayout(directory)
    chain = layout.chain()
    ring = KeyRing(layout)
    try:
        address = ring.address(account)
    finally:
        ring.close()
    with reading(directory) as reader:
        key = key_to_prove(reader, address, asset_of(chain.genesis.treasury, asset))
        proof = prove_signed(reader, key)
    size = write_proof(output, proof)
    root, checkpoint = StateRoot.from_bytes(proof.root.state_root), Checkpoint.from_bytes(proof.root.checkpoint)
    if json:
        json_line(
            {"file": str(output), "bytes": size, "shard": root.shard, "height": root.height, "round": checkpoint.round}
        )
        return
    line(
        f"{output}: {size} bytes, under the root of shard {root.shard} at block {root.height}, round {checkpoint.round}"
    )
