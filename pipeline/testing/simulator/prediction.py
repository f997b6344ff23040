"""What the reference model says must have come of the records on the log.

The order in which a shard took control, relay and transactions is its leader's choice, and so is the time: both are
read from the headers. Everything else is predicted: receipts, dead letters, effects, leaves.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final, NamedTuple

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import Hash32, ShardId
from pipeline.crypto.suites import SuiteSet
from pipeline.errors import PoisonRecord
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import Code
from pipeline.ledger.control import CollectFees, Quarantine
from pipeline.ledger.packing import RELAY_ENTRY
from pipeline.ledger.receipts import BundleReceipt, ControlReceipt, Receipt, TransactionReceipt
from pipeline.ledger.relay import EffectKind, RelayBundle, decode_groups
from pipeline.ledger.transactions import SignedTransaction, TransactionBody
from pipeline.log.port import EventLog
from pipeline.testing.reference import Effect, ReferenceShard, imbalances
from pipeline.testing.reference_control import ReferenceControl, Ruling
from pipeline.testing.simulator.outcomes import Outcomes, all_records
from pipeline.testing.suite import TEST_SUITES

NEVER_SENT: Final = 1 << 40
"""Bundles are forged from this number on: nothing waits for their source."""


def is_forged(record: LogRecord) -> bool:
    """Whether it is a bundle that its source never sent, by its number."""
    try:
        return RelayBundle.from_record(record.value).sequence >= NEVER_SENT
    except PoisonRecord:
        return False


class _Placed(NamedTuple):
    """An effect and where it stands in its bundle."""

    effect: Effect
    group: int


class Prediction:
    """Runs the model over the whole log; raises `AssertionError` where the ledger says otherwise."""

    def __init__(self, chain: Chain, log: EventLog, outcomes: Outcomes, suites: SuiteSet = TEST_SUITES) -> None:
        """`outcomes`: what the ledger says."""
        partitions = chain.genesis.partitions
        self._chain = chain
        self._outcomes = outcomes
        self.shards = [ReferenceShard(chain, shard, suites) for shard in range(partitions)]
        self.control = ReferenceControl(chain, suites)
        self._rulings: dict[int, Ruling | None] = {}
        self._set_aside: list[set[tuple[int, int, bytes]]] = [set() for _ in range(partitions)]
        self._inputs = {
            (topic, partition): all_records(log, TopicPartition(topic, partition))
            for topic in (Topic.RELAY, Topic.TRANSACTIONS)
            for partition in range(partitions)
        }
        self._control_records = all_records(log, TopicPartition(Topic.CONTROL, 0))
        for record in self._control_records[1:]:
            self._rulings[record.offset] = self.control.record(record.value)
        self._heights = [-1] * partitions
        self._executed: dict[tuple[int, int], int] = {}
        self._flying: dict[tuple[int, int], list[Effect]] = {}

    def run(self) -> None:
        """Predict every block, each after those whose bundles it executes."""
        moved = True
        while moved:
            moved = False
            for shard, headers in enumerate(self._outcomes.headers):
                while self._heights[shard] + 1 < len(headers) and self._is_ready(headers[self._heights[shard] + 1]):
                    self._block(shard, headers[self._heights[shard] + 1])
                    self._heights[shard] += 1
                    moved = True
        for shard, headers in enumerate(self._outcomes.headers):
            assert self._heights[shard] + 1 == len(headers), f"shard {shard} executed bundles that nobody sent"

    def check_conserved(self) -> None:
        """Per asset: balances, fees and what is in flight are what was issued and not burned."""
        flying = [effect for effects in self._flying.values() for effect in effects]
        left = imbalances(self.shards, flying, self._chain.genesis.fee_asset)
        assert not left, f"value out of nothing, or into it: {left}"
        assert not flying, f"effects that never arrived: {flying[:3]}"

    # One block

    def _taken(self, header: BlockHeader, topic: Topic) -> list[LogRecord]:
        records = self._inputs[topic, header.shard] if topic is not Topic.CONTROL else self._control_records
        span = header.input(topic)
        return [record for record in records if span.first <= record.offset < span.next]

    def _is_ready(self, header: BlockHeader) -> bool:
        bundles = [bundle for _, bundle in self._bundles(header)]
        return all(
            bundle.source_height <= self._heights[bundle.source] for bundle in bundles if bundle.sequence < NEVER_SENT
        )

    def _bundles(self, header: BlockHeader) -> list[tuple[LogRecord, RelayBundle]]:
        """What is a bundle for this shard, in order. The rest becomes dead letters."""
        found = []
        for record in self._taken(header, Topic.RELAY):
            try:
                bundle = RelayBundle.from_record(record.value)
            except PoisonRecord:
                continue
            if bundle.destination == header.shard:
                found.append((record, bundle))
        return found

    def _block(self, shard: int, header: BlockHeader) -> None:
        where = f"shard {shard} block {header.height}"
        receipts = iter(self._outcomes.receipts(shard, header.height))
        sent: list[Effect] = []
        dead = 0
        for record in self._taken(header, Topic.CONTROL):
            effects = self._control(shard, where, record, receipts)
            dead += effects is None
            sent += effects or []
        bundles = self._bundles(header)
        dead += len(self._taken(header, Topic.RELAY)) - len(bundles)
        for record, bundle in bundles:
            executed = self._executed.get((bundle.source, shard), 0)
            if bundle.sequence > executed + 1 and self._is_set_aside(shard, Topic.RELAY, record):
                dead += 1
            elif bundle.sequence > executed:
                sent += self._bundle(shard, where, record, bundle, next(receipts, None))
        for record in self._taken(header, Topic.TRANSACTIONS):
            signed = None if self._is_set_aside(shard, Topic.TRANSACTIONS, record) else _decode(record)
            if signed is None:
                dead += 1
                continue
            sent += self._transaction(shard, where, record, signed, header.timestamp_ms, next(receipts, None))
        assert next(receipts, None) is None, f"{where}: a receipt of no record"
        assert header.counts.dead_letters == dead, f"{where}: {header.counts.dead_letters} dead letters, not {dead}"
        for effect in sent:
            self._flying.setdefault((shard, effect.destination), []).append(effect)

    def _is_set_aside(self, shard: int, topic: Topic, record: LogRecord) -> bool:
        return (topic, record.offset, sha256(record.value or b"").digest()) in self._set_aside[shard]

    def _transaction(
        self,
        shard: int,
        where: str,
        record: LogRecord,
        signed: SignedTransaction,
        timestamp_ms: int,
        receipt: Receipt | None,
    ) -> tuple[Effect, ...]:
        verdict = self.shards[shard].transaction(signed, timestamp_ms)
        assert isinstance(receipt, TransactionReceipt), f"{where}: transaction {record.offset} has no receipt"
        told = (receipt.offset, receipt.code, receipt.nonce_consumed, receipt.gas_used, receipt.fee)
        predicted = (record.offset, verdict.code, verdict.nonce_consumed, verdict.gas, verdict.fee)
        assert told == predicted, f"{where}: the ledger says {told}, the model {predicted}"
        failures = tuple((failure.entry, failure.code) for failure in receipt.failures)
        assert failures == tuple(tuple(failure) for failure in verdict.failures), f"{where}: failures differ"
        return verdict.effects

    def _control(self, shard: int, where: str, record: LogRecord, receipts: Iterator[Receipt]) -> list[Effect] | None:
        """None for what becomes a dead letter."""
        if record.offset == 0:
            self.shards[shard].genesis()
            code = Code.OK
            effects: list[Effect] = []
        else:
            ruling = self._rulings[record.offset]
            if ruling is None:
                return None
            code, effects = ruling.code, self._carry_out(shard, ruling)
        receipt = next(receipts, None)
        assert isinstance(receipt, ControlReceipt), f"{where}: control {record.offset} has no receipt"
        assert receipt.offset == record.offset, f"{where}: a receipt of control {receipt.offset}"
        assert receipt.code == code, f"{where}: control {record.offset} gave {receipt.code}, the model {code}"
        return effects

    def _carry_out(self, shard: int, ruling: Ruling) -> list[Effect]:
        action = ruling.action
        if isinstance(action, CollectFees):
            return self.shards[shard].collect_fees(Hash32(ruling.record_hash), action.to)
        if isinstance(action, Quarantine) and action.partition == shard:
            self._set_aside[shard].add((action.topic, action.offset, bytes(action.sha256)))
        return []

    def _bundle(
        self, shard: int, where: str, record: LogRecord, bundle: RelayBundle, receipt: Receipt | None
    ) -> list[Effect]:
        channel = (int(bundle.source), shard)
        name = f"{where}: bundle {bundle.sequence} from shard {bundle.source}"
        assert bundle.sequence == self._executed.get(channel, 0) + 1, f"{name} jumps"
        self._executed[channel] = bundle.sequence
        placed = _effects_of(bundle)
        effects = [item.effect for item in placed]
        expected = self._flying.get(channel, [])
        assert effects == expected[: len(effects)], f"{name} holds other effects than the model's"
        del expected[: len(effects)]
        refused, refunds = self.shards[shard].arrive(effects)
        assert isinstance(receipt, BundleReceipt), f"{name} has no receipt"
        assert (receipt.offset, receipt.source, receipt.sequence, receipt.count) == (
            record.offset,
            bundle.source,
            bundle.sequence,
            len(effects),
        ), f"{name} has another's receipt"
        told = [tuple(failure) for failure in receipt.failures]
        assert told == [(placed[at].group, placed[at].effect.entry, code) for at, code in refused], f"{name}: refusals"
        return refunds


def _decode(record: LogRecord) -> SignedTransaction | None:
    try:
        signed = SignedTransaction.from_record(record.value)
        TransactionBody.from_bytes(signed.body)
    except PoisonRecord:
        return None
    return signed


def _effects_of(bundle: RelayBundle) -> list[_Placed]:
    destination = ShardId(bundle.destination)
    placed = []
    for index, group in enumerate(decode_groups(bundle.groups)):
        fields = (group.tx_id, group.sender, group.asset, group.reference)
        for entry, to, amount in RELAY_ENTRY.iter_unpack(group.entries):
            effect = Effect(destination, EffectKind(group.kind), *fields, entry, to, int.from_bytes(amount, "big"))
            placed.append(_Placed(effect, index))
    return placed
