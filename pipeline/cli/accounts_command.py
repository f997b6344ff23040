"""`hauptbuch accounts`."""

from collections.abc import Iterator
from itertools import islice

from pipeline.cli.account_lines import account_object, balance_rows
from pipeline.cli.assets import AssetNames
from pipeline.cli.names import NameBook
from pipeline.cli.output import json_line, table
from pipeline.cli.surroundings import Directory, Json, reading
from pipeline.codec.types import Address
from pipeline.crypto.addresses import format_address
from pipeline.node.reader import AccountView, LedgerView

_PAGE = 1_000


def run(directory: Directory, as_json: Json = False) -> None:
    """List all accounts with their balances, ascending by address. Works beside a running node."""
    with reading(directory) as reader:
        book = NameBook(reader.layout.names)
        try:
            assets = AssetNames(reader)
            if as_json:
                for view, name in _named(reader, book):
                    json_line(account_object(view, name, assets))
            else:
                columns = ("address", "name", "nonce", "asset", "balance", "")
                table(columns, _rows(reader, book, assets), right=("nonce", "balance"))
        finally:
            book.close()


def _named(reader: LedgerView, book: NameBook) -> Iterator[tuple[AccountView, str | None]]:
    views = reader.accounts()
    while page := list(islice(views, _PAGE)):
        names: dict[Address, str] = book.names_of(view.address for view in page)
        for view in page:
            yield view, names.get(view.address)


def _rows(reader: LedgerView, book: NameBook, assets: AssetNames) -> Iterator[tuple[str, ...]]:
    for view, name in _named(reader, book):
        who = (format_address(view.address), name or "", str(view.account.nonce))
        for row in balance_rows(view, assets) or [("", "", "")]:
            yield (*who, *row)
            who = ("", "", "")
