"""The treasury's part of a load: it creates missing assets and mints exactly what payers will spend.

Or it mints nothing, and payers have it already.
"""

from collections.abc import Mapping
from typing import Final

from pipeline.cli.csv_plan import FundingPlan
from pipeline.cli.csv_source import CsvSource
from pipeline.cli.names import KeyRing, NamedAccount, shown
from pipeline.cli.state_reading import read_account, read_asset, read_balance
from pipeline.client.producer import Sender, TransactionProducer
from pipeline.codec.types import MAX_AMOUNT, Address, AssetId
from pipeline.errors import ConfigError
from pipeline.ledger.leaves import Asset
from pipeline.ledger.packing import TRANSFER_ENTRY, pack_transfers
from pipeline.ledger.transactions import CreateAsset, Mint, Operation, asset_id_of
from pipeline.node.running import RunningLedger
from pipeline.node.settling import drive_until, waiting_transactions

_REFERENCE: Final = b"load"
_BESIDE_ENTRIES: Final = 20_000  # signature, public key and the rest of a record, of any suite
_AHEAD: Final = 8


class Funder:
    """Funds payers from the treasury's key."""

    def __init__(self, node: RunningLedger, ring: KeyRing, producer: TransactionProducer) -> None:
        """Nothing happens yet."""
        self._node = node
        self._ring = ring
        self._producer = producer
        limits = node.chain.genesis.limits
        self._most = min(limits.entries - 1, (limits.record_bytes - _BESIDE_ENTRIES) // TRANSFER_ENTRY.size)

    def fund(self, plan: FundingPlan, accounts: Mapping[str, NamedAccount], source: CsvSource) -> int:
        """Publish what the plan needs; how many transactions that are. Settling is the caller's.

        Raises `ConfigError` where an asset has other decimals than the file, or can't be issued that often.
        """
        by_asset: dict[str, list[tuple[Address, int]]] = {}
        for payer, spent in plan.totals.items():
            for asset, amount in spent.items():
                by_asset.setdefault(asset, []).append((accounts[payer].address, amount))
        wanted = [
            operations
            for symbol, entries in by_asset.items()
            for operations in self._operations(symbol, entries, source.decimals)
        ]
        if not wanted:
            return 0
        account = self._ring.require("treasury")
        sender = Sender(self._ring.key(account), read_account(self._node, account.address), account.address)
        for operations in wanted:
            unsigned = self._producer.build(sender, operations)
            self._producer.publish(self._producer.sign([unsigned]))
            drive_until(self._node, lambda: waiting_transactions(self._node) <= _AHEAD)
        return len(wanted)

    def short_of(
        self, plan: FundingPlan, accounts: Mapping[str, NamedAccount], source: CsvSource
    ) -> frozenset[tuple[str, str]]:
        """Each (payer, asset) of which the payer has less by now than its rows add up to, what it is paid left out.

        Raises `ConfigError` where an asset has other decimals than the file.
        """
        symbols = {symbol for spent in plan.totals.values() for symbol in spent}
        assets = {symbol: self._asset(symbol, source.decimals)[0] for symbol in symbols}
        return frozenset(
            (payer, symbol)
            for payer, spent in plan.totals.items()
            for symbol, amount in spent.items()
            if read_balance(self._node, accounts[payer].address, assets[symbol]) < amount
        )

    def _operations(self, symbol: str, entries: list[tuple[Address, int]], decimals: int) -> list[list[Operation]]:
        """One list a transaction."""
        asset, leaf = self._asset(symbol, decimals)
        if leaf is not None and leaf.issued + sum(amount for _, amount in entries) > MAX_AMOUNT:
            raise ConfigError(f"{shown(symbol)}: over 2^128 - 1 minor units would be issued; load into a new directory")
        found: list[list[Operation]] = [
            [Mint(asset, pack_transfers(entries[start : start + self._most]), _REFERENCE)]
            for start in range(0, len(entries), self._most)
        ]
        if leaf is None:
            found[0].insert(0, CreateAsset(symbol.encode(), decimals))
        return found

    def _asset(self, symbol: str, decimals: int) -> tuple[AssetId, Asset | None]:
        asset = asset_id_of(self._node.chain.genesis.treasury, symbol.encode())
        leaf = read_asset(self._node, asset)
        if leaf is not None and leaf.decimals != decimals:
            raise ConfigError(f"{shown(symbol)} has {leaf.decimals} decimals here; give --decimals {leaf.decimals}")
        return asset, leaf
