"""How an account is shown."""

from typing import Any

from pipeline.cli.assets import AssetNames, format_amount
from pipeline.crypto.addresses import format_address
from pipeline.node.reader import AccountView


def account_object(view: AccountView, name: str | None, assets: AssetNames) -> dict[str, Any]:
    """The JSON object: amounts are minor units as strings, since they exceed what JSON readers keep exact."""
    return {
        "address": format_address(view.address),
        "name": name,
        "nonce": view.account.nonce,
        "balances": {symbol: str(amount) for symbol, _, amount, _ in _balances(view, assets)},
    }


def balance_rows(view: AccountView, assets: AssetNames) -> list[tuple[str, str, str]]:
    """(asset, amount, remark) of each balance."""
    return [
        (symbol, format_amount(amount, decimals), "frozen" if frozen else "")
        for symbol, decimals, amount, frozen in _balances(view, assets)
    ]


def _balances(view: AccountView, assets: AssetNames) -> list[tuple[str, int, int, bool]]:
    found = []
    for asset, balance in view.balances:
        label = assets.label(asset)
        found.append((label.symbol, label.decimals, balance.amount, balance.frozen))
    return sorted(found)
