"""The one-signer synchronizer before forged bundles, lying leaders, missing inputs and junk."""

from dataclasses import replace

import pytest
from sync_net import Net, address_of_key, key_of
from sync_rounds import NAMES, assert_sound, busy_net, more

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.errors import TaskDiverged
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.blocks import BlockHeader, frame_header
from pipeline.ledger.checkpoints import (
    Assurance,
    Checkpoint,
    CheckpointProposal,
    CheckpointSignature,
    checkpoint_hash,
)
from pipeline.ledger.packing import RELAY_ENTRY
from pipeline.ledger.relay import EffectKind, RelayBundle, RelayGroup, channel_start, encode_groups
from pipeline.log.port import Append
from pipeline.sync.life import SyncState
from pipeline.tree.rfc6962 import EMPTY_ROOT
from pipeline.tree.shard_tree import ShardTree


def forged_bundle(net: Net) -> RelayBundle:
    """The next bundle of channel 0 -> 1, correctly chained, that shard 0 never sent."""
    last = net.tasks[0].committed.channels_out.get(1)
    sequence, head = (last.sequence, last.head) if last else (0, channel_start(net.chain.chain_id, 0, 1))
    thief = next(n for n in NAMES if net.chain.shard_map.owner_of(address_of_key(key_of(n))) == 1)
    entry = RELAY_ENTRY.pack(0, address_of_key(key_of(thief)), (10**6).to_bytes(16, "big"))
    group = RelayGroup(bytes(32), bytes(32), net.asset, EffectKind.CREDIT, b"", entry)
    return RelayBundle(net.chain.chain_id, ShardId(0), ShardId(1), 99, 0, sequence + 1, head, encode_groups([group]))


def test_a_forged_but_chained_bundle_is_never_under_a_signature() -> None:
    net = busy_net()
    sync = net.synchronizer()
    net.run(sync)
    signed_height = sync.follower.ledger.shards[1].head.height
    net.log.append([Append(TopicPartition(Topic.RELAY, 1), None, forged_bundle(net).to_record())])
    net.run(sync)
    assert net.tasks[1].committed.height > signed_height
    assert sync.follower.ledger.shards[1].head.height == signed_height
    assert sync.follower.unsigned_blocks > 0
    more(net, sync)  # now the true bundle of that number is sent
    assert net.tasks[1].error is not None
    assert sync.state is SyncState.HALTED
    assert "sent another one under this number" in str(sync.error)
    assert all(dict(proposal.advanced).get(1, 0) <= signed_height for _, proposal in net.rounds())


def lying_header(net: Net) -> bytes:
    """Block n + 1 of shard 1, which changes a balance out of nothing and passes every header check."""
    cursor = net.tasks[1].committed
    record = net.read(Topic.BLOCKS, 1)[-1]
    last, _ = BlockHeader.from_record(record.value)
    touched = last.slots[0]
    tree = ShardTree(net.stores[1].shard_tree.slot_roots()).update({touched.slot: b"\x01" * 32})
    after = replace(cursor, height=cursor.height + 1)
    header = replace(
        last,
        height=cursor.height + 1,
        previous_hash=cursor.block_hash,
        inputs=tuple(replace(item, first=item.next, count=0, root=EMPTY_ROOT) for item in last.inputs),
        slots=(touched._replace(root=b"\x01" * 32),),
        state_root=tree.root,
        cursors_root=after.cursors_root(),
        channels_in=(),
        channels_out=(),
        counts=type(last.counts)(),
    )
    return header.to_bytes()


@pytest.mark.parametrize("assurance", [Assurance.HEADERS, Assurance.EXECUTION])
def test_only_execution_sees_a_lying_leader(assurance: Assurance) -> None:
    net = busy_net()
    sync = net.synchronizer(assurance=assurance)
    net.run(sync)
    height = sync.follower.ledger.shards[1].head.height
    net.log.append([Append(TopicPartition(Topic.BLOCKS, 1), None, frame_header(lying_header(net)))])
    net.run(sync, tasks=[])
    if assurance is Assurance.HEADERS:
        assert sync.follower.ledger.shards[1].head.height == height + 1
        assert {checkpoint.assurance for checkpoint, _ in net.rounds()} == {Assurance.HEADERS}
    else:
        assert sync.state is SyncState.HALTED
        assert f"shard 1 height {height + 1}" in str(sync.error)
        assert all(dict(proposal.advanced).get(1, 0) <= height for _, proposal in net.rounds())


@pytest.mark.parametrize(("place", "assurance"), [(0, Assurance.HEADERS), (1, Assurance.EXECUTION)])
def test_a_block_that_consumed_what_its_input_does_not_hold_halts(place: int, assurance: Assurance) -> None:
    net = busy_net()
    sync = net.synchronizer(assurance=assurance)
    net.run(sync)
    cursor = net.tasks[1].committed
    header, _ = BlockHeader.from_record(frame_header(lying_header(net)))
    inputs = list(header.inputs)
    inputs[place] = replace(inputs[place], next=10**6, count=1, root=bytes(32))
    positions = tuple(item.next for item in inputs)
    header = replace(
        header,
        inputs=tuple(inputs),
        slots=(),
        state_root=net.stores[1].state_root,
        counts=header.counts._replace(repeats=1),
        cursors_root=replace(cursor, height=header.height, positions=positions).cursors_root(),  # type: ignore[arg-type]
    )
    net.log.append([Append(TopicPartition(Topic.BLOCKS, 1), None, frame_header(header.to_bytes()))])
    net.run(sync, tasks=[])
    assert sync.state is SyncState.HALTED
    name = ("control-0", "relay-1")[place]
    assert f"shard 1 height {header.height} offset" in str(sync.error)
    assert f"consumed {name} to 1000000, which ends at" in str(sync.error)


def test_execution_survives_stores_behind_and_ahead() -> None:
    net, disk = busy_net(), MemoryKeyValue()
    stores = {shard: MemoryKeyValue() for shard in range(2)}
    sync = net.synchronizer(disk, assurance=Assurance.EXECUTION, stores=stores)
    net.run(sync)
    for _ in range(20):
        more(net, sync)
    assert_sound(net, sync)
    sync.close()
    stores[0] = MemoryKeyValue()  # lost: behind the signed head
    more(net)
    behind = net.synchronizer(disk, assurance=Assurance.EXECUTION, stores=stores)
    net.run(behind)
    assert_sound(net, behind)
    behind.close()
    again = net.synchronizer(assurance=Assurance.EXECUTION, stores=stores)  # stores ahead of an empty directory
    net.run(again)
    assert_sound(net, again)


def test_execution_halts_where_its_store_holds_another_history() -> None:
    net, other, disk = busy_net(), Net(shards=2), MemoryKeyValue()
    other.fund(dict.fromkeys(NAMES, 999))
    other.run()
    stores = {shard: MemoryKeyValue() for shard in range(2)}
    stranger = other.synchronizer(assurance=Assurance.EXECUTION, stores=stores)
    other.run(stranger)
    for behind in (False, True):
        if behind:
            more(net)
            net.run(net.synchronizer(disk))  # signed at HEADERS, so the stores are not at the signed heads
        sync = net.synchronizer(disk, assurance=Assurance.EXECUTION, stores=stores)
        net.run(sync)
        assert sync.state is SyncState.HALTED
        assert isinstance(sync.error, TaskDiverged)


def test_junk_among_checkpoints_changes_nothing() -> None:
    net = busy_net()
    sync = net.synchronizer()
    net.run(sync)
    checkpoint = net.rounds()[-1][0]
    target = TopicPartition(Topic.CHECKPOINTS, 0)
    follow_up = replace(checkpoint, round=checkpoint.round + 1, previous_hash=sync.follower.ledger.checkpoint_hash)
    mallory = key_of("mallory")
    forged = CheckpointProposal(follow_up.to_bytes(), ((0, 1),))
    signature = CheckpointSignature(
        follow_up.round, checkpoint_hash(forged.checkpoint), net.signatures()[0].signer, mallory.suite_id, bytes(32)
    )
    junk = [b"junk", None, forged.to_record(), forged.to_record(), signature.to_record()]
    net.log.append([Append(target, None, record) for record in junk])
    more(net, sync)
    assert sync.error is None
    again = net.synchronizer()
    more(net, again)
    assert again.error is None
    assert again.follower.ledger.round > checkpoint.round + 1


def test_a_sole_signer_that_executes_adopts_no_proposal_that_says_less() -> None:
    net = busy_net()
    weak = net.synchronizer(signer=None, assurance=Assurance.HEADERS)
    net.run(weak)
    weak.close()
    ((proposed, _),) = net.rounds()
    assert proposed.assurance is Assurance.HEADERS
    sync = net.synchronizer(assurance=Assurance.EXECUTION)
    net.run(sync)
    assert sync.error is None
    assert sync.follower.ledger.round == 0
    assert {Checkpoint.from_bytes(root.checkpoint).assurance for root in net.state_roots(0)} == {Assurance.EXECUTION}
