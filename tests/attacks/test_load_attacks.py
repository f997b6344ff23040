"""Load-balancing manipulation: false reports of gas, free floods, squatted capacity, stolen slots."""

from dataclasses import replace

import pytest
from lying import LIAR, Lie

from pipeline.audit.findings import FindingKind
from pipeline.codec.topics import Topic
from pipeline.codec.types import slot_of_id
from pipeline.errors import LoadBalancingFailed
from pipeline.ledger.blocks import BlockHeader, SlotUpdate
from pipeline.ledger.codes import Code
from pipeline.ledger.genesis import GasSchedule
from pipeline.ledger.receipts import TransactionReceipt
from pipeline.ledger.shard_map import ShardMap
from pipeline.shards.load import LoadBalancer, LoadMeter
from pipeline.testing.world import Actor, World, transfer

FUNDS = 1_000_000


def metered(world: World) -> LoadMeter:
    meter = LoadMeter(world.chain.shard_map)
    for shard in world.shards:
        meter.watch(world.cursors[shard].shard)
        for block in world.blocks[shard]:
            meter.add(block.executed.header)
    return meter


def more_gas(header: BlockHeader) -> BlockHeader:
    """One slot looks busier than the whole block was."""
    first, *rest = header.slots
    return replace(header, slots=(first._replace(gas=header.gas_used + 1), *rest))


def moved_gas(header: BlockHeader) -> BlockHeader:
    """The sum stays; a hot slot looks cold and a cold one hot."""
    hot, cold, *rest = header.slots
    moved = hot.gas - 1
    return replace(header, slots=(hot._replace(gas=1), cold._replace(gas=cold.gas + moved), *rest))


def less_gas(header: BlockHeader) -> BlockHeader:
    return replace(header, gas_used=0, slots=tuple(item._replace(gas=0) for item in header.slots))


@pytest.mark.parametrize("report", [more_gas, moved_gas, less_gas])
def test_a_false_load_report_halts_whoever_executes_it(report: object) -> None:
    lie = Lie()
    lie.publish(alter=report)  # type: ignore[arg-type]
    verdict = lie.verdict()
    height = lie.cursor.height + 1
    assert f"shard {LIAR}" in verdict.follower
    assert str(height) in verdict.execution
    assert not verdict.signed_by_execution
    found = [item for item in verdict.audit.findings if item.kind is FindingKind.BLOCK_DIVERGED]
    assert [(item.shard, item.height) for item in found] == [(LIAR, height)]


def test_slots_busier_than_their_block_fail_the_header_checks_already() -> None:
    lie = Lie()
    lie.publish(alter=more_gas)
    verdict = lie.verdict()
    assert "more gas than the block" in verdict.headers
    assert not verdict.signed_by_headers


def test_a_report_about_a_slot_of_another_shard_is_refused() -> None:
    lie = Lie()
    foreign = min(lie.net.chain.shard_map.slots_of(1))

    def alter(header: BlockHeader) -> BlockHeader:
        return replace(header, slots=(*header.slots, SlotUpdate(foreign, bytes(32), 10**9)))  # type: ignore[arg-type]

    lie.publish(alter=alter)
    verdict = lie.verdict()
    assert "does not own" in verdict.headers
    assert "does not own" in verdict.execution


def test_a_shard_map_of_ones_own_is_refused() -> None:
    """A worker can't take over slots by saying that the map has moved on."""
    lie = Lie()
    lie.publish(alter=lambda header: replace(header, map_epoch=header.map_epoch + 1))
    verdict = lie.verdict()
    assert "map epoch" in verdict.headers
    assert verdict.follower


def test_headers_that_do_not_chain_are_not_measured() -> None:
    """Reports slipped in by somebody who may write blocks but has no block to continue."""
    lie = Lie()
    balancer = LoadBalancer(lie.net.log, lie.net.chain.shard_map)
    balancer.watch(lie.cursor)
    lie.publish(alter=lambda header: replace(header, previous_hash=bytes(32), gas_used=10**15))
    with pytest.raises(LoadBalancingFailed, match=f"shard {LIAR}"):
        balancer.measure()


def test_records_that_pay_nothing_count_as_no_load() -> None:
    """Broken signatures, foreign senders, junk and replays heat no slot up."""
    world = World(2, gas=GasSchedule(local_entry=100, remote_entry=300, leaf=10))
    victim, far = world.actor("victim"), world.actor("far", 1)
    world.start(victim, far, amount=FUNDS)
    before = metered(world).report()
    payment = world.signed(victim, transfer(world.asset, (far, 1)))
    free = [
        *[payment._replace(signature=bytes(len(payment.signature)))] * 50,
        *[world.signed(far, transfer(world.asset, (victim, 1)), nonce=0)] * 50,
    ]
    block = world.run_block(0, [*free, b"junk", bytes(1000)])
    codes = [item.code for item in block.receipts if isinstance(item, TransactionReceipt)]
    assert set(codes) == {Code.BAD_SIGNATURE, Code.WRONG_SHARD}
    after = metered(world).report()
    assert (after.gas, after.hottest) == (before.gas, before.hottest)


def test_a_huge_gas_limit_reserves_nothing() -> None:
    world = World(1, gas=GasSchedule(local_entry=100, remote_entry=300, leaf=10))
    greedy, modest = world.actor("greedy"), world.actor("modest")
    world.start(greedy, modest, amount=FUNDS)
    pay = transfer(world.asset, (modest, 1))
    block = world.run_block(0, [world.signed(greedy, pay, gas_limit=2**62), world.signed(modest, pay, gas_limit=200)])
    assert [item.code for item in block.receipts if isinstance(item, TransactionReceipt)] == [Code.OK, Code.OK]
    assert block.executed.header.gas_used == 220


def test_accounts_ground_into_one_slot_pay_for_it_and_are_seen() -> None:
    """Anybody can grind addresses; the slot is named, its senders paid, and nothing moves by itself."""
    world = World(2, gas=GasSchedule(local_entry=100, remote_entry=300, leaf=10))
    crowd: list[Actor] = []
    slot = slot_of_id(world.actor("first").address)
    number = 0
    while len(crowd) < 2:
        candidate = Actor.of(f"ground {number}")
        number += 1
        if slot_of_id(candidate.address) == slot:
            crowd.append(candidate)
    world.start(*crowd, amount=FUNDS)
    payments = [world.signed(actor, transfer(world.asset, (crowd[0], 1))) for actor in crowd for _ in range(20)]
    block = world.run_block(0, payments)
    report = metered(world).report()
    assert report.hottest[0].slot == slot
    assert report.hottest[0].gas >= 40 * 110
    assert block.executed.header.map_epoch == 0
    assert world.chain.shard_map == ShardMap.initial(2)


def test_a_worker_can_not_make_up_inputs_to_look_busy() -> None:
    lie = Lie()

    def alter(header: BlockHeader) -> BlockHeader:
        control, relay, transactions = header.inputs
        return replace(header, inputs=(control, relay, replace(transactions, count=transactions.count + 100)))

    lie.publish(alter=alter)
    verdict = lie.verdict()
    assert verdict.headers
    assert verdict.execution
    assert any(item.topic in (Topic.TRANSACTIONS, Topic.BLOCKS, None) for item in verdict.audit.findings)
