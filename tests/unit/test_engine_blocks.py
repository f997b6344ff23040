"""Blocks: what a header says, control records, and what can't be executed at all."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256

import pytest

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import SLOTS, UNOWNED_SLOT, Hash32, slot_of_id
from pipeline.crypto.verifier import InlineVerifier, PoolVerifier, VerifyJob
from pipeline.errors import TaskDiverged
from pipeline.ledger.blocks import BlockHeader, block_hash, input_root
from pipeline.ledger.codes import Code, DeadLetterReason
from pipeline.ledger.control import (
    Action,
    CreateShard,
    Quarantine,
    SetAttestors,
    SetProtocol,
    SetShardMap,
    encode_action,
)
from pipeline.ledger.engine import BlockInputs, InputBatch, execute
from pipeline.ledger.genesis import SignerKey
from pipeline.ledger.leaves import Account, account_key
from pipeline.ledger.reading import InputReader
from pipeline.ledger.receipts import BundleReceipt, ControlReceipt, TransactionReceipt
from pipeline.ledger.transactions import CreateAsset, Freeze, PutData
from pipeline.testing.naive_tree import naive_list_root, naive_shard_root, naive_slot_root
from pipeline.testing.suite import TEST_SUITES
from pipeline.testing.world import START_MS, Block, World, rotate_key, transfer
from pipeline.tree.keys import leaf_key_of, slot_of_key


def busy_world() -> World:
    """Three shards with payments both ways, a refund, a freeze, data and fees."""
    world = World(3)
    actors = [world.actor(name, shard) for shard in world.shards for name in ("a", "b")]
    world.start(*actors)
    for turn, actor in enumerate(actors * 3):
        receivers = [(other, 10 + turn) for other in actors]
        world.submit(world.signed(actor, transfer(world.asset, *receivers), gas_price=turn % 2, gas_limit=2**40))
        world.submit(world.signed(actor, PutData(b"n", bytes([turn]))))
        if turn == 8:
            world.submit(world.signed(world.treasury, Freeze(world.asset, actors[3].address, frozen=True)))
        world.run_block(turn % 3)
    world.settle()
    return world


@pytest.fixture(scope="module")
def busy() -> World:
    return busy_world()


def all_blocks(world: World) -> list[Block]:
    return [block for blocks in world.blocks for block in blocks]


# Headers


def test_state_roots_are_those_of_a_naive_tree_over_all_leaves(busy: World) -> None:
    for shard in busy.shards:
        by_slot: dict[int, dict[bytes, bytes]] = {}
        for key, value in busy.leaves(shard).items():
            by_slot.setdefault(slot_of_key(key), {})[leaf_key_of(key)] = sha256(value).digest()
        owned = busy.chain.shard_map.slots_of(shard)
        roots = [naive_slot_root(by_slot.get(slot, {})) if slot in owned else UNOWNED_SLOT for slot in range(SLOTS)]
        assert busy.blocks[shard][-1].executed.header.state_root == naive_shard_root(roots)


def test_headers_follow_each_other_and_cover_their_inputs(busy: World) -> None:
    for shard in busy.shards:
        previous, positions, clock = busy.chain.chain_id, (0, 0, 0), 0
        for height, block in enumerate(busy.blocks[shard]):
            header = block.executed.header
            assert (header.chain_id, header.shard, header.height) == (busy.chain.chain_id, shard, height)
            assert (header.protocol, header.map_epoch) == (1, 0)
            assert header.previous_hash == previous
            assert header.timestamp_ms >= clock
            batches = (block.inputs.control, block.inputs.relay, block.inputs.transactions)
            for topic, item, batch, first in zip((0, 1, 2), header.inputs, batches, positions, strict=True):
                partition = 0 if topic == Topic.CONTROL else shard
                assert (item.topic, item.partition, item.first, item.next) == (topic, partition, first, batch.next)
                assert (item.count, item.root) == (len(batch.records), input_root(batch.records))
            positions = (header.inputs[0].next, header.inputs[1].next, header.inputs[2].next)
            previous, clock = block.executed.block_hash, header.timestamp_ms
            assert previous == block_hash(block.executed.datum)
            assert BlockHeader.from_bytes(block.executed.datum) == header


def test_receipts_are_in_execution_order_under_their_root(busy: World) -> None:
    for block in all_blocks(busy):
        executed = block.executed
        assert executed.header.receipts_root == naive_list_root(list(executed.receipts))
        records = [*block.inputs.control.records, *block.inputs.relay.records, *block.inputs.transactions.records]
        assert [receipt.offset for receipt in block.receipts] == [record.offset for record in records]


def test_counts_and_gas_add_up(busy: World) -> None:
    for block in all_blocks(busy):
        header, entry_gas = block.executed.header, 50_000
        transactions = [receipt for receipt in block.receipts if isinstance(receipt, TransactionReceipt)]
        consumed = [receipt for receipt in transactions if receipt.nonce_consumed]
        assert header.counts.transactions == len(consumed)
        assert header.counts.rejected == len(transactions) - len(consumed)
        assert header.counts.bundles == len(block.inputs.relay.records)
        assert header.counts.controls == len(block.inputs.control.records)
        effects = sum(receipt.count for receipt in block.receipts if isinstance(receipt, BundleReceipt))
        assert header.gas_used == effects * entry_gas + sum(receipt.gas_used for receipt in consumed)
        assert sum(update.gas for update in header.slots) <= header.gas_used


def test_slots_are_the_changed_ones_with_their_gas(busy: World) -> None:
    for shard in busy.shards:
        replayed: dict[int, bytes] = {}
        for block in busy.blocks[shard]:
            slots = [update.slot for update in block.executed.header.slots]
            assert slots == sorted(set(slots))
            for update in block.executed.header.slots:
                assert update.root != replayed.get(update.slot)
                replayed[update.slot] = update.root
            senders: dict[int, int] = {}
            for receipt in block.receipts:
                if isinstance(receipt, TransactionReceipt) and receipt.nonce_consumed:
                    slot = slot_of_id(receipt.sender)
                    senders[slot] = senders.get(slot, 0) + receipt.gas_used
            if not block.inputs.relay.records:
                gas = {update.slot: update.gas for update in block.executed.header.slots if update.gas}
                assert gas == senders


def test_a_cursors_root_covers_positions_and_channels(busy: World) -> None:
    for shard in busy.shards:
        cursor = busy.cursors[shard]
        leaves = [
            b"\x00" + bytes([topic]) + (0 if topic == 0 else shard).to_bytes(2) + position.to_bytes(8)
            for topic, position in enumerate(cursor.positions)
        ]
        for direction, heads in ((1, cursor.channels_in), (2, cursor.channels_out)):
            assert len(heads) == 2
            leaves += [
                bytes([direction]) + peer.to_bytes(2) + heads[peer].sequence.to_bytes(8) + heads[peer].head
                for peer in sorted(heads)
            ]
        assert busy.blocks[shard][-1].executed.header.cursors_root == naive_list_root(leaves)
        assert type(cursor).from_bytes(cursor.to_bytes()) == cursor


def test_an_empty_block_changes_only_its_place() -> None:
    world = World()
    world.start()
    first = world.run_block(0)
    second = world.run_block(0, timestamp_ms=START_MS + 60_000)
    assert second.receipts == ()
    assert second.executed.header.state_root == first.executed.header.state_root
    assert second.executed.header.slots == ()
    assert second.executed.header.height == first.executed.header.height + 1


def test_time_does_not_go_back() -> None:
    world = World()
    world.run_block(0, timestamp_ms=START_MS + 5)
    world.run_block(0, timestamp_ms=START_MS + 5)
    with pytest.raises(TaskDiverged, match="before"):
        world.execute(0, timestamp_ms=START_MS + 4)


def test_a_slot_whose_changes_cancel_is_not_listed() -> None:
    world = World()
    alice, bob = world.actor("alice"), world.actor("bob")
    world.start(alice, bob)
    block = world.run_block(
        0,
        [
            world.signed(alice, transfer(world.asset, (bob, 5))),
            world.signed(bob, transfer(world.asset, (alice, 5))),
        ],
    )
    slots = {update.slot for update in block.executed.header.slots}
    assert slots == {slot_of_id(alice.address), slot_of_id(bob.address)}
    rejected = world.run_block(0, [world.signed(alice, PutData(b"a", b""), nonce=9)])
    assert rejected.executed.header.slots == ()
    assert rejected.executed.header.gas_used == 0


# Verifiers and readers never change a result


def test_prefetching_in_threads_changes_nothing() -> None:
    def outputs(threaded: bool) -> list[bytes]:
        world = World(2)
        alice, bob = world.actor("alice"), world.actor("bob", 1)
        if threaded:
            world.verifier = PoolVerifier(TEST_SUITES, threads=2)
        world.start(alice, bob)
        new = alice.rotated("new")
        pay = transfer(world.asset, (bob, 1))
        world.submit(
            world.signed(alice, pay),
            world.signed(alice, rotate_key(world.chain.chain_id, alice, 1, new.key)),
            world.signed(alice, pay, nonce=2),
            world.signed(new, pay, nonce=2, with_key=False),
            world.signed(new, pay, nonce=3)._replace(signature=b"broken"),
        )
        world.settle()
        world.verifier.close()
        return [block.executed.datum for block in all_blocks(world)]

    assert outputs(threaded=True) == outputs(threaded=False)


def test_a_reader_that_prepared_records_before_changes_nothing() -> None:
    world = World()
    alice = world.actor("alice")
    world.start(alice)
    world.submit(world.signed(alice, PutData(b"a", b"")), b"noise")
    inputs = world.pending(0)
    reader = InputReader(world.chain, world.cursors[0].shard)
    first = [reader.transaction(record) for record in inputs.transactions.records]
    assert [reader.transaction(record) is kept for record, kept in zip(inputs.transactions.records, first, strict=True)]
    view = world.stores[0].view()
    with_reader = execute(world.chain, world.cursors[0], view, inputs, world.now_ms, world.verifier, reader)
    assert with_reader.datum == world.execute(0).datum
    other = LogRecord(inputs.transactions.records[0].offset, None, b"other")
    assert reader.transaction(other) is DeadLetterReason.UNDECODABLE
    reader.forget(0, 10**6)
    assert reader.transaction(inputs.transactions.records[0]) == first[0]


def test_what_somebody_verifies_already_is_not_handed_over_again() -> None:
    class Recording(InlineVerifier):
        def prefetch(self, jobs: Sequence[VerifyJob]) -> None:
            handed.append([job.message for job in jobs])

    handed: list[list[bytes]] = []
    world = World()
    alice = world.actor("alice")
    world.start(alice)
    signed = [world.signed(alice, PutData(b"a", b"")) for _ in range(3)]
    assert signed[0].public_key is not None
    signed[2] = signed[2]._replace(public_key=None)  # relies on the key that an earlier one carries
    world.submit(*signed)
    inputs, expected = world.pending(0), world.execute(0).datum
    reader, verifier = InputReader(world.chain, world.cursors[0].shard), Recording(TEST_SUITES)
    offsets = [record.offset for record in inputs.transactions.records]
    for count in range(4):
        reader.begun.clear()
        reader.begun.update(offsets[:count])
        view = world.stores[0].view()
        assert execute(world.chain, world.cursors[0], view, inputs, world.now_ms, verifier, reader).datum == expected
        assert handed.pop() == [item.body for item in signed[count:]]
    reader.forget(0, offsets[2])
    assert reader.begun == {offsets[2]}


def test_the_engine_asks_only_what_the_rules_need() -> None:
    """A record that fails before its signature matters is never verified: that would be work for free."""

    class Counting(InlineVerifier):
        asked = 0

        def verify(self, job: VerifyJob) -> bool:
            self.asked += 1
            return super().verify(job)

    world = World()
    alice = world.actor("alice")
    world.start(alice)
    world.verifier = counting = Counting(TEST_SUITES)
    gap = world.signed(alice, PutData(b"a", b""), nonce=5)
    world.run_block(0, [gap] * 10)
    assert counting.asked == 0
    world.run_block(0, [world.signed(alice, PutData(b"a", b""), nonce=0)._replace(signature=b"x")])
    assert counting.asked == 1


# Genesis and governance


def test_genesis_creates_the_treasury_where_it_lives() -> None:
    world = World(2)
    blocks = [world.run_block(shard) for shard in world.shards]
    assert [block.receipts for block in blocks] == [(ControlReceipt(0, 0, Code.OK),)] * 2
    assert dict(world.leaves(0)) == {account_key(world.treasury.address): Account().to_bytes()}
    assert dict(world.leaves(1)) == {}


@pytest.mark.parametrize("value", [None, b"", b"noise", "other genesis"])
def test_another_genesis_halts(value: bytes | str | None) -> None:
    world = World()
    if isinstance(value, str):
        value = World(name="another").chain.genesis.to_record()
    world.control.records[0] = LogRecord(0, None, value)
    with pytest.raises(TaskDiverged, match="another genesis"):
        world.execute(0)


def test_block_0_begins_with_genesis() -> None:
    world = World()
    world.govern(CreateShard(1))
    nothing = BlockInputs(InputBatch(0), InputBatch(0), InputBatch(0))
    with pytest.raises(TaskDiverged, match="genesis"):
        world.execute(0, nothing)
    without = replace(nothing, control=InputBatch(2, tuple(world.control.records[1:])))
    with pytest.raises(TaskDiverged, match="genesis"):
        world.execute(0, without)


def test_a_new_shard_begins_after_its_creation() -> None:
    world = World()
    with pytest.raises(TaskDiverged, match="precedes the shard's creation"):
        world.execute(1)
    world.govern(CreateShard(1))
    block = world.run_block(1)
    assert [receipt.code for receipt in block.receipts if isinstance(receipt, ControlReceipt)] == [Code.OK, Code.OK]
    assert world.cursors[1].control.active_shards == 2
    assert block.executed.header.state_root == naive_shard_root([UNOWNED_SLOT] * SLOTS)


KEY = SignerKey(0xFF, bytes(32))


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (CreateShard(2), Code.OK),
        (CreateShard(1), Code.NOT_APPLICABLE),
        (CreateShard(3), Code.NOT_APPLICABLE),
        (CreateShard(-1), Code.NOT_APPLICABLE),
        (SetAttestors((KEY,), 1), Code.OK),
        (SetAttestors((), 0), Code.NOT_APPLICABLE),
        (SetAttestors((KEY,), 2), Code.NOT_APPLICABLE),
        (SetAttestors((KEY, KEY), 1), Code.NOT_APPLICABLE),
        (SetAttestors((SignerKey(256, b""),), 1), Code.NOT_APPLICABLE),
        (SetAttestors((SignerKey(-1, b""),), 1), Code.NOT_APPLICABLE),
        (SetAttestors((KEY, SignerKey(0x7F, bytes(32))), 1), Code.NOT_APPLICABLE),
        (SetAttestors((KEY, SignerKey(0xFF, bytes(31))), 1), Code.NOT_APPLICABLE),
        (SetProtocol(1), Code.NOT_APPLICABLE),
        (SetShardMap(1, bytes(2 * SLOTS)), Code.REFUSED_IN_PROTOCOL),
        (Quarantine(Topic.CONTROL, 0, 1, Hash32(bytes(32))), Code.NOT_APPLICABLE),
        (Quarantine(99, 0, 1, Hash32(bytes(32))), Code.NOT_APPLICABLE),
        (Quarantine(Topic.TRANSACTIONS, 0, 1, Hash32(bytes(32))), Code.OK),
    ],
)
def test_every_valid_control_record_has_a_receipt_and_takes_its_number(action: Action, code: Code) -> None:
    world = World(2)
    world.settle()
    offsets = [world.govern(action), world.govern(CreateShard(77))]
    for shard in world.shards:
        block = world.run_block(shard)
        assert block.receipts == (
            ControlReceipt(offsets[0], 1, code),
            ControlReceipt(offsets[1], 2, Code.NOT_APPLICABLE),
        )
        assert block.executed.header.counts.controls == 2
        assert world.cursors[shard].control.sequence == 2


def test_no_more_shards_than_partitions() -> None:
    world = World(2)
    for shard in (2, 3, 4):
        world.govern(CreateShard(shard))
    receipts = world.run_block(0).receipts[1:]
    assert [receipt.code for receipt in receipts] == [Code.OK, Code.OK, Code.NO_IDLE_PARTITION]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "publish",
    [
        pytest.param(lambda world: world.govern(CreateShard(2), signers=[]), id="unsigned"),
        pytest.param(lambda world: world.govern(CreateShard(2), signers=world.operators[:1]), id="one of three"),
        pytest.param(lambda world: world.govern(CreateShard(2), signers=[world.actor("x")] * 3), id="repeated signer"),
        pytest.param(
            lambda world: world.govern(CreateShard(2), signers=[world.actor("x"), world.actor("y")]), id="strangers"
        ),
        pytest.param(lambda world: world.govern(CreateShard(2), sequence=2), id="jump"),
        pytest.param(lambda world: world.govern(CreateShard(2), sequence=0), id="past"),
        pytest.param(lambda world: world.govern(CreateShard(2), previous_hash=Hash32(bytes(32))), id="other chain"),
        pytest.param(lambda world: world.govern(CreateShard(2), chain_id=bytes(32)), id="other ledger"),
        pytest.param(lambda world: world.govern(CreateShard(2), body=b"noise"), id="noise in it"),
        pytest.param(
            lambda world: world.govern(CreateShard(2), body=encode_action(2, CreateShard(2))), id="other protocol"
        ),
        pytest.param(lambda world: world.control.append(b"noise"), id="noise"),
        pytest.param(lambda world: world.control.append(None), id="null"),
        pytest.param(lambda world: world.control.append(world.chain.genesis.to_record()), id="genesis again"),
    ],
)
def test_unauthorised_control_is_a_dead_letter_of_shard_0_that_all_count(publish: Callable[[World], int]) -> None:
    world = World(2)
    world.settle()
    offset = publish(world)
    blocks = [world.run_block(shard) for shard in world.shards]
    (letter,) = blocks[0].executed.dead_letters
    assert (letter.topic, letter.partition, letter.offset) == (Topic.CONTROL, 0, offset)
    assert letter.reason is DeadLetterReason.NOT_AUTHORIZED
    assert blocks[1].executed.dead_letters == ()
    for block in blocks:
        assert block.receipts == ()
        assert block.executed.header.counts.dead_letters == 1
        assert block.executed.cursor.control.sequence == 0


def test_two_of_three_operators_suffice() -> None:
    world = World()
    world.settle()
    world.govern(CreateShard(1), signers=world.operators[1:])
    assert world.run_block(0).executed.cursor.control.sequence == 1


def test_attestors_are_also_replaced_by_the_old_quorum() -> None:
    world = World()
    strangers = tuple(SignerKey(0xFF, world.actor(name).key.public_key) for name in ("x", "y"))
    world.govern(SetAttestors(strangers, 2))
    world.settle()
    assert world.cursors[0].control.attestors == strangers
    world.govern(SetAttestors((KEY,), 1))
    block = world.run_block(0)
    assert [letter.reason for letter in block.executed.dead_letters] == [DeadLetterReason.NOT_AUTHORIZED]
    assert world.cursors[0].control.attestors == strangers


# Quarantine of transactions


def test_a_quarantined_transaction_becomes_a_dead_letter() -> None:
    world = World()
    alice = world.actor("alice")
    world.start(alice)
    signed = world.signed(alice, PutData(b"a", b""))
    (offset,) = world.submit(signed)
    digest = Hash32(sha256(signed.to_record()).digest())
    source = TopicPartition(Topic.TRANSACTIONS, 0)
    world.govern(Quarantine(source.topic, source.partition, offset, digest))
    block = world.run_block(0)
    (letter,) = block.executed.dead_letters
    assert (letter.offset, letter.reason) == (offset, DeadLetterReason.QUARANTINED)
    assert world.account(alice) == Account()
    world.submit(signed)
    (receipt,) = world.run_block(0).receipts
    assert isinstance(receipt, TransactionReceipt)
    assert receipt.code is Code.OK


@pytest.mark.parametrize(
    "change", [{"offset": 1}, {"partition": 1}, {"topic": Topic.RELAY}, {"sha256": Hash32(bytes(32))}]
)
def test_a_quarantine_of_anything_else_changes_nothing(change: dict[str, object]) -> None:
    world = World()
    alice = world.actor("alice")
    world.start(alice)
    signed = world.signed(alice, CreateAsset(b"A"))
    (offset,) = world.submit(signed)
    digest = Hash32(sha256(signed.to_record()).digest())
    world.govern(replace(Quarantine(Topic.TRANSACTIONS, 0, offset, digest), **change))  # type: ignore[arg-type]
    block = world.run_block(0)
    assert block.executed.dead_letters == ()
    assert block.executed.header.counts.transactions == 1
