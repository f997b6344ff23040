"""Effects between shards: delivery, refunds, repeats, forgeries and quarantine."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest

from pipeline.codec.topics import Topic
from pipeline.codec.types import ChainId, Hash32, ShardId, slot_of_id
from pipeline.errors import TaskDiverged
from pipeline.ledger.codes import Code, DeadLetterReason
from pipeline.ledger.control import CollectFees, Quarantine, SetProtocol
from pipeline.ledger.genesis import CHUNK_BYTES, GasSchedule
from pipeline.ledger.leaves import Account, Balance, account_key, fees_key
from pipeline.ledger.packing import RELAY_ENTRY, ChannelHead
from pipeline.ledger.receipts import BundleFailure, BundleReceipt, ChannelUse, ControlReceipt, TransactionReceipt
from pipeline.ledger.relay import (
    EffectKind,
    RelayBundle,
    RelayGroup,
    bundle_head,
    channel_start,
    decode_groups,
    encode_groups,
)
from pipeline.ledger.transactions import Freeze, Mode, PutData
from pipeline.testing.world import Actor, Block, World, mint, transfer

FUNDS = 1_000_000


class Pair:
    """Alice on shard 0 and Bob on shard 1, each with funds."""

    def __init__(self) -> None:
        self.world = World(2)
        self.alice, self.bob = self.world.actor("alice"), self.world.actor("bob", 1)
        self.carol, self.dora = self.world.actor("carol"), self.world.actor("dora", 1)
        self.world.start(self.alice, self.bob)

    def pay(self, payer: Actor, *entries: tuple[Actor, int], **fields: object) -> Block:
        world = self.world
        return world.run_block(world.home(payer), [world.signed(payer, transfer(world.asset, *entries), **fields)])

    def amounts(self) -> list[int]:
        return [self.world.balance(actor).amount for actor in (self.alice, self.bob, self.carol, self.dora)]

    def freeze(self, actor: Actor, *, frozen: bool = True) -> None:
        self.world.submit(
            self.world.signed(self.world.treasury, Freeze(self.world.asset, actor.address, frozen=frozen))
        )
        self.world.settle()

    def last_bundle(self) -> RelayBundle:
        """The last one that shard 1 executed or has waiting."""
        return RelayBundle.from_record(self.world.relay[1].records[-1].value)

    def forge(self, *groups: RelayGroup, **fields: object) -> RelayBundle:
        """A bundle from shard 0 that chains to what shard 1 executed last."""
        head = self.world.cursors[1].channels_in.get(0)
        start = channel_start(self.world.chain.chain_id, 0, 1)
        sequence, previous = (head.sequence, head.head) if head else (0, start)
        packed = encode_groups(groups or [self.group()])
        bundle = RelayBundle(self.world.chain.chain_id, ShardId(0), ShardId(1), 9, 0, sequence + 1, previous, packed)
        return replace(bundle, **fields)

    def group(self, to: Actor | None = None, amount: int = 5, kind: int = EffectKind.CREDIT) -> RelayGroup:
        entry = RELAY_ENTRY.pack(0, (to or self.dora).address, amount.to_bytes(16, "big"))
        return RelayGroup(TX, self.alice.address, self.world.asset, kind, b"", entry)

    def deliver(self, bundle: RelayBundle | bytes | None) -> Block:
        self.world.relay[1].append(bundle.to_record() if isinstance(bundle, RelayBundle) else bundle)
        return self.world.run_block(1)


TX = Hash32(b"\x09" * 32)


@pytest.fixture
def pair() -> Pair:
    return Pair()


# Delivery


def test_a_payment_arrives_once_its_bundle_is_executed(pair: Pair) -> None:
    block = pair.pay(pair.alice, (pair.dora, 10), (pair.carol, 1), (pair.bob, 20), (pair.dora, 3))
    assert pair.amounts() == [FUNDS - 34, FUNDS, 1, 0]
    (bundle,) = block.executed.bundles
    (group,) = decode_groups(bundle.groups)
    entries = [(index, to, int.from_bytes(raw)) for index, to, raw in RELAY_ENTRY.iter_unpack(group.entries)]
    assert entries == [(0, pair.dora.address, 10), (2, pair.bob.address, 20), (3, pair.dora.address, 3)]
    (receipt,) = block.receipts
    assert isinstance(receipt, TransactionReceipt)
    assert receipt.channels == (ChannelUse(1, bundle.sequence),)
    arrival = pair.world.run_block(1)
    assert pair.amounts() == [FUNDS - 34, FUNDS + 20, 1, 13]
    assert pair.world.account(pair.dora) == Account()
    (settled,) = arrival.receipts
    assert isinstance(settled, BundleReceipt)
    assert (settled.source, settled.sequence, settled.count, settled.failures) == (0, bundle.sequence, 3, ())
    assert arrival.executed.header.gas_used == 3 * 50_000
    assert arrival.executed.header.counts.bundles == 1


def test_bundles_go_out_by_destination_ascending() -> None:
    world = World(4)
    alice = world.actor("alice", 2)
    receivers = [world.actor("r", shard) for shard in (3, 0, 1, 2)]
    world.start(alice)
    pay = transfer(world.asset, *[(receiver, 1) for receiver in receivers])
    block = world.run_block(2, [world.signed(alice, pay), world.signed(alice, pay)])
    assert [bundle.destination for bundle in block.executed.bundles] == [0, 1, 3]
    assert [head.peer for head in block.executed.header.channels_out] == [0, 1, 3]
    for receipt in block.receipts:
        assert isinstance(receipt, TransactionReceipt)
        assert [use.destination for use in receipt.channels] == [0, 1, 3]
    for bundle in block.executed.bundles:
        assert len(decode_groups(bundle.groups)) == 2
    world.settle()
    assert [world.balance(receiver).amount for receiver in receivers] == [2] * 4


def test_a_failed_atomic_transaction_sends_nothing(pair: Pair) -> None:
    block = pair.pay(pair.alice, (pair.dora, 10), (pair.dora, FUNDS))
    assert block.executed.bundles == ()
    assert block.executed.header.channels_out == ()
    assert pair.amounts() == [FUNDS, FUNDS, 0, 0]


def test_an_independent_transaction_sends_what_succeeds(pair: Pair) -> None:
    block = pair.pay(pair.alice, (pair.dora, FUNDS + 1), (pair.dora, 10), mode=Mode.INDEPENDENT)
    (bundle,) = block.executed.bundles
    assert len(decode_groups(bundle.groups)[0].entries) == RELAY_ENTRY.size
    pair.world.settle()
    assert pair.amounts() == [FUNDS - 10, FUNDS, 0, 10]


def test_bundles_of_a_channel_are_chained(pair: Pair) -> None:
    first = pair.pay(pair.alice, (pair.bob, 1)).executed.bundles[0]
    second = pair.pay(pair.alice, (pair.bob, 1)).executed.bundles[0]
    assert second.sequence == first.sequence + 1
    assert second.previous_head == bundle_head(first.to_bytes())
    block = pair.world.run_block(1)
    head = ChannelHead(0, second.sequence, bundle_head(second.to_bytes()))
    assert block.executed.header.channels_in == (head,)
    assert pair.world.cursors[1].channels_in == {0: head}
    assert pair.world.cursors[0].channels_out[1] == ChannelHead(1, second.sequence, head.head)


# Refunds and freezes


def test_a_refused_credit_comes_back_to_its_sender(pair: Pair) -> None:
    pair.freeze(pair.bob)
    pair.pay(pair.alice, (pair.dora, 1), (pair.bob, 20), (pair.bob, 30))
    arrival = pair.world.run_block(1)
    (receipt,) = arrival.receipts
    assert isinstance(receipt, BundleReceipt)
    assert receipt.failures == (BundleFailure(0, 1, Code.FROZEN), BundleFailure(0, 2, Code.FROZEN))
    assert receipt.channels == (ChannelUse(0, 1),)
    (bundle,) = arrival.executed.bundles
    (group,) = decode_groups(bundle.groups)
    assert (group.kind, group.sender) == (EffectKind.REFUND, pair.alice.address)
    assert pair.world.balance(pair.alice).amount == FUNDS - 51
    pair.world.settle()
    assert pair.amounts() == [FUNDS - 1, FUNDS, 0, 1]


def test_a_refund_is_never_refused(pair: Pair) -> None:
    pair.freeze(pair.bob)
    pair.pay(pair.alice, (pair.bob, 20))
    pair.world.run_block(1)
    pair.freeze(pair.alice)
    pair.world.settle()
    assert pair.world.balance(pair.alice) == Balance(FUNDS, frozen=True)


def test_a_mint_that_is_refused_goes_to_the_issuer(pair: Pair) -> None:
    pair.freeze(pair.bob)
    pair.world.run_block(0, [pair.world.signed(pair.world.treasury, mint(pair.world.asset, (pair.bob, 20)))])
    pair.world.settle()
    assert pair.world.balance(pair.world.treasury).amount == 20


def test_freeze_and_thaw_travel(pair: Pair) -> None:
    pair.freeze(pair.dora)
    assert pair.world.balance(pair.dora) == Balance(0, frozen=True)
    assert pair.world.account(pair.dora) is None
    pair.freeze(pair.dora, frozen=False)
    assert pair.world.balance(pair.dora) == Balance(0, frozen=False)
    pair.pay(pair.alice, (pair.dora, 1))
    pair.world.settle()
    assert pair.world.balance(pair.dora).amount == 1


# Repeats


def test_a_repeat_is_ignored_and_counted(pair: Pair) -> None:
    pair.pay(pair.alice, (pair.bob, 1))
    first = pair.last_bundle()
    pair.pay(pair.alice, (pair.bob, 1))
    pair.world.settle()
    before = pair.amounts()
    for bundle in (pair.last_bundle(), first):
        block = pair.deliver(bundle)
        assert block.receipts == ()
        assert block.executed.header.counts.repeats == 1
        assert block.executed.header.channels_in == ()
        assert block.executed.header.gas_used == 0
    assert pair.amounts() == before


def test_a_repeat_within_one_block(pair: Pair) -> None:
    pair.pay(pair.alice, (pair.bob, 1))
    block = pair.deliver(pair.last_bundle())
    counts = block.executed.header.counts
    assert (counts.bundles, counts.repeats) == (1, 1)


# Forgeries


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        pytest.param(lambda pair, last: replace(last, source_height=99), "differs", id="fork"),
        pytest.param(lambda pair, last: pair.forge(sequence=last.sequence + 2), "jumps", id="jump"),
        pytest.param(lambda pair, last: pair.forge(previous_head=Hash32(bytes(32))), "chain", id="broken chain"),
        pytest.param(lambda pair, last: pair.forge(control_sequence=99), "control record 99", id="unseen control"),
        pytest.param(
            lambda pair, last: pair.forge(pair.group(), pair.group(pair.bob, 2**128 - 1)), "exceeds", id="overflow"
        ),
    ],
)
def test_what_no_shard_sends_halts_unless_quarantined(
    pair: Pair, forge: Callable[[Pair, RelayBundle], RelayBundle], says: str
) -> None:
    pair.pay(pair.alice, (pair.bob, 1))
    pair.world.settle()
    leaves = pair.world.leaves(1)
    forged = forge(pair, pair.last_bundle())
    offset = pair.world.relay[1].append(forged.to_record())
    with pytest.raises(TaskDiverged, match=says):
        pair.world.execute(1)
    digest = Hash32(sha256(forged.to_record()).digest())
    pair.world.govern(Quarantine(Topic.RELAY, 1, offset, digest))
    block = pair.world.run_block(1)
    (letter,) = block.executed.dead_letters
    assert (letter.offset, letter.reason) == (offset, DeadLetterReason.QUARANTINED)
    assert pair.world.leaves(1) == leaves
    assert block.executed.header.channels_in == ()
    assert block.executed.header.gas_used == 0
    pair.pay(pair.alice, (pair.bob, 1))
    pair.world.settle()
    assert pair.world.balance(pair.bob).amount == FUNDS + 2


def test_a_good_bundle_can_not_be_quarantined(pair: Pair) -> None:
    pair.pay(pair.alice, (pair.bob, 1))
    record = pair.world.relay[1].records[-1]
    assert record.value is not None
    pair.world.govern(Quarantine(Topic.RELAY, 1, record.offset, Hash32(sha256(record.value).digest())))
    block = pair.world.run_block(1)
    assert block.executed.dead_letters == ()
    assert pair.world.balance(pair.bob).amount == FUNDS + 1


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": ChainId(bytes(32))},
        {"destination": 0},
        {"source": 1},
        {"source": -1},
        {"source": 4},
        {"destination": -1},
    ],
)
def test_a_bundle_for_elsewhere_is_a_dead_letter(pair: Pair, change: dict[str, object]) -> None:
    block = pair.deliver(pair.forge(**change))
    (letter,) = block.executed.dead_letters
    assert letter.reason is DeadLetterReason.FOREIGN
    assert block.executed.header.counts.dead_letters == 1
    assert pair.amounts() == [FUNDS, FUNDS, 0, 0]


@pytest.mark.parametrize("value", [None, b"", b"noise"])
def test_noise_on_relay_is_a_dead_letter(pair: Pair, value: bytes | None) -> None:
    block = pair.deliver(value)
    (letter,) = block.executed.dead_letters
    assert letter.reason is DeadLetterReason.UNDECODABLE
    assert letter.length == (-1 if value is None else len(value))


@pytest.mark.parametrize("change", [{"entries": b""}, {"entries": bytes(49)}, {"kind": 5}, {"kind": -1}], ids=str)
def test_groups_that_make_no_sense_are_a_dead_letter(pair: Pair, change: dict[str, object]) -> None:
    block = pair.deliver(pair.forge(replace(pair.group(), **change)))  # type: ignore[arg-type]
    assert [letter.reason for letter in block.executed.dead_letters] == [DeadLetterReason.UNDECODABLE]


def test_a_bundle_over_the_limit_of_a_chunk_is_a_dead_letter(pair: Pair) -> None:
    group = replace(pair.group(), entries=pair.group().entries * 10_500)
    block = pair.deliver(pair.forge(group))
    assert [letter.reason for letter in block.executed.dead_letters] == [DeadLetterReason.TOO_LARGE]


@pytest.mark.parametrize("kind", list(EffectKind))
def test_effects_on_a_slot_of_another_shard_are_refused(pair: Pair, kind: EffectKind) -> None:
    block = pair.deliver(pair.forge(pair.group(pair.carol, kind=kind)))
    (receipt,) = block.receipts
    assert isinstance(receipt, BundleReceipt)
    assert receipt.failures == (BundleFailure(0, 0, Code.SLOT_NOT_OWNED),)
    assert bool(block.executed.bundles) == (kind is EffectKind.CREDIT)


def test_a_refund_to_a_sender_of_the_same_shard_is_made_at_once(pair: Pair) -> None:
    pair.freeze(pair.dora)
    forged = replace(pair.group(pair.dora, 5), sender=pair.bob.address)
    block = pair.deliver(pair.forge(forged))
    assert block.executed.bundles == ()
    assert pair.world.balance(pair.bob).amount == FUNDS + 5


# Fees


def test_fees_gather_by_slot_and_are_collected() -> None:
    world = World(2, gas=GasSchedule(local_entry=10, remote_entry=10, leaf=0))
    payers = [world.actor(f"payer {n}", n % 2) for n in range(6)]
    collector = world.actor("collector", 1)
    world.start(*payers)
    for payer in payers:
        world.submit(world.signed(payer, transfer(world.asset, (payer, 1)), gas_price=3))
    world.settle()
    slots = {payer.address[0] << 4 | payer.address[1] >> 4: world.home(payer) for payer in payers}
    held = [world.value(fees_key(slot), shard) for slot, shard in slots.items()]
    assert sum(int.from_bytes(value or b"") for value in held) == 6 * 30
    offset = world.govern(CollectFees(collector.address))
    away, home = world.run_block(0), world.run_block(1)
    (bundle,) = away.executed.bundles
    (group,) = decode_groups(bundle.groups)
    assert (group.kind, group.sender, group.reference) == (EffectKind.FEES, collector.address, b"")
    receipt = away.receipts[0]
    assert receipt == ControlReceipt(offset, 1, Code.OK, (ChannelUse(1, bundle.sequence),))
    assert home.executed.bundles == ()
    world.settle()
    assert world.balance(collector).amount == 6 * 30
    assert world.account(collector) == Account()
    assert [world.value(fees_key(slot), shard) for slot, shard in slots.items()] == [None] * len(slots)
    world.govern(CollectFees(collector.address))
    block = world.run_block(0)
    assert block.executed.bundles == ()
    assert isinstance(block.receipts[0], ControlReceipt)


@pytest.mark.parametrize("shard", [0, 1])
def test_fees_reach_even_a_frozen_empty_balance_and_then_it_has_an_account(shard: int) -> None:
    world = World(2, gas=GasSchedule(local_entry=10, remote_entry=10, leaf=0))
    payer, collector = world.actor("payer"), world.actor("collector", shard)
    world.start(payer)
    world.run_block(0, [world.signed(payer, transfer(world.asset, (payer, 1)), gas_price=1)])
    world.submit(world.signed(world.treasury, Freeze(world.asset, collector.address, frozen=True)))
    world.settle()
    assert world.value(account_key(collector.address), shard) is None
    world.govern(CollectFees(collector.address))
    world.settle()
    assert world.balance(collector) == Balance(10, frozen=True)
    assert world.account(collector) == Account()


def test_an_unknown_protocol_halts_every_shard(pair: Pair) -> None:
    pair.world.govern(SetProtocol(2))
    for shard in (0, 1):
        with pytest.raises(TaskDiverged, match="upgrade hauptbuch"):
            pair.world.execute(shard)


def test_fees_of_more_than_was_ever_issued_halt(pair: Pair) -> None:
    """Only value that no shard sent can lead there; it must not end in an unnamed error."""
    world, everything = pair.world, 2**128 - 1
    payers = [world.actor(f"payer {number}", 1) for number in range(400)]
    slots = [slot_of_id(payer.address) for payer in payers]
    first = next(payer for payer, slot in zip(payers, slots, strict=True) if slots.count(slot) > 1)
    second = next(
        payer
        for payer in payers[payers.index(first) + 1 :]
        if payer.address[:1] == first.address[:1] and slot_of_id(payer.address) == slot_of_id(first.address)
    )
    pair.deliver(pair.forge(pair.group(first, everything), pair.group(second, 1)))
    world.run_block(1, [world.signed(first, PutData(b"a", b""), gas_price=everything)])
    assert int.from_bytes(world.value(fees_key(slot_of_id(first.address)), 1) or b"", "big") == everything
    world.submit(world.signed(second, PutData(b"a", b""), gas_price=everything))
    with pytest.raises(TaskDiverged, match="exceed what was ever issued; audit"):
        world.execute(1)


def test_a_full_chunk_is_read(pair: Pair) -> None:
    """The largest bundle that a shard sends is not too large for its destination."""
    empty = len(pair.forge(replace(pair.group(), entries=b"\x00" * 50)).to_bytes()) - 50
    count = (CHUNK_BYTES - empty - 8) // 50
    bundle = pair.forge(replace(pair.group(amount=1), entries=pair.group(amount=1).entries * count))
    assert CHUNK_BYTES - 60 < len(bundle.to_bytes()) <= CHUNK_BYTES
    assert pair.deliver(bundle).executed.dead_letters == ()
    assert pair.world.balance(pair.dora).amount == count
