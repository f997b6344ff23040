"""`hauptbuch keygen`."""

import re
from shlex import quote
from typing import Annotated, Final

import typer

from pipeline.cli.names import NameBook, NamedAccount, is_address, shown
from pipeline.cli.output import json_line, line, note
from pipeline.cli.surroundings import Directory, Json, passphrase
from pipeline.crypto.addresses import address_of, format_address
from pipeline.crypto.keystore import save_key
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import ConfigError
from pipeline.node.layout import NodeLayout

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", re.ASCII)


def run(
    directory: Directory,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, dot, dash, underscore.")],
    suite: Annotated[str, typer.Option("--suite", help="ML-DSA-44, -65, -87 or SLH-DSA-SHA2-128s.")] = "ML-DSA-65",
    as_json: Json = False,
) -> None:
    """Make a key in DIR/keys/NAME.json and name its account.

    It is encrypted under the passphrase in the environment variable HAUPTBUCH_PASSPHRASE, which must be that of DIR's
    other keys. Neither it nor the key can be recovered. The account exists on the ledger once something is paid to it.
    """
    layout = NodeLayout(directory)
    layout.chain()
    if not _NAME.fullmatch(name) or is_address(name):
        raise ConfigError(f"{shown(name)} can't name a key file; use up to 64 letters, digits, dots, dashes")
    book = NameBook(layout.names)
    try:
        if book.find(name) is not None:
            raise ConfigError(f"{shown(name)} is taken; choose another name")
        key = STANDARD_SUITES.named(suite).generate(None)
        address = address_of(key.suite_id, key.public_key)
        # The file first: a name without its key could be paid and never pay.
        secret = passphrase()
        save_key(layout.key(name), key, secret, STANDARD_SUITES)
        book.add([NamedAccount(name, address, None)])
    finally:
        book.close()
    lost = "encrypted; the passphrase can't be recovered" if secret else "not encrypted; it can't be recovered"
    note(f"the key is in {layout.key(name)}, {lost}: keep a copy elsewhere")
    note(f"next: let somebody pay it, `hauptbuch send {quote(str(directory))} --from PAYER --to {name} --amount N`")
    if as_json:
        json_line({"name": name, "address": format_address(address), "suite": STANDARD_SUITES[key.suite_id].name})
    else:
        line(f"{name} {format_address(address)}")
