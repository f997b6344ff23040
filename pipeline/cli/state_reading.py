"""Committed state of a node that this process runs."""

from pipeline.codec.types import Address, AssetId, StateKey
from pipeline.ledger.leaves import Account, Asset, Balance, account_key, asset_key, balance_key
from pipeline.node.running import RunningLedger


def read_account(node: RunningLedger, address: Address) -> Account | None:
    """An account; None where it was never credited."""
    raw = _read(node, address, account_key(address))
    return None if raw is None else Account.from_bytes(raw)


def read_asset(node: RunningLedger, asset: AssetId) -> Asset | None:
    """An asset; None where it does not exist."""
    raw = _read(node, asset, asset_key(asset))
    return None if raw is None else Asset.from_bytes(raw)


def read_balance(node: RunningLedger, address: Address, asset: AssetId) -> int:
    """Minor units that an account can spend; 0 where the balance is frozen."""
    balance = Balance.from_bytes(_read(node, address, balance_key(address, asset)))
    return 0 if balance.frozen else balance.amount


def _read(node: RunningLedger, identifier: bytes, key: StateKey) -> bytes | None:
    return node.tasks[node.chain.shard_map.owner_of(identifier)].store.view().get(key)
