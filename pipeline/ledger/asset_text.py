"""Assets and amounts as people read them."""

from typing import Final, NamedTuple

from pipeline.codec.types import Address
from pipeline.crypto.addresses import format_address
from pipeline.ledger.leaves import Asset

ISSUER_MARK: Final = "@"


class AssetLabel(NamedTuple):
    """How an asset is shown."""

    symbol: str
    decimals: int


def asset_label(leaf: Asset, treasury: Address) -> AssetLabel:
    """The treasury's asset by its symbol, anybody else's by symbol and issuer, since anyone can use any symbol."""
    try:
        symbol = leaf.symbol.decode()
    except UnicodeDecodeError:
        symbol = ""
    if not symbol.isprintable() or not symbol or ISSUER_MARK in symbol:
        symbol = f"0x{leaf.symbol.hex()}"  # it could break the line, or pass for another
    if leaf.issuer != treasury:
        symbol = f"{symbol}{ISSUER_MARK}{format_address(leaf.issuer)}"
    return AssetLabel(symbol, leaf.decimals)


def format_amount(amount: int, decimals: int) -> str:
    """Minor units as a decimal number, exact."""
    if not decimals:
        return str(amount)
    whole, fraction = divmod(abs(amount), 10**decimals)
    return f"{'-' if amount < 0 else ''}{whole}.{fraction:0{decimals}}"
