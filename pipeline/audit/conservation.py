"""Per asset: balances + fees held + value in relay flight = issued - burned."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.audit.findings import Finding, FindingKind
from pipeline.audit.relay_check import InFlight
from pipeline.audit.replay import ShardResult
from pipeline.codec.types import AssetId
from pipeline.ledger.asset_text import asset_label, format_amount
from pipeline.ledger.genesis import Genesis


@dataclass(frozen=True, slots=True)
class AssetLine:
    """One asset over all shards, in minor units.

    `symbol` as people read it, with the issuer where that is not the treasury; empty where no shard knows the asset.
    """

    asset: AssetId
    symbol: str
    decimals: int
    balances: int
    fees: int
    in_flight: int
    issued: int
    burned: int

    @property
    def holds(self) -> bool:
        """Whether nothing was made or lost."""
        return self.balances + self.fees + self.in_flight == self.issued - self.burned

    def render(self) -> str:
        """One line for people: amounts with their decimals."""
        sign = "=" if self.holds else "is not"
        sums = (self.balances, self.fees, self.in_flight, self.issued, self.burned)
        balances, fees, in_flight, issued, burned = (format_amount(amount, self.decimals) for amount in sums)
        return (
            f"{self.symbol or self.asset.hex()}: balances {balances} + fees {fees} + in flight {in_flight} "
            f"{sign} issued {issued} - burned {burned}"
        )

    def to_json(self) -> dict[str, Any]:
        """Amounts in minor units as strings, since they pass 2^53."""
        return {
            "asset": self.asset.hex(),
            "symbol": self.symbol,
            "decimals": self.decimals,
            "balances": str(self.balances),
            "fees": str(self.fees),
            "in_flight": str(self.in_flight),
            "issued": str(self.issued),
            "burned": str(self.burned),
            "holds": self.holds,
        }


def conservation(
    shards: Sequence[ShardResult], in_flight: Iterable[InFlight], early: Iterable[InFlight], genesis: Genesis
) -> tuple[AssetLine, ...]:
    """The table, ascending by asset; only true of shards that were replayed to their ends.

    `early`: bundles that one shard has executed and that another sent behind its end: value that both hold.
    """
    flying: dict[AssetId, int] = {}
    for bundles, sign in ((in_flight, 1), (early, -1)):
        for bundle in bundles:
            for asset, amount in bundle.value.items():
                flying[asset] = flying.get(asset, 0) + sign * amount
    fees = sum(shard.fees for shard in shards)
    known = {asset: leaf for shard in shards for asset, leaf in shard.assets.items()}
    assets = known.keys() | flying.keys() | {asset for shard in shards for asset in shard.balances}
    if fees:
        assets |= {genesis.fee_asset}
    lines = []
    for asset in sorted(assets):
        leaf = known.get(asset)
        balances = sum(shard.balances.get(asset, 0) for shard in shards)
        held = fees if asset == genesis.fee_asset else 0
        symbol, decimals = asset_label(leaf, genesis.treasury) if leaf else ("", 0)
        issued, burned = (leaf.issued, leaf.burned) if leaf else (0, 0)
        lines.append(AssetLine(asset, symbol, decimals, balances, held, flying.get(asset, 0), issued, burned))
    return tuple(lines)


def unbalanced(lines: Iterable[AssetLine]) -> list[Finding]:
    """A finding for every asset whose value was made or lost."""
    found = []
    for line in lines:
        if not line.holds:
            there, should = line.balances + line.fees + line.in_flight, line.issued - line.burned
            shown, wanted = format_amount(there, line.decimals), format_amount(should, line.decimals)
            what = f"asset {line.symbol or line.asset.hex()}: {shown} in balances, fees and flight, {wanted} issued"
            found.append(Finding(FindingKind.CONSERVATION, what))
    return found
