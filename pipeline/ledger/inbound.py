"""What arrives from other shards: admission of bundles to their channel, and their effects."""

from typing import Final, NamedTuple

from pipeline.codec.avro import MAGIC, codec
from pipeline.codec.topics import LogRecord
from pipeline.codec.types import AssetId, Hash32, ShardId
from pipeline.errors import PoisonRecord, TaskDiverged
from pipeline.ledger.balances import credit, load_receivers, set_frozen
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import Code, DeadLetterReason
from pipeline.ledger.conservation import VALUE_KINDS
from pipeline.ledger.genesis import CHUNK_BYTES
from pipeline.ledger.leaves import balance_key
from pipeline.ledger.outbox import Outbox
from pipeline.ledger.overlay import Overlay
from pipeline.ledger.packing import RELAY_ENTRY, ChannelHead
from pipeline.ledger.receipts import BundleFailure
from pipeline.ledger.relay import (
    EffectKind,
    RelayBundle,
    RelayGroup,
    bundle_head,
    channel_start,
    decode_groups,
)

MAX_RECORD_BYTES: Final = CHUNK_BYTES + len(MAGIC) + 8
"""A full chunk in its framing."""


class ReadBundle(NamedTuple):
    """A decodable bundle for this shard."""

    bundle: RelayBundle
    groups: tuple[RelayGroup, ...]
    head: Hash32

    @property
    def effects(self) -> int:
        """Number of entries."""
        return sum(len(group.entries) for group in self.groups) // RELAY_ENTRY.size


def read_bundle(chain: Chain, shard: ShardId, record: LogRecord) -> ReadBundle | DeadLetterReason:
    """Decode a record of `relay`, or say why it becomes a dead letter. No shard sends a larger one than a chunk."""
    if record.value is not None and len(record.value) > MAX_RECORD_BYTES:
        return DeadLetterReason.TOO_LARGE
    try:
        bundle = RelayBundle.from_record(record.value)
        groups = decode_groups(bundle.groups)
    except PoisonRecord:
        return DeadLetterReason.UNDECODABLE
    known = 0 <= bundle.source < chain.genesis.partitions and bundle.source != shard
    if bundle.chain_id != chain.chain_id or bundle.destination != shard or not known:
        return DeadLetterReason.FOREIGN
    assert record.value is not None, "decoded above"
    return ReadBundle(bundle, groups, bundle_head(codec("RelayBundle").unframe(record.value)))


def follows(chain: Chain, shard: ShardId, last: ChannelHead | None, read: ReadBundle) -> bool:
    """Whether the bundle is the channel's next; False for a repeat that was executed before.

    Raises `TaskDiverged` for another bundle under an executed number, a jump, or a broken chain.
    """
    bundle = read.bundle
    start = channel_start(chain.chain_id, bundle.source, shard)
    sequence, head = (last.sequence, last.head) if last else (0, start)
    name = f"shard {shard}: relay channel {bundle.source} -> {shard}: bundle {bundle.sequence}"
    remedy = f"audit shard {bundle.source}; operators can quarantine a record that it never sent"
    if bundle.sequence < sequence:
        return False
    if bundle.sequence == sequence:
        if read.head != head:
            raise TaskDiverged(f"{name} differs from the one executed under this number: {remedy}")
        return False
    if bundle.sequence != sequence + 1:
        raise TaskDiverged(f"{name} jumps over {sequence + 1}: restore the relay topic if it was cut, else {remedy}")
    if bundle.previous_head != head:
        raise TaskDiverged(f"{name} does not chain to bundle {sequence}: {remedy}")
    return True


class EffectRun:
    """Applies the effects of one bundle, or of a control record, to this shard."""

    def __init__(
        self, chain: Chain, shard: ShardId, overlay: Overlay, outbox: Outbox, slot_gas: dict[int, int]
    ) -> None:
        """`slot_gas` gathers what each receiver's slot cost."""
        self.received: dict[AssetId, int] = {}
        self._chain = chain
        self._shard = shard
        self._overlay = overlay
        self._outbox = outbox
        self._slot_gas = slot_gas
        self._entry_gas = inbound_entry_gas(chain)

    def bundle(self, groups: tuple[RelayGroup, ...], owner: int) -> tuple[BundleFailure, ...]:
        """Apply all effects; refused credits go back as refunds under receipt `owner`.

        Raises `TaskDiverged` for what no shard sent; then nothing but the overlay has changed.
        """
        failures: list[BundleFailure] = []
        gas: dict[int, int] = {}
        received: dict[AssetId, int] = {}
        refunds: list[tuple[ShardId, RelayGroup, list[bytes]]] = []
        shard, entry_gas, from_bytes = self._shard, self._entry_gas, int.from_bytes
        owners, unpack = self._chain.shard_map.owners, RELAY_ENTRY.iter_unpack
        load_receivers(
            self._overlay,
            [
                balance_key(to, group.asset)
                for group in groups
                for _, to, _ in unpack(group.entries)
                if owners[to[0] << 4 | to[1] >> 4] == self._shard
            ],
        )
        for index, group in enumerate(groups):
            refused: list[bytes] = []
            value = 0
            kind = EffectKind(group.kind)
            for entry, to, raw_amount in unpack(group.entries):
                slot = to[0] << 4 | to[1] >> 4
                gas[slot] = gas.get(slot, 0) + entry_gas
                amount = from_bytes(raw_amount, "big")
                code = self._effect(kind, group.asset, to, amount) if owners[slot] == shard else Code.SLOT_NOT_OWNED
                if code is Code.OK:
                    value += amount
                    continue
                failures.append(BundleFailure(index, entry, code))
                if kind is EffectKind.CREDIT:
                    value += amount
                    refused.append(RELAY_ENTRY.pack(entry, group.sender, raw_amount))
            if kind in VALUE_KINDS:
                received[group.asset] = received.get(group.asset, 0) + value
            if refused:
                home = self._chain.shard_map.owner_of(group.sender)
                if home == self._shard:
                    self._refund_here(group, refused)
                else:
                    refunds.append((home, group, refused))
        for home, group, refused in refunds:
            fields = (group.tx_id, group.sender, group.asset, EffectKind.REFUND, group.reference)
            self._outbox.add(home, owner, *fields, refused)
        for asset, value in received.items():
            self.received[asset] = self.received.get(asset, 0) + value
        for touched, spent in gas.items():
            self._slot_gas[touched] = self._slot_gas.get(touched, 0) + spent
        return tuple(failures)

    def _effect(self, kind: EffectKind, asset: AssetId, to: bytes, amount: int) -> Code:
        match kind:
            case EffectKind.CREDIT:
                return Code.OK if credit(self._overlay, to, asset, amount) else Code.FROZEN
            case EffectKind.REFUND | EffectKind.FEES:
                credit(self._overlay, to, asset, amount, even_if_frozen=True)
                return Code.OK
            case EffectKind.FREEZE | EffectKind.THAW:
                set_frozen(self._overlay, to, asset, frozen=kind is EffectKind.FREEZE)
                return Code.OK

    def _refund_here(self, group: RelayGroup, refused: list[bytes]) -> None:
        for entry in refused:
            _, to, raw_amount = RELAY_ENTRY.unpack(entry)
            credit(self._overlay, to, group.asset, int.from_bytes(raw_amount, "big"), even_if_frozen=True)


def inbound_entry_gas(chain: Chain) -> int:
    """Gas of one inbound effect."""
    return chain.genesis.gas.local_entry // chain.genesis.gas.further_divisor
