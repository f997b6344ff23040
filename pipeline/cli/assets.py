"""Assets as people name them: the treasury's by their symbol, others' by symbol and issuer.

Anyone can create an asset of any symbol, so a bare symbol means the treasury's asset and nobody else's.
"""

from pipeline.cli.csv_source import DEFAULT_ASSET, parse_amount
from pipeline.codec.types import Address, AssetId
from pipeline.crypto.addresses import parse_address
from pipeline.errors import ConfigError
from pipeline.ledger.asset_text import ISSUER_MARK, AssetLabel, asset_label, format_amount
from pipeline.ledger.transactions import asset_id_of
from pipeline.node.reader import LedgerView

__all__ = ["DEFAULT_ASSET", "AssetNames", "asset_of", "format_amount", "issued_asset", "scaled_amount"]


def asset_of(treasury: Address, text: str) -> AssetId:
    """The id of `SYMBOL`, or of `SYMBOL@ISSUER` where the treasury did not issue it. Raises `ConfigError`."""
    symbol, mark, issuer = text.rpartition(ISSUER_MARK)
    if not mark:
        return asset_id_of(treasury, text.encode())
    return asset_id_of(parse_address(issuer), symbol.encode())


def issued_asset(text: str) -> AssetId:
    """The id of `ID` or `SYMBOL@ISSUER`: for who has no ledger at hand, and so can't know whose a bare symbol is.

    Raises `ConfigError`.
    """
    symbol, mark, issuer = text.rpartition(ISSUER_MARK)
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
        return asset_label(leaf, self._reader.chain.genesis.treasury)


def scaled_amount(text: str, decimals: int) -> int:
    """Minor units of a decimal number. Raises `ConfigError`."""
    try:
        return parse_amount(text.strip(), decimals)
    except ValueError as error:
        raise ConfigError(f"--amount: {error}; give a number such as 12{'.5' if decimals else ''}") from None
