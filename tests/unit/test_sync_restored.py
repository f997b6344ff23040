"""A signer whose directory or log is lost or restored, or whose key is used twice: it never contradicts itself."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sync_net import Net, key_of
from sync_rounds import busy_net, more

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import Hash32
from pipeline.crypto import contexts
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import TaskDiverged
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.checkpoints import (
    Assurance,
    Checkpoint,
    CheckpointProposal,
    CheckpointSignature,
    StateRoot,
    checkpoint_hash,
)
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.sync import own_signatures
from pipeline.sync.life import SyncState
from pipeline.sync.own_signatures import OwnSignatures
from pipeline.sync.round_book import CHECKPOINTS
from pipeline.sync.signer import Signer
from pipeline.sync.signer_guard import SignerGuard
from pipeline.testing.suite import TEST_SUITES


def guard_of(net: Net, kv: MemoryKeyValue) -> SignerGuard:
    guard = SignerGuard(net.chain, net.log, kv, Signer(key_of("attestor")), InlineVerifier(TEST_SUITES))
    guard.recover()
    return guard


def test_a_signer_that_reads_many_rounds_holds_few_proposals_and_forgets_none_that_matters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also not where somebody made up a proposal of a round far ahead."""
    net = busy_net()
    sync = net.synchronizer()
    net.run(sync)
    checkpoint, proposal = net.rounds()[-1]
    key, target = key_of("attestor"), TopicPartition(Topic.CHECKPOINTS, 0)
    ahead = replace(proposal, checkpoint=replace(checkpoint, round=2**50).to_bytes())
    net.log.append([Append(target, None, ahead.to_record())])
    for number in range(checkpoint.round + 1, checkpoint.round + 301):
        datum = replace(checkpoint, round=number).to_bytes()
        hashed, signature = checkpoint_hash(datum), key.sign(datum, contexts.CHECKPOINT)
        signed = CheckpointSignature(number, hashed, Signer(key).key_id, key.suite_id, signature)
        records = [replace(proposal, checkpoint=datum).to_record(), signed.to_record()]
        net.log.append([Append(target, None, record) for record in records])
    held: list[int] = []
    digests: list[int] = []
    monkeypatch.setattr(own_signatures, "MOST_DIGESTS", 40)
    real = OwnSignatures._adopt

    def adopt(self: OwnSignatures, number: int, digest: Hash32) -> None:
        held.append(len(self._proposals))
        real(self, number, digest)
        digests.append(len(self._digests))

    monkeypatch.setattr(OwnSignatures, "_adopt", adopt)
    guard = guard_of(net, MemoryKeyValue())
    assert len(held) > 300
    assert max(held) < 150
    assert max(digests) == 40
    last = guard.open_proposal(checkpoint.round + 299, Hash32(bytes(32)))
    assert last is not None
    assert Checkpoint.from_bytes(last.checkpoint).round == checkpoint.round + 300


def test_a_signer_restored_from_an_old_backup_adopts_what_it_signed() -> None:
    net = busy_net()
    sync = net.synchronizer()
    net.run(sync)
    plan_round = sync.follower.ledger.round
    more(net)
    follower = sync.follower
    follower.poll(net.now_ms)
    plan = follower.plan(follower.next_cut(), net.now_ms, Assurance.HEADERS)
    guard = guard_of(net, MemoryKeyValue())  # an empty backup: the log alone remembers
    old = replace(plan, after=replace(plan.after, round=plan_round, checkpoint_hash=bytes(32)))
    with pytest.raises(TaskDiverged, match="refused to sign"):
        guard.sign(old, 0)
    assert guard.sign(plan, 0).round == plan_round + 1
    other = replace(plan, after=replace(plan.after, checkpoint_hash=bytes(32)))
    with pytest.raises(TaskDiverged, match="refused to sign"):
        guard.sign(other, 0)
    assert guard.sign(plan, 0).round == plan_round + 1


class AbortedLog(EmbeddedLog):
    """With records of a transaction that was written and aborted."""

    def __init__(self) -> None:
        super().__init__(MemoryKeyValue())
        self.aborted: list[LogRecord] = []

    def read_uncommitted(self, source: TopicPartition, start: int) -> Iterator[LogRecord]:
        yield from super().read_uncommitted(source, start)
        yield from self.aborted if source == CHECKPOINTS else []


def test_a_signature_whose_transaction_was_aborted_binds_who_lost_his_directory() -> None:
    log = AbortedLog()
    net = busy_net(log=log)
    sync = net.synchronizer()
    net.run(sync)
    more(net)
    follower = sync.follower
    follower.poll(net.now_ms)
    plan = follower.plan(follower.next_cut(), net.now_ms, Assurance.HEADERS)
    guard = guard_of(net, MemoryKeyValue())
    signature = guard.sign(plan, 0)
    sync.close()
    end = log.end_offset(CHECKPOINTS)
    values = [plan.proposal.to_record(), signature.to_record()]
    log.aborted = [LogRecord(end + place, None, value) for place, value in enumerate(values)]
    more(net)
    again = net.synchronizer(MemoryKeyValue())
    net.run(again)
    assert again.error is None
    assert plan.round in {checkpoint.round for checkpoint, _ in net.rounds()}
    assert plan.proposal in [proposal for _, proposal in net.rounds()], "the same bytes, not a second checkpoint"
    assert again.follower.ledger.round > plan.round


def test_a_log_restored_from_an_old_backup_halts_its_signer() -> None:
    net, disk = busy_net(), MemoryKeyValue()
    sync = net.synchronizer(disk)
    net.run(sync)
    old = {topic: [net.read(topic, p) for p in range(net.log.partitions(topic))] for topic in Topic}
    more(net, sync)
    more(net, sync)
    sync.close()
    log = EmbeddedLog(MemoryKeyValue())
    for topic, partitions in old.items():
        log.create_topic(topic, len(partitions))
        for partition, records in enumerate(partitions):
            target = TopicPartition(topic, partition)
            log.append([Append(target, record.key, record.value) for record in records])
    net.log = log
    guard_only = MemoryKeyValue()  # the ledger is rebuilt; the guard's memory is not
    guard_only.write({b"\xff/format": b"sync/1", **dict(disk.scan(b"g", b"h", 100))}, sync=True)
    for kv in (disk, guard_only):
        again = net.synchronizer(kv)
        net.run(again, tasks=[])
        assert again.state is SyncState.HALTED
        assert isinstance(again.error, TaskDiverged)


@pytest.mark.parametrize("lost", [False, True], ids=["local memory", "the log alone"])
def test_another_block_of_a_signed_height_is_refused(lost: bool) -> None:
    net = busy_net()
    sync = net.synchronizer(kv := MemoryKeyValue())
    net.run(sync)
    more(net)
    follower = sync.follower
    follower.poll(net.now_ms)
    plan = follower.plan(follower.next_cut(), net.now_ms, Assurance.HEADERS)
    guard = guard_of(net, MemoryKeyValue() if lost else kv)
    shard = plan.after.advanced[0]
    head = plan.after.shards[shard].head
    forks = [
        replace(head, previous_block_hash=bytes(32)),
        replace(head, height=head.previous_height, block_hash=bytes(32)),
        replace(head, height=0, previous_height=-1),
    ]
    for fork in forks:
        shards = list(plan.after.shards)
        shards[shard] = shards[shard]._replace(head=fork)
        with pytest.raises(TaskDiverged, match="another history was signed"):
            guard.sign(replace(plan, after=replace(plan.after, shards=tuple(shards))), 0)


def test_only_own_signatures_say_which_blocks_were_signed() -> None:
    net = busy_net()
    sync = net.synchronizer()
    net.run(sync)
    true = net.state_roots(0)[-1]
    root = StateRoot.from_bytes(true.state_root)
    height, block_hash = root.height, root.block_hash
    checkpoint = Checkpoint.from_bytes(true.checkpoint)
    far = replace(root, height=10**9).to_bytes()
    forged = [
        b"junk",
        replace(true, state_root=far).to_record(),
        replace(true, path=()).to_record(),
        replace(true, checkpoint=replace(checkpoint, round=10**6).to_bytes(), state_root=far).to_record(),
    ]
    net.log.append([Append(TopicPartition(Topic.STATE_ROOTS, 0), None, record) for record in forged])
    kv = MemoryKeyValue()
    guard_of(net, kv)
    assert kv.get(b"g/head/\x00\x00") == height.to_bytes(8, "big") + block_hash
    kv.write({b"g/head/\x00\x00": height.to_bytes(8, "big") + bytes(32)}, sync=True)
    with pytest.raises(TaskDiverged, match=f"signed two blocks of height {height}"):
        guard_of(net, kv)


def test_a_key_used_in_two_places_is_noticed() -> None:
    net = busy_net()
    sync = net.synchronizer()
    net.run(sync)
    signer, target = Signer(key_of("attestor")), TopicPartition(Topic.CHECKPOINTS, 0)
    last = net.rounds()[-1][0]
    twin = CheckpointProposal(replace(last, timestamp_ms=last.timestamp_ms + 1).to_bytes(), ((0, 1),))
    signature = CheckpointSignature(
        last.round,
        checkpoint_hash(twin.checkpoint),
        signer.key_id,
        signer.suite,
        key_of("attestor").sign(twin.checkpoint, contexts.CHECKPOINT),
    )
    net.log.append([Append(target, None, twin.to_record()), Append(target, None, signature.to_record())])
    with pytest.raises(TaskDiverged, match="signed two checkpoints"):
        guard_of(net, MemoryKeyValue())
