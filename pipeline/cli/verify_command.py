"""`hauptbuch verify`."""

from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.assets import issued_asset
from pipeline.cli.output import json_line, line, note, when
from pipeline.cli.proving import check_expected, read_proof, shown_line, shown_value
from pipeline.cli.surroundings import Json
from pipeline.client.light import LightClient
from pipeline.client.trust import load_trust, save_trust
from pipeline.crypto.addresses import parse_address
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import ConfigError
from pipeline.node.node import wall_clock_ms


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A proof that `hauptbuch prove` wrote.")],
    trust: Annotated[Path, typer.Option("--trust", metavar="FILE", help="Whose signatures count.")],
    max_age: Annotated[
        float | None, typer.Option("--max-age", metavar="SECONDS", min=0, help="Refuse a root that is older.")
    ] = None,
    account: Annotated[
        str | None, typer.Option("--account", metavar="ADDRESS", help="Refuse a proof about another account.")
    ] = None,
    asset: Annotated[
        str | None, typer.Option("--asset", metavar="ID|SYMBOL@ISSUER", help="Refuse a proof about another asset.")
    ] = None,
    json: Json = False,
) -> None:
    """Check a proof offline and print what it proves.

    Nothing is believed but the trust file, which then remembers the newest round seen. Exit code 1: it does not hold;
    2: it could not be checked, above all where FILE is no proof. Anyone can issue an asset of any symbol: say by
    --account and --asset what the proof must be about.
    """
    address = None if account is None else parse_address(account)
    asset_id = None if asset is None else issued_asset(asset)
    if max_age is not None and not isfinite(max_age):
        raise ConfigError(f"--max-age must be a number of seconds, not {max_age}")
    known = load_trust(trust)
    client = LightClient(known, InlineVerifier(STANDARD_SUITES))
    verified = client.verify(read_proof(file), wall_clock_ms(), None if max_age is None else int(1000 * max_age))
    shown = shown_value(verified)
    check_expected(shown, address, asset_id)
    if client.trust != known:
        try:
            save_trust(trust, client.trust)
        except ConfigError as error:
            note(f"not remembered: {error}")
    root, checkpoint = verified.root.state_root, verified.root.checkpoint
    if json:
        signed = {"round": checkpoint.round, "signed_ms": checkpoint.timestamp_ms, "age_ms": verified.age_ms}
        json_line(shown | signed | {"shard": root.shard, "height": root.height, "assurance": checkpoint.assurance.name})
        return
    line(shown_line(shown))
    line(
        f"round {checkpoint.round}, signed {when(checkpoint.timestamp_ms)} ({verified.age_ms / 1000:.1f} s ago): "
        f"shard {root.shard}, block {root.height}, assurance {checkpoint.assurance.name}"
    )
