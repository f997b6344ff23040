"""The attesting executor, alone: behind, ahead, waiting, and over stores that hold another history."""

import pytest
from sync_net import Net

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.errors import TaskDiverged
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.cursor import ShardCursor
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.shards.block_reader import BlockReader
from pipeline.sync.execution import Executor

NAMES = [f"account-{number}" for number in range(4)]


def make(amount: int = 1000, payments: int = 30) -> Net:
    net = Net(shards=1)
    net.fund(dict.fromkeys(NAMES, amount))
    net.run()
    for number in range(payments):
        net.pay(NAMES[number % 4], {NAMES[0]: 1})
        net.run(ms=3)
    return net


def executor(net: Net, kv: MemoryKeyValue | None = None, log: EmbeddedLog | None = None) -> Executor:
    return Executor(net.chain, log or net.log, 0, net.store_for(0, kv), net.verifier)


def test_it_catches_up_in_batches() -> None:
    net, kv = make(), MemoryKeyValue()
    signed = net.tasks[0].committed
    assert signed.height > 20
    first = executor(net, kv)
    assert first.is_behind(signed)
    assert first.catch_up(signed)
    assert first.is_behind(signed)
    again = executor(net, kv)  # goes on where the store stands
    while again.is_behind(signed):
        assert again.catch_up(signed)
    assert net.store_for(0, kv).state_root == net.stores[0].state_root
    assert not again.is_behind(ShardCursor.start(net.chain, 0))
    blocks = BlockReader(net.log, 0, 0, net.chain.chain_id).read(5)
    assert all(again.execute(block) for block in blocks)  # has them already


def test_another_history_in_its_store_is_noticed() -> None:
    net, other, kv = make(payments=3), make(999, payments=3), MemoryKeyValue()
    signed, foreign = net.tasks[0].committed, other.tasks[0].committed
    assert signed.height == foreign.height
    astray = executor(other, kv)
    while astray.is_behind(foreign):
        astray.catch_up(foreign)
    with pytest.raises(TaskDiverged, match="executed another block than was signed"):
        executor(net, kv).is_behind(signed)
    blocks = BlockReader(net.log, 0, 0, net.chain.chain_id).read(100)
    with pytest.raises(TaskDiverged, match="executed another block of this height"):
        executor(net, kv).execute(blocks[-1])
    net.pay(NAMES[0], {NAMES[1]: 1})
    net.run()
    with pytest.raises(TaskDiverged, match="second, different block"):
        executor(net, kv).catch_up(net.tasks[0].committed)


def copy(net: Net, *topics: Topic) -> EmbeddedLog:
    log = EmbeddedLog(MemoryKeyValue())
    for topic in Topic:
        log.create_topic(topic, net.log.partitions(topic))
    for topic in topics:
        log.append([Append(TopicPartition(topic, 0), item.key, item.value) for item in net.read(topic)])
    return log


def test_signed_blocks_or_inputs_that_are_gone() -> None:
    net = make(payments=1)
    signed = net.tasks[0].committed
    with pytest.raises(TaskDiverged, match="signed but not on the log"):
        executor(net, log=copy(net, Topic.CONTROL)).catch_up(signed)
    with pytest.raises(TaskDiverged, match="consumed control-0 to 1, which ends at 0"):
        executor(net, log=copy(net, Topic.BLOCKS)).catch_up(signed)


def test_who_is_ahead_vouches_for_nothing_before_its_own_block_was_seen() -> None:
    net, kv = make(payments=3), MemoryKeyValue()
    signed = net.tasks[0].committed
    first = executor(net, kv)
    assert first.is_vouched  # of nothing
    while first.is_behind(signed):
        first.catch_up(signed)
    ahead = executor(net, kv)
    blocks = BlockReader(net.log, 0, 0, net.chain.chain_id).read(100)
    for block in blocks[:-1]:
        assert ahead.execute(block)
        assert not ahead.is_vouched
    assert ahead.execute(blocks[-1])
    assert ahead.is_vouched
