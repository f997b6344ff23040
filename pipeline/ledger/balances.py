"""Balances in an overlay: the one place where amounts are added and taken."""

from collections.abc import Sequence

from pipeline.codec.types import Address, AssetId, StateKey
from pipeline.errors import TaskDiverged
from pipeline.ledger.leaves import Account, Balance, account_key, balance_key
from pipeline.ledger.overlay import Overlay

_NEW_ACCOUNT = Account().to_bytes()


def credit(overlay: Overlay, to: bytes, asset: AssetId, amount: int, *, even_if_frozen: bool = False) -> bool:
    """Add to a balance; the first credit of any asset creates the account. False where it is frozen.

    Raises `TaskDiverged` where the sum has more than 128 bits.
    """
    key = balance_key(to, asset)
    raw = overlay.get(key)
    if raw is None:
        _ensure_account(overlay, to)
        overlay.set(key, amount.to_bytes(16, "big") + b"\x00")
        return True
    if raw[16] and not even_if_frozen:
        return False
    held = int.from_bytes(raw[:16], "big")
    if not held:
        # A freeze creates no account, so a frozen balance of zero can stand without one.
        _ensure_account(overlay, to)
    try:
        overlay.set(key, (held + amount).to_bytes(16, "big") + raw[16:])
    except OverflowError:
        # Issued amounts never exceed 2^128 - 1 over an asset's life: only a forged bundle gets here.
        raise TaskDiverged(f"a credit of {amount} exceeds what was ever issued; audit the source shard") from None
    return True


def _ensure_account(overlay: Overlay, to: bytes) -> None:
    account = account_key(Address(to))
    if overlay.get(account) is None:
        overlay.set(account, _NEW_ACCOUNT)


def load_receivers(overlay: Overlay, keys: Sequence[StateKey]) -> None:
    """Read these balances at once, and the accounts of those that do not exist yet, which a first credit looks at."""
    overlay.load(keys)
    overlay.load([account_key(Address(key[8:40])) for key in keys if overlay.get(key) is None])


def balance_of(overlay: Overlay, account: bytes, asset: AssetId) -> Balance:
    """The balance; zero where there is no leaf."""
    return Balance.from_bytes(overlay.get(balance_key(account, asset)))


def set_balance(overlay: Overlay, account: bytes, asset: AssetId, balance: Balance) -> None:
    """Write a balance; a zero, unfrozen one is deleted."""
    overlay.set(balance_key(account, asset), balance.to_bytes())


def set_frozen(overlay: Overlay, account: bytes, asset: AssetId, *, frozen: bool) -> None:
    """Freeze or thaw; creates no account."""
    set_balance(overlay, account, asset, balance_of(overlay, account, asset)._replace(frozen=frozen))
