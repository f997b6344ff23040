"""No block makes or loses value: asserted of every block before it is committed.

Per asset: what its balances and the fees gained = what came in by relay - what went out + issued - burned.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from pipeline.codec.types import AssetId, StateKey
from pipeline.ledger.relay import EffectKind

VALUE_KINDS: Final = frozenset({EffectKind.CREDIT, EffectKind.REFUND, EffectKind.FEES})
"""Effects that carry value."""
_AMOUNT_AT: Final = 34
_BALANCE, _FEES, _ASSET = b"balance/", b"fees/", b"asset/"


def amount_in(entries: Iterable[bytes]) -> int:
    """The sum of packed relay entries."""
    from_bytes = int.from_bytes
    return sum([from_bytes(entry[_AMOUNT_AT:], "big") for entry in entries])


def imbalance(
    changes: Mapping[StateKey, bytes | None],
    before: Mapping[StateKey, bytes | None],
    fee_asset: AssetId,
    received: Mapping[AssetId, int],
    sent: Mapping[AssetId, int],
) -> dict[AssetId, int]:
    """Assets of which value was made (positive) or lost, in minor units; {} if all is well.

    `before` holds the old value of every changed key.
    """
    gained: defaultdict[AssetId, int] = defaultdict(int)
    from_bytes = int.from_bytes
    for key, value in changes.items():
        old = before[key] or b""
        new = value or b""
        if key.startswith(_BALANCE):
            gained[key[41:]] += from_bytes(new[:16], "big") - from_bytes(old[:16], "big")  # type: ignore[index]
        elif key.startswith(_ASSET):
            gained[key[6:]] -= _supply(new) - _supply(old)  # type: ignore[index]  # no call of NewType per key
        elif key.startswith(_FEES):
            gained[fee_asset] += from_bytes(new, "big") - from_bytes(old, "big")
    for asset, amount in received.items():
        gained[asset] -= amount
    for asset, amount in sent.items():
        gained[asset] += amount
    return {asset: amount for asset, amount in gained.items() if amount}


def _supply(leaf: bytes) -> int:
    """Issued - burned of an asset's leaf."""
    return int.from_bytes(leaf[33:49], "big") - int.from_bytes(leaf[49:65], "big")
