"""What a shard finds when it starts: stores behind, empty, ahead or foreign; logs cut, forked or forged."""

from dataclasses import replace

import pytest
from shard_net import ShardNet, leaves
from sync_net import alone

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Hash32, ShardId
from pipeline.errors import ConfigError, Fatal, TaskDiverged
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.blocks import frame_header
from pipeline.ledger.checkpoints import SignedStateRoot
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.log.records import encode_record, end_key, record_key
from pipeline.shards.block_reader import CommittedBlock
from pipeline.shards.follower import BlockDiverged, follow
from pipeline.shards.leader import CURSOR, OUTPUTS
from pipeline.shards.life import TaskState
from pipeline.shards.outputs import decode_appends, encode_appends
from pipeline.shards.progress import Idle
from pipeline.shards.tail import last_record
from pipeline.shards.task import ShardTask
from pipeline.state.store import StateStore
from pipeline.testing.world import World

BLOCKS, ROOTS = TopicPartition(Topic.BLOCKS, 0), TopicPartition(Topic.STATE_ROOTS, 0)


def played(blocks: int = 3) -> ShardNet:
    net = ShardNet(1)
    net.play(steps=blocks)
    net.tasks[0].revoke()
    return net


def halted(net: ShardNet, store: StateStore | None = None) -> str:
    """A task that starts on this log and store halts; why."""
    task = net.task(store=store)
    before = [net.end(topic) for topic in Topic]
    net.run(tasks=[task])
    assert task.state is TaskState.HALTED
    assert isinstance(task.error, TaskDiverged)
    assert task.step(net.now_ms) == Idle()
    assert [net.end(topic) for topic in Topic] == before
    return str(task.error)


def led(net: ShardNet, store: StateStore | None = None) -> ShardTask:
    task = net.task(store=store)
    net.run(tasks=[task])
    assert (task.state, task.error) == (TaskState.LEADING, None)
    return task


def cut(net: ShardNet, topic: Topic, records: int) -> None:
    """Take the last records of partition 0 away, as an old backup of the topic would."""
    source = TopicPartition(topic, 0)
    gone = net.read(topic)[-records:]
    batch: dict[bytes, bytes | None] = {record_key(source, record.offset): None for record in gone}
    batch[end_key(source)] = gone[0].offset.to_bytes(8, "big")
    net.disk.write(batch, sync=True)
    reopen(net)


def rewrite(net: ShardNet, topic: Topic, index: int, value: bytes | None) -> int:
    """Replace one record of partition 0 by another; its offset."""
    source = TopicPartition(topic, 0)
    offset = net.read(topic)[index].offset
    place = record_key(source, offset)
    net.disk.write({place: encode_record(place, None, value)}, sync=True)
    return offset


def reopen(net: ShardNet) -> None:
    net.embedded.close()
    net.disk = net.disk.reopen()
    net.embedded = net.log.inner = EmbeddedLog(net.disk)  # type: ignore[attr-defined]


# Stores


@pytest.mark.parametrize("behind", [0, 1, 2, 3])
def test_a_store_that_is_behind_catches_up(behind: int) -> None:
    net = ShardNet(1)
    disks = []
    net.play(steps=0)
    for _ in range(4):
        net.run()
        copy = MemoryKeyValue()
        copy.write(dict(net.stores[0]._kv.scan(b"", b"\xff\xff", 1 << 20)), sync=True)
        disks.append(copy)
        net.pay_all(1)
    net.run()
    net.tasks[0].revoke()
    task = led(net, net.store_for(0, disks[-1 - behind]))
    assert leaves(task.store) == leaves(net.stores[0])
    assert net.audit().findings == ()


def test_an_empty_store_is_filled_from_the_log() -> None:
    net = played()
    task = led(net)
    assert leaves(task.store) == leaves(net.stores[0])
    assert task.store.meta(OUTPUTS) == net.stores[0].meta(OUTPUTS)


def test_catching_up_takes_several_steps_over_many_blocks() -> None:
    net = ShardNet(1)
    net.run()
    for _ in range(40):
        net.now_ms += net.chain.genesis.heartbeat_ms
        net.run(ms=10)
    net.tasks[0].revoke()
    task = net.task()
    heights = []
    while task.state is not TaskState.LEADING:
        task.step(net.now_ms)
        heights.append(task.committed.height)
    assert heights == sorted(heights)
    assert {15, 31, 40} <= set(heights)


def test_a_store_ahead_of_the_log_halts() -> None:
    net = played()
    cut(net, Topic.BLOCKS, 1)
    assert "which the log does not hold" in halted(net, net.stores[0])
    assert "restore" in halted(net, net.stores[0])


def test_a_store_ahead_of_an_empty_log_halts() -> None:
    net = played()
    cut(net, Topic.BLOCKS, len(net.read(Topic.BLOCKS)))
    assert "which the log does not hold" in halted(net, net.stores[0])


def test_the_store_of_another_shard_halts() -> None:
    net = ShardNet(2)
    net.play()
    net.tasks[1].revoke()
    task = ShardTask(
        net.chain, ShardId(1), net.log, net.stores[0], net.verifier, net.owners.view_of("me"), net.tasks[0]._config
    )
    task.assign()
    net.run(tasks=[task])
    assert task.state is TaskState.HALTED
    assert "holds shard 0" in str(task.error)
    with pytest.raises(ConfigError, match="that of shard 0, not of 1"):
        StateStore(net.stores[0]._kv, ShardId(1), [])


def test_the_store_of_another_branch_halts() -> None:
    net, other = ShardNet(1), ShardNet(1)
    other.now_ms += 17
    for one in (net, other):
        one.play()
        one.tasks[0].revoke()
    message = halted(net, other.stores[0])
    assert "fork" in message or "second, different block" in message


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1,2]", b'{"shard": "x"}', b"\xff\xfe"])
def test_a_damaged_cursor_is_fatal(raw: bytes) -> None:
    net = played(1)
    store = net.stores[0]
    store.commit(store.view().prepare({}), {CURSOR: raw})
    task = net.task(store=store)
    with pytest.raises(Fatal, match="cursor is damaged"):
        net.run(tasks=[task])
    assert task.state is TaskState.HALTED


def test_damaged_outputs_are_fatal() -> None:
    net = played(1)
    store = net.stores[0]
    raw = store.meta(OUTPUTS)
    assert raw is not None
    for damaged in (raw[:-1], raw + b"\x01", b"\xff" + raw[1:]):
        store.commit(store.view().prepare({}), {OUTPUTS: damaged})
        with pytest.raises(Fatal, match="outputs kept of the last block are damaged"):
            net.run(tasks=[net.task(store=store)])
    assert encode_appends(decode_appends(raw)) == raw


# Logs


def test_another_genesis_halts() -> None:
    net = ShardNet(1)
    other = replace(net.chain.genesis, name="another")
    rewrite(net, Topic.CONTROL, 0, other.to_record())
    assert "another genesis" in halted(net)


@pytest.mark.parametrize("value", [b"garbage", None, b"\xc3\x01"])
def test_a_poison_record_on_blocks_halts(value: bytes | None) -> None:
    net = played()
    net.log.append([Append(BLOCKS, None, value)])
    assert "blocks are written by workers only" in halted(net)
    assert "blocks are written by workers only" in halted(net, net.stores[0])


def forged(net: ShardNet, **changes: object) -> bytes:
    """The last header with other fields."""
    header = replace(net.headers()[-1], **changes)  # type: ignore[arg-type]
    return frame_header(header.to_bytes())


def test_a_fork_of_the_last_block_halts() -> None:
    net = played()
    net.log.append([Append(BLOCKS, None, forged(net, gas_used=1))])
    assert "fork" in halted(net, net.stores[0])
    assert "fork" in halted(net)


def test_a_gap_halts() -> None:
    net = played()
    height = net.headers()[-1].height
    net.log.append([Append(BLOCKS, None, forged(net, height=height + 2))])
    assert f"block {height + 1} is missing" in halted(net)


def test_a_broken_link_halts() -> None:
    net = played()
    height = net.headers()[-1].height
    net.log.append([Append(BLOCKS, None, forged(net, height=height + 1, previous_hash=Hash32(bytes(32))))])
    assert "does not name its predecessor's hash" in halted(net)


def test_a_block_of_another_shard_halts() -> None:
    net = played()
    net.log.append([Append(BLOCKS, None, forged(net, shard=ShardId(1)))])
    assert "a block of shard 1" in halted(net)


@pytest.mark.parametrize("field", ["state_root", "receipts_root", "cursors_root"])
def test_a_block_that_execution_contradicts_halts_and_is_named(field: str) -> None:
    net = played()
    offset = rewrite(net, Topic.BLOCKS, -1, forged(net, **{field: Hash32(bytes(32))}))
    message = halted(net)
    assert f"offset {offset}: re-execution gives another {field}" in message


def test_inputs_that_are_gone_halt() -> None:
    net = played()
    cut(net, Topic.TRANSACTIONS, 1)
    assert "its inputs are not on the log" in halted(net)


def test_inputs_that_were_replaced_halt() -> None:
    net = played()
    rewrite(net, Topic.TRANSACTIONS, -1, b"another record")
    assert "are not those that were executed" in halted(net)


def test_inputs_that_end_behind_no_record_diverge() -> None:
    """Else a header could claim offsets that an open transaction fills later: two readers would find other inputs."""
    world = World()
    world.settle()
    world.submit(None)
    inputs, cursor = world.pending(0), world.cursors[0]
    wider = replace(inputs, transactions=replace(inputs.transactions, next=inputs.transactions.next + 1))
    idle = replace(inputs, relay=replace(inputs.relay, next=inputs.relay.next + 1))
    for claimed, holds in ((inputs, True), (wider, False), (idle, False)):
        executed = world.execute(0, claimed)
        block = CommittedBlock(7, executed.header, executed.datum, executed.block_hash)
        args = (world.chain, cursor, world.stores[0].view(), block, claimed, world.verifier)
        if holds:
            assert follow(*args).datum == executed.datum
        else:
            with pytest.raises(BlockDiverged, match="which is not behind a record"):
                follow(*args)


# What was signed


def signed_net() -> ShardNet:
    net = ShardNet(1)
    sync = net.synchronizer()
    net.fund(dict.fromkeys(net.names(), 1000))
    net.run(sync)
    net.pay_all(1)
    net.run(sync)
    net.tasks[0].revoke()
    sync.close()
    return net


def test_signed_blocks_that_are_still_there_are_no_obstacle() -> None:
    net = signed_net()
    led(net)
    led(net, net.stores[0])


def test_a_signed_block_that_is_gone_halts() -> None:
    net = signed_net()
    cut(net, Topic.BLOCKS, 1)
    message = halted(net)
    assert "is signed but blocks end at" in message
    assert "restore the newer one" in message


def test_a_signed_block_of_another_branch_halts() -> None:
    net, other = signed_net(), ShardNet(1)
    other.now_ms += 1_000
    other.fund(dict.fromkeys(net.names(), 1000))
    other.run()
    other.pay_all(1)
    other.run()
    other.tasks[0].revoke()
    for record in net.read(Topic.STATE_ROOTS):
        other.log.append([Append(TopicPartition(Topic.STATE_ROOTS, 0), None, record.value)])
    assert "is not the one that was signed" in halted(other)


def test_an_older_signed_block_of_another_branch_halts() -> None:
    net = signed_net()
    root = SignedStateRoot.from_record(net.read(Topic.STATE_ROOTS)[-1].value)
    older = alone(root, "attestor", number=10**6, height=0, block_hash=Hash32(bytes(32)))
    net.log.append([Append(ROOTS, None, older.to_record())])
    assert "block 0 is not the one that was signed" in halted(net)


@pytest.mark.parametrize("signers", [(), ("mallory",), None])
def test_what_no_quorum_signed_halts_nobody(signers: tuple[str, ...] | None) -> None:
    net = signed_net()
    root = SignedStateRoot.from_record(net.read(Topic.STATE_ROOTS)[-1].value)
    forged = b"garbage" if signers is None else alone(root, *signers, height=10**6).to_record()
    net.log.append([Append(ROOTS, None, forged)])
    led(net)


def test_a_signed_block_that_is_gone_halts_behind_what_nobody_signed() -> None:
    net = signed_net()
    net.log.append([Append(ROOTS, None, b"garbage")] * 200)
    cut(net, Topic.BLOCKS, 1)
    assert "is signed but blocks end at" in halted(net)


# The tail


class ShortReads(EmbeddedLog):
    """Gives fewer records than there are, as a network may."""

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list:  # type: ignore[type-arg]
        return super().read(source, start, min(max_records, 3), max_bytes)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 300])
def test_the_last_record_is_found_over_holes_and_short_reads(count: int) -> None:
    log = ShortReads(MemoryKeyValue())
    log.create_topic(Topic.BLOCKS, 1)
    writer = log.writer("somebody")
    for number in range(count):
        writer.begin_commit([Append(BLOCKS, None, number.to_bytes(2, "big"))])
        writer.poll_commit()
    record = last_record(log, BLOCKS)
    assert (record.value if record else None) == ((count - 1).to_bytes(2, "big") if count else None)
