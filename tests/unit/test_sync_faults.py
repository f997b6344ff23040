"""The one-signer synchronizer under crashes, zombies, unknown outcomes and damage."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from sync_net import Net, key_of, signer_key
from sync_rounds import NAMES, assert_sound, busy_net, more

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.errors import OutcomeUnknown, Retryable, TaskDiverged, TaskFenced, TransactionAbortable
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.checkpoints import (
    Assurance,
)
from pipeline.ledger.writers import signer_writer
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append, Committed, TransactionalWriter
from pipeline.shards.progress import Idle, Progress
from pipeline.sync import synchronizer
from pipeline.sync.life import SyncState
from pipeline.sync.published import state_roots_stand
from pipeline.sync.settings import SyncConfig
from pipeline.sync.signed_ledger import SignedLedger
from pipeline.sync.signer import Signer
from pipeline.sync.synchronizer import Synchronizer
from pipeline.testing.faulty_kv import FaultyKeyValue, SimulatedCrash


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


def test_who_is_many_rounds_behind_looks_once_which_roots_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    net, disk = busy_net(), MemoryKeyValue()
    first = net.synchronizer(disk)
    net.run(first)
    first.close()
    other = net.synchronizer()
    for _ in range(6):
        more(net, other)
    other.close()
    looked: list[int] = []

    def stand(log: EmbeddedLog, ledger: SignedLedger) -> bool:
        looked.append(ledger.round)
        return state_roots_stand(log, ledger)

    monkeypatch.setattr(synchronizer, "state_roots_stand", stand)
    again = net.synchronizer(disk)
    net.run(again)
    assert looked == [len(net.rounds()) - 1]
    assert_sound(net, again)
