"""`hauptbuch account`."""

from typing import Annotated

import typer

from pipeline.cli.account_lines import account_object, balance_rows
from pipeline.cli.assets import AssetNames
from pipeline.cli.names import KeyRing
from pipeline.cli.output import json_line, line, table
from pipeline.cli.surroundings import Directory, Json, reading
from pipeline.crypto.addresses import format_address
from pipeline.errors import ConfigError


def run(
    directory: Directory,
    who: Annotated[str, typer.Argument(metavar="ADDRESS|NAME")],
    as_json: Json = False,
) -> None:
    """Show one account: its address, name, nonce and balances. Works beside a running node."""
    with reading(directory) as reader:
        ring = KeyRing(reader.layout)
        try:
            address = ring.address(who)
            name = ring.book.name_of(address)
        finally:
            ring.close()
        view = reader.account(address)
        if view is None:
            raise ConfigError(f"{format_address(address)} is no account yet: nothing was ever paid to it")
        assets = AssetNames(reader)
        if as_json:
            json_line(account_object(view, name, assets))
            return
        line(f"address  {format_address(address)}")
        if name is not None:
            line(f"name     {name}")
        line(f"nonce    {view.account.nonce}")
        line(f"key      {'recorded' if view.account.suite else 'none yet: it never sent'}")
        if view.balances:
            line()
            table(("asset", "balance", ""), balance_rows(view, assets), right=("balance",))
