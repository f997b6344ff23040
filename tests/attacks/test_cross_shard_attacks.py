"""Bundles between shards: replayed, redirected, reordered, dressed up as something else; refunds that go astray."""

from dataclasses import replace

import pytest

from pipeline.codec.avro import codec
from pipeline.codec.topics import Topic
from pipeline.codec.types import Hash32, ShardId
from pipeline.errors import TaskDiverged
from pipeline.ledger.codes import DeadLetterReason
from pipeline.ledger.control import CreateShard
from pipeline.ledger.packing import RELAY_ENTRY
from pipeline.ledger.relay import EffectKind, RelayBundle, bundle_head, decode_groups, encode_groups
from pipeline.ledger.transactions import Freeze, SignedTransaction
from pipeline.testing.world import Actor, World, transfer

FUNDS = 1_000_000


class Channel:
    """Alice on shard 0 has paid Bob on shard 1 three times; the bundles wait on relay."""

    def __init__(self, **genesis: object) -> None:
        self.world = World(2, **genesis)
        self.alice, self.bob = self.world.actor("alice"), self.world.actor("bob", 1)
        self.thief = self.world.actor("thief", 1)
        self.world.start(self.alice, self.bob, amount=FUNDS)
        for amount in (1, 2, 3):
            self.world.run_block(0, [self.world.signed(self.alice, transfer(self.world.asset, (self.bob, amount)))])

    def waiting(self) -> list[bytes]:
        """The records that shard 1 has not executed."""
        records = self.world.pending(1).relay.records
        return [record.value for record in records if record.value is not None]

    def replace_waiting(self, *values: bytes) -> None:
        """As if relay had held these from the start."""
        partition = self.world.relay[1]
        first = self.world.pending(1).relay.records[0].offset
        partition.records = [record for record in partition.records if record.offset < first]
        partition.end = first
        for value in values:
            partition.append(value)

    def total(self, *actors: Actor) -> int:
        return sum(self.world.balance(actor).amount for actor in actors)


def test_a_whole_channel_replayed_pays_once() -> None:
    channel = Channel()
    values = channel.waiting()
    assert len(values) == 3
    channel.replace_waiting(*values, *values, *reversed(values), values[0])
    block = channel.world.run_block(1)
    assert channel.world.balance(channel.bob).amount == FUNDS + 6
    assert (block.executed.header.counts.bundles, block.executed.header.counts.repeats) == (3, 7)


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (2, 1, 0), (0, 2), (1, 2)])
def test_bundles_reordered_or_left_out_halt(order: tuple[int, ...]) -> None:
    """A later bundle is never executed before an earlier one, nor without it."""
    channel = Channel()
    values = channel.waiting()
    channel.replace_waiting(*[values[index] for index in order])
    before = dict(channel.world.leaves(1))
    with pytest.raises(TaskDiverged, match="shard 1"):
        channel.world.run_block(1)
    assert dict(channel.world.leaves(1)) == before


def test_a_bundle_on_another_shards_partition_is_a_dead_letter() -> None:
    channel = Channel()
    channel.world.relay[0].append(channel.waiting()[0])
    block = channel.world.run_block(0)
    assert [letter.reason for letter in block.executed.dead_letters] == [DeadLetterReason.FOREIGN]
    assert block.executed.header.counts.bundles == 0


def test_a_bundle_of_another_chain_is_a_dead_letter() -> None:
    channel, twin = Channel(), Channel(salt=Hash32(b"\x01" * 32))
    twin.replace_waiting(*channel.waiting())
    block = twin.world.run_block(1)
    assert [letter.reason for letter in block.executed.dead_letters] == [DeadLetterReason.FOREIGN] * 3
    assert twin.world.balance(twin.bob).amount == FUNDS


@pytest.mark.parametrize("source", [1, 2, 999, -1, 70_000])
def test_a_bundle_that_names_another_source_continues_no_channel(source: int) -> None:
    """A shard's own number, idle partitions, none at all: nothing is credited."""
    channel = Channel()
    bundle = RelayBundle.from_record(channel.waiting()[0])
    channel.replace_waiting(replace(bundle, source=ShardId(source)).to_record())
    before = dict(channel.world.leaves(1))
    if source == 2:  # a partition that could be a shard: the bundle does not begin its channel
        with pytest.raises(TaskDiverged, match="shard 1"):
            channel.world.run_block(1)
    else:
        block = channel.world.run_block(1)
        assert [letter.reason for letter in block.executed.dead_letters] == [DeadLetterReason.FOREIGN]
    assert dict(channel.world.leaves(1)) == before


def test_an_altered_bundle_breaks_the_chain_of_what_follows() -> None:
    """Raising an amount changes the head that the next bundle names."""
    channel = Channel()
    first, second, third = channel.waiting()
    bundle = RelayBundle.from_record(first)
    (group,) = decode_groups(bundle.groups)
    raised = replace(group, entries=RELAY_ENTRY.pack(0, channel.thief.address, (10**9).to_bytes(16, "big")))
    forged = replace(bundle, groups=encode_groups([raised]))
    assert bundle_head(forged.to_bytes()) != bundle_head(bundle.to_bytes())
    channel.replace_waiting(forged.to_record(), second, third)
    with pytest.raises(TaskDiverged, match=r"shard 1.*chain"):
        channel.world.run_block(1)
    assert channel.world.balance(channel.thief).amount == 0


@pytest.mark.parametrize("kind", [99, -1, 2**31 - 1])
def test_an_unknown_effect_is_a_dead_letter(kind: int) -> None:
    channel = Channel()
    bundle = RelayBundle.from_record(channel.waiting()[0])
    value = codec("RelayGroups").decode(bundle.groups)
    value["groups"][0]["kind"] = kind
    channel.replace_waiting(replace(bundle, groups=codec("RelayGroups").encode(value)).to_record())
    block = channel.world.run_block(1)
    assert [letter.reason for letter in block.executed.dead_letters] == [DeadLetterReason.UNDECODABLE]


# Refunds


def test_a_refund_goes_to_who_paid_and_to_nobody_else() -> None:
    """The receiver freezes; whoever republishes or names whatever reference, the value returns once, to the payer."""
    channel = Channel()
    world = channel.world
    world.settle()
    world.submit(world.signed(world.treasury, Freeze(world.asset, channel.bob.address, frozen=True)))
    world.settle()
    spent = world.balance(channel.alice).amount
    reference = channel.thief.address
    world.run_block(0, [world.signed(channel.alice, transfer(world.asset, (channel.bob, 77), reference=reference))])
    (sent,) = channel.waiting()
    channel.replace_waiting(sent, sent)
    world.run_block(1)
    (refund,) = [RelayBundle.from_record(record.value) for record in world.pending(0).relay.records]
    (group,) = decode_groups(refund.groups)
    assert group.kind == EffectKind.REFUND
    assert [to for _, to, _ in RELAY_ENTRY.iter_unpack(group.entries)] == [channel.alice.address]
    world.relay[0].append(refund.to_record())
    world.settle()
    assert world.balance(channel.alice).amount == spent
    assert world.balance(channel.thief).amount == 0


def test_value_is_conserved_whatever_is_refused() -> None:
    channel = Channel()
    world = channel.world
    world.settle()
    holders = (channel.alice, channel.bob, channel.thief)
    before = channel.total(*holders)
    world.submit(world.signed(world.treasury, Freeze(world.asset, channel.thief.address, frozen=True)))
    world.settle()
    pay = [transfer(world.asset, (channel.thief, 5), (channel.bob, 7)) for _ in range(4)]
    world.run_block(0, [world.signed(channel.alice, operation) for operation in pay])
    world.settle()
    assert channel.total(*holders) == before
    assert world.balance(channel.thief).amount == 0


# One topic's records on another


def valid_records(world: World, alice: Actor) -> dict[Topic, bytes]:
    world.govern(CreateShard(2), signers=world.operators)
    control = world.control.records.pop().value
    world.control.end -= 1
    signed = world.signed(alice, transfer(world.asset, (alice, 1)))
    assert control is not None
    return {Topic.CONTROL: control, Topic.TRANSACTIONS: signed.to_record()}


@pytest.mark.parametrize("target", [Topic.CONTROL, Topic.RELAY, Topic.TRANSACTIONS])
def test_a_record_of_one_kind_is_no_record_of_another(target: Topic) -> None:
    """As it is, and with the framing of the kind that is wanted there."""
    channel = Channel()
    world = channel.world
    bundle = channel.waiting()[0]
    channel.replace_waiting()
    kinds = {
        **valid_records(world, channel.alice),
        Topic.RELAY: bundle,
        Topic.BLOCKS: b"\xc3\x01" + bytes(40),
    }
    wanted = codec(
        {Topic.CONTROL: "SignedControl", Topic.RELAY: "RelayBundle", Topic.TRANSACTIONS: "SignedTransaction"}[target]
    )
    strange = [value for topic, value in kinds.items() if topic is not target]
    strange += [wanted.frame(value[10:]) for value in strange]
    strange += [b"\x00\x00\x00\x00\x01" + kinds[target][10:], wanted.framing, b""]
    partition = {Topic.CONTROL: world.control, Topic.RELAY: world.relay[0], Topic.TRANSACTIONS: world.transactions[0]}
    for value in strange:
        partition[target].append(value)
    before = dict(world.leaves(0))
    block = world.run_block(0)
    assert len(block.executed.dead_letters) == len(strange)
    assert block.receipts == ()
    assert dict(world.leaves(0)) == before


def test_the_kinds_are_told_apart_by_their_fingerprints() -> None:
    channel = Channel()
    signed = channel.world.signed(channel.alice, transfer(channel.world.asset, (channel.alice, 1)))
    assert SignedTransaction.from_record(signed.to_record()) == signed
    assert len({codec(name).framing for name in ("SignedTransaction", "RelayBundle", "SignedControl", "Genesis")}) == 4
