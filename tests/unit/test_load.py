"""Load measured from headers: windows, sums, skew, hottest slots; over a log, in steps."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharding_net import ShardingNet
from sync_net import START_MS

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import BlockHash, ChainId, Hash32, Height, ShardId, Slot
from pipeline.errors import LoadBalancingFailed
from pipeline.ledger.blocks import BlockHeader, Counts, InputRange, SlotUpdate, frame_header
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.shard_map import ShardMap
from pipeline.log.port import Append
from pipeline.shards.load import LoadBalancer, LoadMeter

ZERO = bytes(32)
WINDOW_MS = 100


def header(shard: int, timestamp_ms: int, gas: dict[int, int], transactions: int = 1, count: int = 2) -> BlockHeader:
    inputs = tuple(InputRange(topic, shard, 0, count, count, Hash32(ZERO)) for topic in range(3))
    slots = tuple(SlotUpdate(Slot(slot), Hash32(ZERO), amount) for slot, amount in sorted(gas.items()))
    return BlockHeader(
        1, ChainId(ZERO), ShardId(shard), Height(0), 0, timestamp_ms, BlockHash(Hash32(ZERO)), inputs,
        Hash32(ZERO), Hash32(ZERO), Hash32(ZERO), slots, (), (), Counts(transactions=transactions), sum(gas.values()),
    )  # fmt: skip


def meter(shards: int = 4) -> LoadMeter:
    found = LoadMeter(ShardMap.initial(shards), WINDOW_MS)
    for shard in range(shards):
        found.watch(ShardId(shard))
    return found


def test_without_blocks_the_load_is_even() -> None:
    report = meter().report()
    assert (report.to_ms, report.gas, report.skew, report.hottest) == (0, 0, 1.0, ())
    assert [load.shard for load in report.shards] == [0, 1, 2, 3]
    assert LoadMeter(ShardMap.initial(1)).report().skew == 1.0


def test_sums_skew_and_hottest_slots() -> None:
    found = meter()
    found.add(header(0, 10, {0: 30, 7: 10}, transactions=3))
    found.add(header(0, 20, {7: 40}))
    found.add(header(3, 20, {4095: 20, 4000: 0}))
    report = found.report()
    assert report.shards[0] == (0, 2, 12, 4, 80)
    assert report.shards[3] == (3, 1, 6, 1, 20)
    assert report.skew == 80 / 25
    assert report.hottest == ((7, 0, 50), (0, 0, 30), (4095, 3, 20))
    assert found.report(hottest=1).hottest == ((7, 0, 50),)


def test_a_block_leaves_the_window_that_another_shards_time_moves() -> None:
    found = meter(2)
    found.add(header(0, 1000, {5: 9}))
    found.add(header(1, 1000 + WINDOW_MS - 1, {3000: 1}))
    assert found.report().gas == 10
    found.add(header(1, 1000 + WINDOW_MS, {}))
    report = found.report()
    assert (report.gas, report.shards[0].blocks, report.hottest) == (1, 0, ((3000, 1, 1),))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, 5), st.integers(0, 9)), max_size=30))
def test_the_window_equals_a_sum_over_all_blocks(steps: list[tuple[int, int, int, int]]) -> None:
    found, times, blocks = meter(), [0] * 4, []
    for shard, step_ms, offset, gas in steps:
        times[shard] += step_ms
        block = header(shard, times[shard], {shard * 1024 + offset: gas})
        blocks.append(block)
        found.add(block)
        newest_ms = max(item.timestamp_ms for item in blocks)
        report = found.report(hottest=4096)
        inside = [item for item in blocks if item.timestamp_ms > newest_ms - WINDOW_MS]
        by_shard = [sum(item.gas_used for item in inside if item.shard == number) for number in range(4)]
        assert [load.gas for load in report.shards] == by_shard
        assert sum(load.gas for load in report.hottest) == report.gas == sum(by_shard)


def test_a_window_must_be_positive() -> None:
    with pytest.raises(LoadBalancingFailed, match="0 ms"):
        LoadMeter(ShardMap.initial(1), 0)


def test_real_blocks_are_measured_in_steps_and_by_anyone_alike() -> None:
    net = ShardingNet()
    early = LoadBalancer(net.log, net.chain.shard_map)
    for shard in range(2):
        early.watch(ShardCursor.start(net.chain, shard))
    here, there = net.name_on(0), net.name_on(1)
    net.fund({here: 100, there: 100})
    net.run()
    assert early.measure().gas > 0
    middle = LoadBalancer(net.log, net.chain.shard_map)
    for task in net.tasks:
        middle.watch(task.committed)
        middle.watch(task.committed)
    assert middle.measure().gas == 0
    for _ in range(3):
        net.pay(here, {here: 1})
        net.run()
    report = middle.measure()
    assert [(load.transactions, load.records) for load in report.shards] == [(3, 3), (0, 0)]
    assert report.skew == 2.0
    slot = report.hottest[0]
    assert (slot.shard, slot.gas) == (0, report.gas)
    late = LoadBalancer(net.log, net.chain.shard_map)
    for shard in range(2):
        late.watch(ShardCursor.start(net.chain, shard))
    assert late.measure() == early.measure()
    assert late.measure().to_ms >= START_MS


def test_contradictory_blocks_can_not_be_measured() -> None:
    net = ShardingNet()
    net.run()
    balancer = LoadBalancer(net.log, net.chain.shard_map)
    cursor = net.tasks[0].committed
    balancer.watch(cursor)
    forged = replace(header(0, net.now_ms, {}), height=Height(cursor.height + 5))
    target = TopicPartition(Topic.BLOCKS, 0)
    net.log.append([Append(target, None, frame_header(forged.to_bytes()))])
    with pytest.raises(LoadBalancingFailed, match="shard 0 height 5"):
        balancer.measure()
    with pytest.raises(LoadBalancingFailed, match="shard 0 can't be measured"):
        LoadBalancer(net.log, net.chain.shard_map).watch(replace(cursor, height=Height(99)))
