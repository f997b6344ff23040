"""The engine: `execute(state, inputs) -> changes, receipts, bundles, header`. Pure; all drivers run this function.

Order inside a block: control, relay, transactions, each by offset. Nothing here reads a clock, an environment, a Kafka
header or timestamp, or depends on the order of a set or dict.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.codec.topics import LogRecord, Topic
from pipeline.codec.types import BlockHash, Height, StateKey, slot_of_id
from pipeline.crypto.verifier import Verifier
from pipeline.errors import PoisonRecord, TaskDiverged
from pipeline.ledger import admission
from pipeline.ledger.blocks import BlockHeader, Counts, InputRange, SlotUpdate, block_hash, input_range
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import Code, DeadLetterReason
from pipeline.ledger.conservation import imbalance
from pipeline.ledger.control import CollectFees
from pipeline.ledger.control_state import AppliedControl, ControlState, admit
from pipeline.ledger.cursor import INPUT_TOPICS, ShardCursor
from pipeline.ledger.fees import collect_fees
from pipeline.ledger.inbound import EffectRun, ReadBundle, follows, inbound_entry_gas
from pipeline.ledger.leaves import Account, account_key
from pipeline.ledger.operations import OperationRun
from pipeline.ledger.outbox import Outbox
from pipeline.ledger.overlay import Overlay, PreparedState, StateView
from pipeline.ledger.packing import ChannelHead
from pipeline.ledger.prepared import PreparedTransaction
from pipeline.ledger.reading import InputReader
from pipeline.ledger.receipts import (
    BundleReceipt,
    ControlReceipt,
    DeadLetter,
    EntryFailure,
    Receipt,
    TransactionReceipt,
    encode_receipt,
)
from pipeline.ledger.relay import RelayBundle
from pipeline.tree.rfc6962 import merkle_root


@dataclass(frozen=True, slots=True)
class InputBatch:
    """All committed records of one input partition from the cursor's position to before `next`."""

    next: int
    records: tuple[LogRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockInputs:
    """What one block consumes."""

    control: InputBatch
    relay: InputBatch
    transactions: InputBatch


@dataclass(frozen=True, slots=True)
class ExecutedBlock:
    """A block that is not committed yet. `datum` is the header's; `receipts` are datums, leaves of `receipts_root`."""

    inputs: BlockInputs
    header: BlockHeader
    datum: bytes
    block_hash: BlockHash
    cursor: ShardCursor
    prepared: PreparedState
    receipts: tuple[bytes, ...]
    bundles: tuple[RelayBundle, ...]
    dead_letters: tuple[DeadLetter, ...]


def execute(
    chain: Chain,
    cursor: ShardCursor,
    view: StateView,
    inputs: BlockInputs,
    timestamp_ms: int,
    verifier: Verifier,
    reader: InputReader | None = None,
) -> ExecutedBlock:
    """Execute one block on top of `cursor` and `view`.

    `reader` may hold what was read of these records before. Raises `TaskDiverged` where the rules
    leave no block: a forked or broken relay channel, another genesis, an unknown protocol.
    """
    if timestamp_ms < cursor.timestamp_ms:
        raise TaskDiverged(
            f"shard {cursor.shard}: block time {timestamp_ms} is before {cursor.timestamp_ms}, its predecessor's; "
            "audit the shard"
        )
    run = _BlockRun(chain, cursor, view, timestamp_ms, verifier, reader or InputReader(chain, cursor.shard))
    run.control(inputs.control)
    run.relay(inputs.relay)
    run.transactions(inputs.transactions)
    return run.close(inputs)


class _BlockRun:
    """The state of one execution."""

    def __init__(
        self,
        chain: Chain,
        cursor: ShardCursor,
        view: StateView,
        timestamp_ms: int,
        verifier: Verifier,
        reader: InputReader,
    ) -> None:
        self._chain = chain
        self._cursor = cursor
        self._view = view
        self._timestamp_ms = timestamp_ms
        self._verifier = verifier
        self._reader = reader
        self._shard = cursor.shard
        self._height = Height(cursor.height + 1)
        self._control: ControlState = cursor.control
        self._overlay = Overlay(view)
        self._outbox = Outbox()
        self._slot_gas: dict[int, int] = {}
        self._effects = EffectRun(chain, cursor.shard, self._overlay, self._outbox, self._slot_gas)
        self._receipts: list[Receipt] = []
        self._dead_letters: list[DeadLetter] = []
        self._channels_in: dict[int, ChannelHead] = {}
        self._counts = Counts()
        self._gas_used = 0

    def _count(self, fate: str) -> None:
        self._counts = self._counts._replace(**{fate: getattr(self._counts, fate) + 1})

    def _bury(self, topic: Topic, record: LogRecord, reason: DeadLetterReason) -> None:
        self._count("dead_letters")
        # Every shard reads control; one of them writes its dead letters.
        if topic is not Topic.CONTROL or self._shard == 0:
            source = self._cursor.source(topic)
            letter = DeadLetter.of(
                self._chain.chain_id, self._shard, self._height, source=source, record=record, reason=reason
            )
            self._dead_letters.append(letter)

    # Control

    def control(self, batch: InputBatch) -> None:
        """Genesis at offset 0, then governance records."""
        for record in batch.records:
            if record.offset == 0:
                self._genesis(record)
            else:
                self._governance(record)
        if self._height == 0 and (not batch.records or batch.records[0].offset):
            raise TaskDiverged(f"shard {self._shard}: block 0 does not begin with genesis; restore the control topic")
        if self._shard >= self._control.active_shards:
            raise TaskDiverged(
                f"shard {self._shard}: block {self._height} precedes the shard's creation; audit the shard"
            )

    def _genesis(self, record: LogRecord) -> None:
        genesis = self._chain.genesis
        if record.value != genesis.to_record():
            raise TaskDiverged("control offset 0 holds another genesis than this node was given; check the topic")
        if self._chain.shard_map.owner_of(genesis.treasury) == self._shard:
            self._overlay.set(account_key(genesis.treasury), Account().to_bytes())
        self._receipts.append(ControlReceipt(record.offset, 0, Code.OK))
        self._count("controls")

    def _governance(self, record: LogRecord) -> None:
        try:
            applied = admit(self._chain, self._control, record, self._verifier)
        except PoisonRecord:
            self._bury(Topic.CONTROL, record, DeadLetterReason.NOT_AUTHORIZED)
            return
        self._control = applied.state
        self._carry_out(applied)
        self._receipts.append(ControlReceipt(record.offset, applied.state.sequence, applied.code))
        self._count("controls")

    def _carry_out(self, applied: AppliedControl) -> None:
        if isinstance(applied.action, CollectFees) and applied.code is Code.OK:
            owner = len(self._receipts)
            to = applied.action.to
            collect_fees(self._chain, self._shard, self._overlay, self._outbox, owner, applied.record_hash, to)

    # Relay

    def relay(self, batch: InputBatch) -> None:
        """Bundles from other shards, each to its channel."""
        source = self._cursor.source(Topic.RELAY)
        for record in batch.records:
            read = self._reader.bundle(record)
            if isinstance(read, DeadLetterReason):
                self._bury(Topic.RELAY, record, read)
                continue
            if self._control.is_quarantined(source, record):
                self._quarantined_bundle(record, read)
            else:
                self._bundle(record, read)

    def _quarantined_bundle(self, record: LogRecord, read: ReadBundle) -> None:
        """Set a bundle aside, but only where it would halt the shard: operators must not be able to lose money."""
        self._overlay.begin()
        try:
            self._bundle(record, read)
        except TaskDiverged:
            self._overlay.undo()
            self._bury(Topic.RELAY, record, DeadLetterReason.QUARANTINED)
        else:
            self._overlay.keep()

    def _last_from(self, peer: int) -> ChannelHead | None:
        return self._channels_in.get(peer) or self._cursor.channels_in.get(peer)

    def _bundle(self, record: LogRecord, read: ReadBundle) -> None:
        bundle = read.bundle
        if not follows(self._chain, self._shard, self._last_from(bundle.source), read):
            self._count("repeats")
            return
        if bundle.control_sequence > self._control.sequence:
            raise TaskDiverged(
                f"shard {self._shard}: a bundle under control record {bundle.control_sequence} "
                f"executed before that record; audit shard {bundle.source}"
            )
        failures = self._effects.bundle(read.groups, len(self._receipts))
        self._gas_used += read.effects * inbound_entry_gas(self._chain)
        self._receipts.append(BundleReceipt(record.offset, bundle.source, bundle.sequence, read.effects, failures))
        self._channels_in[bundle.source] = ChannelHead(bundle.source, bundle.sequence, read.head)
        self._count("bundles")

    # Transactions

    def transactions(self, batch: InputBatch) -> None:
        """Signed transactions, in offset order."""
        source = self._cursor.source(Topic.TRANSACTIONS)
        ready: list[PreparedTransaction] = []
        for record in batch.records:
            read = self._reader.transaction(record)
            if isinstance(read, DeadLetterReason):
                self._bury(Topic.TRANSACTIONS, record, read)
            elif self._control.is_quarantined(source, record):
                self._bury(Topic.TRANSACTIONS, record, DeadLetterReason.QUARANTINED)
            else:
                ready.append(read)
        admission.prefetch(self._chain, self._shard, self._overlay, self._verifier, ready, self._reader.begun)
        consumed = 0
        for prepared in ready:
            receipt = self._transaction(prepared)
            consumed += receipt.nonce_consumed
            self._receipts.append(receipt)
        self._counts = self._counts._replace(transactions=consumed, rejected=len(ready) - consumed)

    def _transaction(self, prepared: PreparedTransaction) -> TransactionReceipt:
        body, offset = prepared.body, prepared.record.offset
        code = admission.stage_two(self._chain, self._shard, self._overlay, self._verifier, prepared)
        if code is not Code.OK:
            return TransactionReceipt(
                self._shard, offset, prepared.tx_id, body.sender, body.nonce, code, False, gas_used=0, fee=0
            )
        code, fee = admission.take_nonce_and_fee(self._chain, self._overlay, prepared, self._timestamp_ms)
        gas = prepared.gas if code not in (Code.EXPIRED, Code.GAS_LIMIT) else min(prepared.gas, body.gas_limit)
        self._gas_used += gas
        slot = slot_of_id(body.sender)
        self._slot_gas[slot] = self._slot_gas.get(slot, 0) + gas
        failures: Sequence[EntryFailure] = ()
        if code is Code.OK:
            run = OperationRun(self._chain, self._shard, self._overlay, self._verifier, prepared)
            code, failures = run.run(), run.failures
            owner = len(self._receipts)
            for destination, asset, kind, reference, entries in run.sent:
                self._outbox.add(destination, owner, prepared.tx_id, body.sender, asset, kind, reference, entries)
        return TransactionReceipt(
            self._shard, offset, prepared.tx_id, body.sender, body.nonce, code, True, gas, fee, tuple(failures)
        )

    # The block's end

    def close(self, inputs: BlockInputs) -> ExecutedBlock:
        """Bundles, receipts, roots, header."""
        cursor, control = self._cursor, self._control
        bundles, heads_out, uses = self._outbox.close(self._chain, cursor, self._height, control.sequence)
        receipts = tuple([encode_receipt(receipt, uses.get(index, ())) for index, receipt in enumerate(self._receipts)])
        prepared = self._view.prepare(self._conserving_changes())
        after = ShardCursor(
            self._shard,
            self._height,
            cursor.block_hash,
            self._timestamp_ms,
            (inputs.control.next, inputs.relay.next, inputs.transactions.next),
            {**cursor.channels_in, **self._channels_in},
            {**cursor.channels_out, **{head.peer: head for head in heads_out}},
            control,
        )
        header = BlockHeader(
            protocol=cursor.control.protocol,
            chain_id=self._chain.chain_id,
            shard=self._shard,
            height=self._height,
            map_epoch=self._chain.shard_map.epoch,
            timestamp_ms=self._timestamp_ms,
            previous_hash=cursor.block_hash,
            inputs=self._ranges(inputs),
            receipts_root=merkle_root(receipts),
            state_root=prepared.state_root,
            cursors_root=after.cursors_root(),
            slots=tuple([SlotUpdate(slot, root, self._slot_gas.get(slot, 0)) for slot, root in prepared.slots]),
            channels_out=tuple(heads_out),
            channels_in=tuple([self._channels_in[peer] for peer in sorted(self._channels_in)]),
            counts=self._counts,
            gas_used=self._gas_used,
        )
        datum = header.to_bytes()
        hashed = block_hash(datum)
        after = replace(after, block_hash=hashed)
        return ExecutedBlock(
            inputs, header, datum, hashed, after, prepared, receipts, tuple(bundles), tuple(self._dead_letters)
        )

    def _conserving_changes(self) -> dict[StateKey, bytes | None]:
        """The block's changes. Asserts that they make and lose no value."""
        changes, fee_asset = self._overlay.changes(), self._chain.genesis.fee_asset
        wrong = imbalance(changes, self._overlay.before, fee_asset, self._effects.received, self._outbox.value())
        assert not wrong, f"shard {self._shard}: block {self._height} would make or lose value: " + ", ".join(
            [f"{amount} of {asset.hex()}" for asset, amount in sorted(wrong.items())]
        )
        return changes

    def _ranges(self, inputs: BlockInputs) -> tuple[InputRange, ...]:
        batches = (inputs.control, inputs.relay, inputs.transactions)
        return tuple(
            [
                input_range(self._cursor.source(topic), first, batch.next, batch.records)
                for topic, first, batch in zip(INPUT_TOPICS, self._cursor.positions, batches, strict=True)
            ]
        )
