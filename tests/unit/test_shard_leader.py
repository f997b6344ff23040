"""Where blocks end and when they are made: linger, limits, heartbeats, clocks, control, idle partitions."""

from dataclasses import replace
from hashlib import sha256

import pytest
from shard_net import ShardNet
from sync_net import key_of

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.crypto import contexts
from pipeline.errors import Retryable
from pipeline.ledger.composer import Composition, Waiting, compose
from pipeline.ledger.control import (
    Action,
    CreateShard,
    KeySignature,
    Quarantine,
    SignedControl,
    control_hash,
    encode_action,
)
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.genesis import PROTOCOL, GasSchedule, Limits, SignerKey
from pipeline.ledger.reading import InputReader
from pipeline.ledger.relay import RelayBundle
from pipeline.log.port import Append
from pipeline.shards.leader import BLOCK_TRANSACTIONS, ClockSkew
from pipeline.shards.life import TaskState
from pipeline.shards.progress import Idle
from pipeline.shards.task import ShardTask, TaskConfig
from pipeline.testing.world import World, transfer

DAY_MS = 86_400_000


def govern(net: ShardNet, *actions: Action) -> None:
    """Publish control records, signed by the operator."""
    head = net.chain.chain_id
    for sequence, action in enumerate(actions, 1):
        control = SignedControl(net.chain.chain_id, sequence, head, encode_action(PROTOCOL, action))  # type: ignore[arg-type]
        key = key_of("operator")
        signature = key.sign(control.message(), contexts.CONTROL)
        key_id = SignerKey(key.suite_id, key.public_key).key_id
        control = replace(control, signatures=(KeySignature(key_id, key.suite_id, signature),))
        head = control_hash(control.to_bytes())  # type: ignore[assignment]
        net.log.append([Append(TopicPartition(Topic.CONTROL, 0), None, control.to_record())])


def settle(net: ShardNet, task: ShardTask) -> Idle:
    """Step until the task has nothing to do; the clock stands."""
    for _ in range(1000):
        answer = task.step(net.now_ms)
        if isinstance(answer, Idle):
            return answer
    raise AssertionError("no rest after 1,000 steps")


def led(**config: object) -> tuple[ShardNet, ShardTask]:
    """A shard that made its block 0 and rests."""
    net = ShardNet(1)
    task = net.task(config=TaskConfig(**config))  # type: ignore[arg-type]
    settle(net, task)
    net.now_ms += task._config.linger_ms
    settle(net, task)
    assert task.committed.height == 0
    return net, task


# When


def test_input_lingers_before_it_becomes_a_block() -> None:
    net, task = led(linger_ms=50)
    net.fund({"n1": 1})
    began = net.now_ms
    assert settle(net, task) == Idle(began + 50)
    net.now_ms = began + 49
    assert settle(net, task) == Idle(began + 50)
    assert task.committed.height == 0
    net.now_ms = began + 50
    settle(net, task)
    assert task.committed.height == 1


def test_a_clock_that_is_set_back_does_not_prolong_the_linger() -> None:
    net, task = led(linger_ms=50)
    net.fund({"n1": 1})
    settle(net, task)
    net.now_ms -= 3_600_000
    settle(net, task)
    net.now_ms += 50
    settle(net, task)
    assert task.committed.height == 1


def test_block_time_never_falls() -> None:
    net, task = led(linger_ms=1)
    before = net.headers()[-1].timestamp_ms
    net.now_ms -= DAY_MS
    net.fund({"n1": 1})
    net.run(tasks=[task])
    assert [header.timestamp_ms for header in net.headers()] == [before, before]
    assert net.audit().findings == ()


def test_a_full_block_does_not_linger() -> None:
    net, task = led(linger_ms=10_000)
    limit = min(net.chain.genesis.limits.block_records, BLOCK_TRANSACTIONS)
    target = TopicPartition(Topic.TRANSACTIONS, 0)
    net.log.append([Append(target, None, b"garbage")] * (limit - 1))
    assert isinstance(settle(net, task), Idle)
    assert task.committed.height == 0
    net.log.append([Append(target, None, b"garbage")] * 2)
    settle(net, task)
    assert task.committed.height == 1
    assert net.headers()[-1].counts.dead_letters == limit
    assert settle(net, task) == Idle(net.now_ms + 10_000)


def test_nothing_happens_but_a_heartbeat() -> None:
    net, task = led(linger_ms=1)
    due = net.headers()[-1].timestamp_ms + net.chain.genesis.heartbeat_ms
    assert settle(net, task) == Idle(due)
    net.now_ms = due - 1
    assert settle(net, task) == Idle(due)
    assert len(net.headers()) == 1
    net.now_ms = due
    assert settle(net, task) == Idle(due + net.chain.genesis.heartbeat_ms)
    header = net.headers()[-1]
    assert (header.height, header.timestamp_ms, [item.count for item in header.inputs]) == (1, due, [0, 0, 0])
    assert net.audit().findings == ()


# Clocks


def test_a_clock_far_ahead_halts_and_an_operator_can_vouch_for_it() -> None:
    net, task = led(linger_ms=1)
    net.now_ms += net.chain.genesis.max_clock_step_ms + 1
    assert settle(net, task) == Idle()
    assert task.state is TaskState.HALTED
    assert isinstance(task.error, ClockSkew)
    assert "--accept-time" in str(task.error)
    vouched = net.task(store=task.store, config=TaskConfig(accept_time=True))
    net.run(tasks=[vouched])
    assert vouched.state is TaskState.LEADING
    assert net.headers()[-1].timestamp_ms == net.now_ms


def test_a_clock_exactly_as_far_ahead_as_genesis_allows() -> None:
    net, task = led(linger_ms=1)
    net.now_ms = net.headers()[-1].timestamp_ms + net.chain.genesis.max_clock_step_ms
    settle(net, task)
    assert (task.state, task.committed.height) == (TaskState.LEADING, 1)


# Idle partitions


def test_the_task_of_an_idle_partition_neither_writes_nor_halts_nor_wakes() -> None:
    net = ShardNet(1)
    target = TopicPartition(Topic.TRANSACTIONS, 1)
    net.log.append([Append(target, None, b"somebody publishes here")])
    net.log.append([Append(TopicPartition(Topic.CONTROL, 0), None, b"garbage")])
    task = net.task(1)
    settle(net, task)
    net.now_ms += 10 * DAY_MS
    assert settle(net, task) == Idle()
    assert (task.state, task.error, task.committed.height) == (TaskState.LEADING, None, -1)
    assert net.end(Topic.BLOCKS, 1) == 0


@pytest.mark.parametrize("early", [True, False], ids=["waiting for it", "started after it"])
def test_a_created_shard_begins_with_its_own_create_shard(early: bool) -> None:
    net = ShardNet(1)
    net.run()
    task = net.task(2)
    if early:
        net.run(tasks=[task])
    govern(net, CreateShard(1), CreateShard(3), CreateShard(2))
    net.run(tasks=[task])
    assert task.error is None
    (header,) = net.headers(2)
    assert header.inputs[0].count == 4
    net.run(net.task(1))
    net.run()
    assert net.headers(1)[0].inputs[0].count == 4
    assert net.audit().findings == ()


def test_block_0_takes_all_control_up_to_its_create_shard_whatever_the_limits() -> None:
    net = ShardNet(1)
    limit = net.chain.genesis.limits.block_records
    net.log.append([Append(TopicPartition(Topic.CONTROL, 0), None, b"garbage")] * limit)
    govern(net, CreateShard(1))
    task = net.task(1)
    net.run(tasks=[*net.tasks, task])
    assert task.error is None
    assert net.headers(1)[0].inputs[0].count == limit + 2
    assert net.headers(0)[0].inputs[0].count == limit
    assert net.audit().findings == ()


def test_a_shard_is_created_behind_more_control_than_a_backlog_holds() -> None:
    net = ShardNet(1)
    net.log.append([Append(TopicPartition(Topic.CONTROL, 0), None, b"garbage")] * 9_000)
    govern(net, CreateShard(1))
    task = net.task(1)
    net.run(tasks=[task])
    assert (task.error, task.committed.height) == (None, 0)
    assert net.headers(1)[0].inputs[0].count == 9_002
    follower = net.task(1)
    net.run(tasks=[follower])
    assert (follower.error, follower.committed) == (None, task.committed)


def test_a_shard_created_late_measures_the_clock_by_shard_0() -> None:
    net = ShardNet(1)
    for _ in range(4):
        net.now_ms += 5 * DAY_MS
        net.run()
    govern(net, CreateShard(1))
    net.run()
    task = net.task(1)
    net.run(tasks=[task])
    assert (task.state, task.error, task.committed.height) == (TaskState.LEADING, None, 0)


def test_a_shard_created_late_does_not_believe_a_clock_that_shard_0_would_not() -> None:
    net = ShardNet(1)
    net.run()
    govern(net, CreateShard(1))
    net.run()
    net.now_ms += 8 * DAY_MS
    task = net.task(1)
    net.run(tasks=[task])
    assert isinstance(task.error, ClockSkew)


# Where a block ends

GAS = GasSchedule(local_entry=100, remote_entry=300, further_divisor=10, leaf=0)


def limits(**changes: int) -> Limits:
    return replace(Limits(entries=10, operations=5, block_gas=1_000_000), **changes)


def composed(world: World, waiting: Waiting) -> Composition:
    cursor: ShardCursor = world.cursors[1]
    return compose(world.chain, cursor, waiting, InputReader(world.chain, cursor.shard))


def inbound(world: World, bundles: int, entries: int = 1) -> list[LogRecord]:
    """Bundles from shard 0 that wait on shard 1."""
    for _ in range(bundles):
        receiver = world.actor("receiver", 1)
        world.run_block(0, [world.signed(world.treasury, transfer(world.asset, *[(receiver, 1)] * entries))])
    position = world.cursors[1].positions[1]
    return [record for record in world.relay[1].records if record.offset >= position]


def started(**changes: int) -> World:
    world = World(2, gas=GAS, limits=limits(**changes))
    world.start(world.treasury, world.actor("payer", 1), amount=10_000)
    return world


def payments(world: World, count: int) -> list[LogRecord]:
    payer = world.actor("payer", 1)
    offsets = world.submit(*[world.signed(payer, transfer(world.asset, (payer, 1))) for _ in range(count)])
    return [record for record in world.transactions[1].records if record.offset in offsets]


def test_records_bound_a_block_and_relay_leaves_half_to_transactions() -> None:
    world = started(block_records=6)
    relay, paid = inbound(world, 5), payments(world, 5)
    assert composed(world, Waiting([], relay, paid)).taken == (0, 3, 3)
    assert composed(world, Waiting([], relay, [])).taken == (0, 5, 0)
    assert composed(world, Waiting([], [], paid * 2)).taken == (0, 0, 6)


def test_gas_of_transactions_bounds_a_block() -> None:
    world = started()
    world.chain.genesis.validate()
    paid = payments(world, 3)
    object.__setattr__(world.chain.genesis.limits, "block_gas", 250)
    composition = composed(world, Waiting([], [], paid))
    assert composition.taken == (0, 0, 2)
    assert composition.inputs.transactions.next == paid[1].offset + 1


def test_inbound_gas_is_at_most_half_while_transactions_wait() -> None:
    world = started()
    relay, paid = inbound(world, 6, entries=2), payments(world, 1)
    object.__setattr__(world.chain.genesis.limits, "block_gas", 100)  # an inbound effect: 10
    assert composed(world, Waiting([], relay, [])).taken == (0, 5, 0)
    taken = composed(world, Waiting([], relay, paid)).taken
    assert taken[:2] == (0, 2)


def test_one_bundle_always_fits() -> None:
    world = started()
    relay, paid = inbound(world, 2, entries=9), payments(world, 1)
    object.__setattr__(world.chain.genesis.limits, "block_gas", 50)
    object.__setattr__(world.chain.genesis.limits, "block_bytes", 10)
    assert composed(world, Waiting([], relay, paid)).taken[:2] == (0, 1)


def test_bytes_bound_relay_and_transactions_but_one_always_fits() -> None:
    world = started()
    relay, paid = inbound(world, 4), payments(world, 4)
    size, costs = len(relay[0].value or b""), [len(record.value or b"") for record in paid]
    object.__setattr__(world.chain.genesis.limits, "block_bytes", sum(costs[:3]))
    assert composed(world, Waiting([], [], paid)).taken == (0, 0, 3)
    object.__setattr__(world.chain.genesis.limits, "block_bytes", 2 * size)
    assert composed(world, Waiting([], relay, [])).taken == (0, 2, 0)
    assert composed(world, Waiting([], relay, paid)).taken == (0, 2, 1)
    object.__setattr__(world.chain.genesis.limits, "block_bytes", 1)
    assert composed(world, Waiting([], [], paid)).taken == (0, 0, 1)


def test_a_bundle_waits_for_the_control_records_that_its_source_had_seen() -> None:
    world = started()
    relay = inbound(world, 3)
    ahead = replace(RelayBundle.from_record(relay[1].value), control_sequence=1)
    relay[1] = relay[1]._replace(value=ahead.to_record())
    assert composed(world, Waiting([], relay, payments(world, 1))).taken == (0, 1, 1)


def test_undecodable_bundles_are_taken_and_wait_for_nothing() -> None:
    world = started()
    relay = [LogRecord(offset, None, b"garbage") for offset in range(3)]
    assert composed(world, Waiting([], relay, [])).taken == (0, 3, 0)


def test_a_bundle_that_waits_neither_spins_nor_stops_what_is_behind_it() -> None:
    """The task sleeps until the log has news, and transactions and heartbeats go on."""
    net = ShardNet(2)
    net.play(steps=1)
    govern(net, CreateShard(2))
    net.run(tasks=net.tasks[:1])
    name_here, name_there = net.names()[0], net.names()[2]
    net.pay(name_here, {name_there: 1})
    net.run(tasks=net.tasks[:1])
    reader, task = net.log, net.tasks[1]
    control = TopicPartition(Topic.CONTROL, 0)
    seen = task.committed.positions[0]
    real, reader.read = (
        reader.read,
        lambda source, start, *limits: (  # type: ignore[method-assign]
            [] if source == control and start >= seen else real(source, start, *limits)
        ),
    )

    def hidden(source: TopicPartition) -> None:
        raise Retryable(f"a transaction is open on {source}")

    settled, reader.settle = reader.settle, hidden  # type: ignore[method-assign]
    answer = net_run_idle(net, task)
    assert task.leader is not None
    assert task.leader.stats.awaited is not None
    assert (task.leader.stats.awaited.control_sequence, task.leader.stats.awaited.source) == (1, 0)
    assert answer.until_ms is not None
    assert answer.until_ms > net.now_ms + 10_000
    net.pay(name_there, {name_there: 1})
    height = task.committed.height
    net_run_idle(net, task)
    assert task.committed.height == height + 1
    reader.read, reader.settle = real, settled  # type: ignore[method-assign]
    net.run()
    assert task.leader.stats.awaited is None
    assert net.audit().in_flight == ()
    assert net.audit().findings == ()


def forged(net: ShardNet, **changes: object) -> LogRecord:
    """Appends the last bundle of shard 0 to 1 as the next one, changed; returns its record."""
    last = RelayBundle.from_record(net.read(Topic.RELAY, 1)[-1].value)
    head = net.tasks[1].committed.channels_in[0]
    bundle = replace(last, sequence=head.sequence + 1, previous_head=head.head, control_sequence=10**9)
    value = replace(bundle, **changes).to_record()  # type: ignore[arg-type]
    (offset,) = net.log.append([Append(TopicPartition(Topic.RELAY, 1), None, value)])
    return LogRecord(offset, None, value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "under control record 1000000000, but control ends at record 0"),
        ({"sequence": 99}, "jumps over"),
        ({"previous_head": bytes(32)}, "does not chain"),
    ],
)
def test_a_bundle_under_a_control_record_that_nobody_wrote_halts_until_it_is_quarantined(
    changes: dict[str, object], words: str
) -> None:
    net = ShardNet(2)
    net.play(steps=1)
    record = forged(net, **changes)
    net.run()
    assert net.tasks[1].state is TaskState.HALTED
    assert words in str(net.tasks[1].error)
    assert "audit shard 0" in str(net.tasks[1].error)
    govern(net, Quarantine(Topic.RELAY, 1, record.offset, sha256(record.value or b"").digest()))
    net.tasks[1] = net.task(1, store=net.tasks[1].store)
    net.run()
    net.pay_all(2)
    net.run()
    assert net.tasks[1].error is None
    assert net.audit().in_flight == ()


def test_a_repeat_waits_for_nothing() -> None:
    net = ShardNet(2)
    net.play(steps=1)
    head = net.tasks[1].committed.channels_in[0]
    forged(net, sequence=head.sequence - 1)
    net.run()
    assert net.tasks[1].error is None
    assert net.headers(1)[-1].counts.repeats == 1


def net_run_idle(net: ShardNet, task: ShardTask) -> Idle:
    """Rest, 10 ms later."""
    settle(net, task)
    net.now_ms += 10
    return settle(net, task)
