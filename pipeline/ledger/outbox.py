"""Cross-shard effects of one block, gathered by destination and turned into bundles at its end."""

from collections.abc import Sequence

from pipeline.codec.types import AssetId, ShardId, TxId
from pipeline.ledger.chain import Chain
from pipeline.ledger.conservation import VALUE_KINDS, amount_in
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.packing import ChannelHead
from pipeline.ledger.receipts import ChannelUse
from pipeline.ledger.relay import (
    EffectKind,
    OpenGroup,
    RelayBundle,
    bundle_head,
    channel_start,
    chunk_groups,
)


class Outbox:
    """Groups in execution order; a group closes when any of its fields changes."""

    def __init__(self) -> None:
        """Empty."""
        self._groups: dict[ShardId, list[OpenGroup]] = {}

    def add(
        self,
        destination: ShardId,
        owner: int,
        tx_id: TxId,
        sender: bytes,
        asset: AssetId,
        kind: EffectKind,
        reference: bytes,
        entries: Sequence[bytes],
    ) -> None:
        """Send packed relay entries; `owner` is the index of the receipt that causes them."""
        groups = self._groups.setdefault(destination, [])
        fields = (tx_id, sender, asset, kind, reference)
        if not groups or groups[-1][:5] != fields:
            groups.append(OpenGroup(*fields, [], []))
        group = groups[-1]
        if not group.runs or group.runs[-1][1] != owner:
            group.runs.append((len(group.entries), owner))
        group.entries.extend(entries)

    def value(self) -> dict[AssetId, int]:
        """What leaves the shard, by asset."""
        sent: dict[AssetId, int] = {}
        for groups in self._groups.values():
            for group in groups:
                if group.kind in VALUE_KINDS:
                    sent[group.asset] = sent.get(group.asset, 0) + amount_in(group.entries)
        return sent

    def close(
        self, chain: Chain, cursor: ShardCursor, height: int, control_sequence: int
    ) -> tuple[list[RelayBundle], list[ChannelHead], dict[int, list[ChannelUse]]]:
        """Bundles by destination ascending, the heads they lead to, and which receipt uses which bundle."""
        bundles: list[RelayBundle] = []
        heads: list[ChannelHead] = []
        uses: dict[int, list[ChannelUse]] = {}
        for destination in sorted(self._groups):
            last = cursor.channels_out.get(destination)
            start = channel_start(chain.chain_id, cursor.shard, destination)
            sequence, head = (last.sequence, last.head) if last else (0, start)
            first = RelayBundle(
                chain.chain_id, cursor.shard, destination, height, control_sequence, sequence + 1, head, b""
            )
            for bundle, owners in chunk_groups(self._groups[destination], first):
                bundles.append(bundle)
                heads.append(ChannelHead(destination, bundle.sequence, bundle_head(bundle.to_bytes())))
                for owner in dict.fromkeys(owners):
                    uses.setdefault(owner, []).append(ChannelUse(destination, bundle.sequence))
        return bundles, heads, uses
