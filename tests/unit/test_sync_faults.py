"""The one-signer synchronizer under crashes, zombies, old backups, damage and forgery."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from sync_net import Net, address_of_key, key_of, signer_key

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import Hash32, ShardId
from pipeline.crypto import contexts
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import OutcomeUnknown, Retryable, TaskDiverged, TaskFenced, TransactionAbortable
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.blocks import BlockHeader, frame_header
from pipeline.ledger.checkpoints import (
    Assurance,
    Checkpoint,
    CheckpointProposal,
    CheckpointSignature,
    StateRoot,
    checkpoint_hash,
)
from pipeline.ledger.packing import RELAY_ENTRY
from pipeline.ledger.relay import EffectKind, RelayBundle, RelayGroup, channel_start, encode_groups
from pipeline.ledger.writers import signer_writer
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append, Committed, TransactionalWriter
from pipeline.shards.progress import Idle, Progress
from pipeline.sync import own_signatures
from pipeline.sync.life import SyncState
from pipeline.sync.own_signatures import OwnSignatures
from pipeline.sync.round_book import CHECKPOINTS
from pipeline.sync.settings import SyncConfig
from pipeline.sync.signer import Signer
from pipeline.sync.signer_guard import SignerGuard
from pipeline.sync.synchronizer import Synchronizer
from pipeline.testing.faulty_kv import FaultyKeyValue, SimulatedCrash
from pipeline.testing.suite import TEST_SUITES
from pipeline.tree.rfc6962 import EMPTY_ROOT
from pipeline.tree.shard_tree import ShardTree

NAMES = [f"account-{number}" for number in range(8)]


def busy_net(rounds: int = 1, log: EmbeddedLog | None = None) -> Net:
    net = Net(shards=2, log=log)
    net.fund(dict.fromkeys(NAMES, 1000))
    net.run()
    for _ in range(rounds):
        more(net)
    return net


def more(net: Net, *others: object) -> None:
    for name in NAMES:
        net.pay(name, dict.fromkeys(NAMES, 1))
    net.run(*others)


def assert_sound(net: Net, sync: Synchronizer) -> None:
    """Rounds without a gap, each once and signed once, everything signed, state roots for all that advanced."""
    assert sync.error is None
    assert sync.follower is not None
    rounds = net.rounds()
    assert [checkpoint.round for checkpoint, _ in rounds] == list(range(len(rounds)))
    hashes = [checkpoint_hash(proposal.checkpoint) for _, proposal in rounds]
    assert [item.checkpoint_hash for item in net.signatures()] == hashes
    for shard, task in enumerate(net.tasks):
        assert task.error is None
        head = sync.follower.ledger.shards[shard].head
        assert (head.height, head.state_root) == (task.committed.height, net.stores[shard].state_root)
        advanced = [item.round for item, proposal in rounds if shard in dict(proposal.advanced)]
        assert [Checkpoint.from_bytes(item.checkpoint).round for item in net.state_roots(shard)] == advanced


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("crash_at", range(1, 10))
def test_a_crash_at_every_write_is_healed_by_a_restart(crash_at: int, when: str) -> None:
    net, disk = Net(shards=2), MemoryKeyValue()
    net.fund(dict.fromkeys(NAMES, 1000))
    sync = net.synchronizer(FaultyKeyValue(disk, crash_at=crash_at, when=when))
    try:
        for _ in range(3):
            more(net, sync)
        crashed = False
    except SimulatedCrash:
        crashed = True
        disk.crash()  # what was not synced is lost too
        disk = disk.reopen()
        sync = net.synchronizer(disk)
    assert crashed == (crash_at <= 9)
    more(net, sync)
    assert_sound(net, sync)


def test_an_empty_directory_is_rebuilt_from_the_log() -> None:
    net = busy_net()
    first = net.synchronizer()
    net.run(first)
    more(net, first)
    before = first.follower.ledger
    again = net.synchronizer()
    net.run(again)
    after = again.follower.ledger
    assert (after.round, after.checkpoint_hash, after.shards, after.in_flight) == (
        before.round,
        before.checkpoint_hash,
        before.shards,
        before.in_flight,
    )
    assert after.tree.root == before.tree.root
    more(net, again)
    assert_sound(net, again)


def test_a_reopened_directory_continues_where_it_was() -> None:
    net, disk = busy_net(), MemoryKeyValue()
    first = net.synchronizer(disk)
    net.run(first)
    ledger = first.follower.ledger
    first.close()
    assert first.step(net.now_ms) == Idle()
    again = net.synchronizer(disk)
    again.step(net.now_ms)
    assert again.follower.ledger == replace(ledger, tree=again.follower.ledger.tree)
    more(net, again)
    assert_sound(net, again)


@pytest.mark.parametrize("prefix", [b"s", b"h", b"c", b"round"])
def test_a_damaged_directory_halts(prefix: bytes) -> None:
    net, disk = busy_net(), MemoryKeyValue()
    sync = net.synchronizer(disk)
    net.run(sync, tasks=[])
    for partial in range(200):  # stop while bundles are in flight, so that there are channels to damage
        if disk.scan(b"c", b"d", 1):
            break
        net.pay(NAMES[partial % 8], dict.fromkeys(NAMES, 1))
        net.run(sync, tasks=net.tasks[partial % 2 : partial % 2 + 1], ms=3)
    sync.close()
    key, value = disk.scan(prefix, prefix + b"\xff", 1)[0]
    disk.write({key: value[:-1] + bytes([value[-1] ^ 1])}, sync=True)
    again = net.synchronizer(disk)
    net.run(again)
    assert again.state is SyncState.HALTED
    assert isinstance(again.error, TaskDiverged)
    assert again.step(net.now_ms) == Idle()


def test_the_second_synchronizer_fences_the_first() -> None:
    net = busy_net()
    zombie = net.synchronizer()
    net.run(zombie)
    owner = net.synchronizer()
    net.run(owner)
    more(net, owner)
    net.run(zombie)
    assert zombie.state is SyncState.FENCED
    assert isinstance(zombie.error, TaskFenced)
    more(net, owner, zombie)
    assert_sound(net, owner)


def asked(net: Net, still_owner: Callable[[], bool]) -> Synchronizer:
    """A synchronizer that can ask whether it still has the role."""
    return Synchronizer(
        net.chain,
        net.log,
        MemoryKeyValue(),
        Signer(key_of("attestor")),
        Assurance.HEADERS,
        net.verifier,
        SyncConfig(round_linger_ms=1),
        still_owner=still_owner,
    )


def test_one_that_is_still_the_owner_fences_again() -> None:
    net = busy_net()
    sync = asked(net, lambda: True)
    net.run(sync)
    net.log.writer(signer_writer(net.chain.chain_id, signer_key("attestor").key_id))
    for name in NAMES:
        net.pay(name, {"bob": 1})
    net.run(sync, ms=400)
    assert sync.state is SyncState.RUNNING
    assert_sound(net, sync)


class FlakyWriter:
    """Fails once at a commit when its log is armed, before or after the commit happened."""

    def __init__(self, log: "FlakyLog", inner: TransactionalWriter) -> None:
        self.log, self.inner = log, inner

    def begin_commit(self, appends: Sequence[Append]) -> None:
        error = self.log.error if self.log.armed else None
        if error is None or self.log.happened:
            self.inner.begin_commit(appends)
        if error is not None:
            self.log.error = None
            raise error

    def poll_commit(self) -> Committed | None:
        return self.inner.poll_commit()

    def close(self) -> None:
        self.inner.close()


class FlakyLog(EmbeddedLog):
    """Its signer's writer fails once."""

    def __init__(self, error: Exception, happened: bool) -> None:
        super().__init__(MemoryKeyValue())
        self.error: Exception | None = error
        self.happened = happened
        self.armed = False

    def writer(self, writer_id: str) -> TransactionalWriter:
        writer = super().writer(writer_id)
        return FlakyWriter(self, writer) if "-signer-" in writer_id else writer


@pytest.mark.parametrize(
    ("error", "happened"),
    [(OutcomeUnknown("?"), True), (OutcomeUnknown("?"), False), (Retryable("again"), False)],
)
def test_an_unknown_outcome_is_read_from_the_log(error: Exception, happened: bool) -> None:
    net = Net(shards=2, log=FlakyLog(error, happened))
    net.fund(dict.fromkeys(NAMES, 1000))
    sync = net.synchronizer()
    net.run(sync)
    net.log.armed = True
    more(net, sync)
    net.run(sync, ms=400)
    assert net.log.error is None
    assert_sound(net, sync)


class SlowWriter(FlakyWriter):
    """Tells of no commit while its log holds it back."""

    def poll_commit(self) -> Committed | None:
        return None if self.log.armed else self.inner.poll_commit()


class SlowLog(FlakyLog):
    """Rounds stand on it before their proposer hears of it."""

    def __init__(self) -> None:
        super().__init__(RuntimeError("never raised"), happened=True)
        self.error = None

    def writer(self, writer_id: str) -> TransactionalWriter:
        writer = super().writer(writer_id)
        return SlowWriter(self, writer.inner) if isinstance(writer, FlakyWriter) else writer


def test_the_next_rounds_blocks_are_checked_while_a_round_is_being_committed() -> None:
    net = Net(shards=2, log=SlowLog())
    net.fund(dict.fromkeys(NAMES, 1000))
    sync = net.synchronizer()
    net.run(sync)
    signed_round, rounds = sync.follower.ledger.round, len(net.rounds())
    net.log.armed = True
    more(net, sync)  # its first round stands on the log, and nobody says so
    assert len(net.rounds()) == rounds + 1
    waiting = sync.follower.unsigned_blocks
    more(net, sync)
    assert sync.follower.unsigned_blocks > waiting > 0
    assert sync.step(net.now_ms) == Idle()  # the log wakes it, no timer
    assert (sync.follower.ledger.round, len(net.rounds())) == (signed_round, rounds + 1)
    net.log.armed = False
    assert isinstance(sync.step(net.now_ms), Progress)
    net.run(sync, ms=400)
    assert sync.follower.unsigned_blocks == 0
    assert len(net.rounds()) == rounds + 2  # those that waited are one round
    assert_sound(net, sync)


@pytest.mark.parametrize("error", [OutcomeUnknown("?"), TransactionAbortable("aborted")])
def test_a_zombie_does_not_fence_the_owner_after_an_unknown_outcome(error: Exception) -> None:
    net = Net(shards=2, log=FlakyLog(error, happened=False))
    net.fund(dict.fromkeys(NAMES, 1000))
    replaced = False
    zombie = asked(net, lambda: not replaced)
    net.run(zombie)
    net.log.armed = True
    net.pay(NAMES[0], {"bob": 1})
    net.run(zombie, ms=20)
    assert zombie.state is SyncState.FENCING
    replaced, owner = True, net.synchronizer()
    net.run(owner)
    net.run(zombie, ms=400)
    assert zombie.state is SyncState.FENCED
    assert isinstance(zombie.error, TaskFenced)
    more(net, owner, zombie)
    assert owner.state is SyncState.RUNNING
    assert_sound(net, owner)


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


def test_a_block_ahead_of_the_clock_waits() -> None:
    net = busy_net()
    sync = net.synchronizer()
    net.run(sync)
    rounds = len(net.rounds())
    behind_ms = net.now_ms
    net.now_ms += 60_000
    for name in NAMES:
        net.pay(name, {"bob": 1})
    net.run()
    for _ in range(50):
        sync.step(behind_ms)
    assert len(net.rounds()) == rounds
    assert sync.error is None
    net.run(sync)
    assert_sound(net, sync)
    assert len(net.rounds()) > rounds


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


def test_missing_state_roots_are_published_after_a_restart() -> None:
    net = busy_net()
    sync = net.synchronizer()
    net.run(sync)
    log = EmbeddedLog(MemoryKeyValue())
    for topic in Topic:
        log.create_topic(topic, net.log.partitions(topic))
        for partition in range(net.log.partitions(topic)):
            if topic is not Topic.STATE_ROOTS:
                target = TopicPartition(topic, partition)
                log.append([Append(target, record.key, record.value) for record in net.read(topic, partition)])
    before = [net.state_roots(shard)[-1].to_bytes() for shard in range(2)]
    net.log = log
    again = net.synchronizer()
    net.run(again, tasks=[])
    last = net.rounds()[-1][1]
    for shard, _ in last.advanced:
        assert net.state_roots(shard)[-1].to_bytes() == before[shard]


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
