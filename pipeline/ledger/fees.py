"""Collecting fees: a control record moves every shard's fees leaves to one account."""

from pipeline.codec.types import Address, Hash32, ShardId, TxId
from pipeline.ledger.balances import credit
from pipeline.ledger.chain import Chain
from pipeline.ledger.leaves import fees_key
from pipeline.ledger.outbox import Outbox
from pipeline.ledger.overlay import Overlay
from pipeline.ledger.packing import RELAY_ENTRY
from pipeline.ledger.relay import EffectKind


def collect_fees(
    chain: Chain, shard: ShardId, overlay: Overlay, outbox: Outbox, owner: int, record_hash: Hash32, to: Address
) -> None:
    """Move each non-zero fees leaf of the shard, ascending by slot, to `to`: credited even if frozen."""
    slots = sorted(chain.shard_map.slots_of(shard))
    keys = [fees_key(slot) for slot in slots]
    overlay.load(keys)
    home = chain.shard_map.owner_of(to)
    sent: list[bytes] = []
    for key in keys:
        raw = overlay.get(key)
        if raw is None:
            continue
        overlay.set(key, None)
        if home == shard:
            amount = int.from_bytes(raw, "big")
            credit(overlay, to, chain.genesis.fee_asset, amount, even_if_frozen=True)
        else:
            sent.append(RELAY_ENTRY.pack(len(sent), to, raw))
    if sent:
        outbox.add(home, owner, TxId(record_hash), to, chain.genesis.fee_asset, EffectKind.FEES, b"", sent)
