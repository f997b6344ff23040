"""Assets as people name them: the treasury's by their symbol, others' by symbol and issuer.

Anyone can create an asset of any symbol, so a bare symbol means the treasury's asset and nobody else's.
"""

from typing import Final, NamedTuple

from pipeline.cli.csv_source import DEFAULT_ASSET, parse_amount
from pipeline.codec.types import Address, AssetId
from pipeline.crypto.addresses import format_address, parse_address
from pipeline.errors import ConfigError
from pipeline.ledger.leaves import Asset
from pipeline.ledger.transactions import asset_id_of
from pipeline.node.reader import LedgerView

__all__ = ["DEFAULT_ASSET", "AssetNames", "asset_of", "format_amount", "issued_asset", "scaled_amount"]

_ISSUER_MARK: Final = "@"


class AssetLabel(NamedTuple):
    """How an asset is shown."""

    symbol: str
    decimals: int


def asset_of(treasury: Address, text: str) -> AssetId:
    """The id of `SYMBOL`, or of `SYMBOL@ISSUER` where the treasury did not issue it. Raises `ConfigError`."""
    symbol, mark, issuer = text.rpartition(_ISSUER_MARK)
    if not mark:
        return asset_id_of(treasury, text.encode())
    return asset_id_of(parse_address(issuer), symbol.encode())


def issued_asset(text: str) -> AssetId:
    """The id of `ID` or `SYMBOL@ISSUER`: for who has no ledger at hand, and so can't know whose a bare symbol is.

    Raises `ConfigError`.
    """
    symbol, mark, issuer = text.rpartition(_ISSUER_MARK)
    if mark:
        return asset_id_of(parse_address(issuer), symbol.encode())
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise ConfigError("--asset: give the 64 hexadecimal digits of its id, or SYMBOL@ISSUER")
    return AssetId(raw)


class AssetNames:
    """Labels of the assets that a reader comes across."""

    def __init__(self, reader: LedgerView) -> None:
        """Reads each asset once."""
        self._reader = reader
        self._known: dict[AssetId, AssetLabel] = {}

    def label(self, asset: AssetId) -> AssetLabel:
        """How to show an asset."""
        found = self._known.get(asset)
        if found is None:
            found = self._known[asset] = self._read(asset)
        return found

    def _read(self, asset: AssetId) -> AssetLabel:
        leaf = self._reader.asset(asset)
        if leaf is None:  # only where the issuer's shard is read a moment before the receiver's
            return AssetLabel(f"0x{asset.hex()}", 0)
        return AssetLabel(_symbol(leaf, self._reader.chain.genesis.treasury), leaf.decimals)


def _symbol(leaf: Asset, treasury: Address) -> str:
    try:
        symbol = leaf.symbol.decode()
    except UnicodeDecodeError:
        symbol = ""
    if not symbol.isprintable() or not symbol or _ISSUER_MARK in symbol:
        symbol = f"0x{leaf.symbol.hex()}"  # it could break the line, or pass for another
    return symbol if leaf.issuer == treasury else f"{symbol}{_ISSUER_MARK}{format_address(leaf.issuer)}"


def format_amount(amount: int, decimals: int) -> str:
    """Minor units as a decimal number, exact."""
    if not decimals:
        return str(amount)
    whole, fraction = divmod(amount, 10**decimals)
    return f"{whole}.{fraction:0{decimals}}"


def scaled_amount(text: str, decimals: int) -> int:
    """Minor units of a decimal number. Raises `ConfigError`."""
    try:
        return parse_amount(text.strip(), decimals)
    except ValueError as error:
        raise ConfigError(f"--amount: {error}; give a number such as 12{'.5' if decimals else ''}") from None
