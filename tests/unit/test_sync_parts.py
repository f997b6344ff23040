"""Smaller parts: control feed, kept ledger, errors of a round task."""

from collections.abc import Callable

import pytest
from sync_net import Net, make_chain

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import ConfigError, Fatal, HauptbuchError, TaskDiverged, TransactionAbortable
from pipeline.kv.memory import MemoryKeyValue
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.shards.progress import Idle, Progress
from pipeline.sync import kept
from pipeline.sync.control_feed import ControlFeed
from pipeline.sync.ledger_follower import LedgerFollower
from pipeline.sync.life import SyncState
from pipeline.sync.round_task import RoundTask
from pipeline.sync.signed_ledger import SignedLedger
from pipeline.testing.suite import TEST_SUITES

CHAIN = make_chain()


def test_control_must_begin_with_genesis() -> None:
    log = EmbeddedLog(MemoryKeyValue())
    log.create_topic(Topic.CONTROL, 1)
    feed = ControlFeed(CHAIN, log, InlineVerifier(TEST_SUITES))
    assert not feed.poll()
    assert feed.after(0) == feed.newest == feed.at_sequence(0)
    assert feed.after(1) is None
    assert feed.at_sequence(1) is None
    assert feed.at_sequence(-1) is None
    log.append([Append(TopicPartition(Topic.CONTROL, 0), None, b"x")])
    with pytest.raises(TaskDiverged, match="another genesis"):
        feed.poll()


def test_kept_ledger_refuses_other_stores() -> None:
    other = MemoryKeyValue()
    other.write({b"\xff/format": b"log/1"}, sync=True)
    with pytest.raises(ConfigError, match="format"):
        kept.load(other, CHAIN)
    assert kept.load(MemoryKeyValue(), CHAIN).ledger.round == SignedLedger.start(CHAIN).round == -1


DAMAGE: list[tuple[str, Callable[[MemoryKeyValue], dict[bytes, bytes | None]]]] = [
    ("can't be read", lambda kv: {b"round": b"{"}),
    ("can't be read", lambda kv: {b"round": b"[]"}),
    ("head of shard 0", lambda kv: {b"h\x00\x00": None}),
    ("heads do not lead", lambda kv: {b"h\x00\x00": _flipped(kv.get(b"h\x00\x00"), 20)}),
    (
        "stand at their shard's index",
        lambda kv: {b"h\x00\x00": kv.get(b"h\x00\x01"), b"h\x00\x01": kv.get(b"h\x00\x00")},
    ),
    ("slot roots do not lead", lambda kv: {kv.scan(b"s", b"t", 1)[0][0]: b"\x01" * 32}),
    ("cursor and head", lambda kv: {b"h\x00\x00": _height_moved(kv.get(b"h\x00\x00"))}),
]


def _flipped(raw: bytes | None, at: int) -> bytes:
    assert raw is not None
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def _height_moved(raw: bytes | None) -> bytes:
    assert raw is not None
    assert raw.count(b'"height": ') == 1
    return raw.replace(b'"height": ', b'"height": 1')


@pytest.mark.parametrize(("complaint", "damage"), DAMAGE)
def test_damage_of_the_kept_ledger_is_named(
    complaint: str, damage: Callable[[MemoryKeyValue], dict[bytes, bytes | None]]
) -> None:
    net, kv = Net(shards=2), MemoryKeyValue()
    net.fund({"alice": 5, "bob": 5})
    sync = net.synchronizer(kv)
    net.run(sync)
    assert kept.load(kv, net.chain).ledger.checkpoint_hash == sync.follower.ledger.checkpoint_hash
    kv.write(damage(kv), sync=True)
    with pytest.raises(TaskDiverged, match=complaint) as caught:
        kept.load(kv, net.chain)
    assert "\n" not in str(caught.value)


def test_a_kept_ledger_of_another_chain_is_refused() -> None:
    net, kv = Net(shards=2), MemoryKeyValue()
    net.fund({"alice": 5})
    net.run(net.synchronizer(kv))
    with pytest.raises(TaskDiverged, match="another chain"):
        kept.load(kv, make_chain(3))


class Failing(RoundTask):
    """Raises what it is told to in its first steps."""

    def __init__(self, *errors: HauptbuchError) -> None:
        super().__init__(lambda: True)
        self.errors = list(errors)
        self.dropped = 0

    def _fence(self) -> LedgerFollower:
        if self.errors:
            raise self.errors.pop(0)
        net = Net(shards=1)
        return net.synchronizer()._fence()

    def _recover(self, follower: LedgerFollower, now_ms: int) -> Progress | Idle:
        self.state = SyncState.RUNNING
        return Progress()

    def _run(self, follower: LedgerFollower, now_ms: int) -> Progress | Idle:
        return Idle(now_ms)

    def _drop(self) -> None:
        self.dropped += 1


def test_an_aborted_transaction_starts_over_after_a_while() -> None:
    task = Failing(TransactionAbortable("aborted"))
    assert task.step(1000) == Idle(1200)
    assert task.step(1100) == Idle(1200)
    assert (task.state, task.dropped) == (SyncState.FENCING, 1)
    assert task.step(1200) == Progress()
    assert task.step(1200) == Progress()
    assert (task.state, task.error) == (SyncState.RUNNING, None)


def test_a_fatal_error_halts_and_is_raised() -> None:
    task = Failing(Fatal("disk full"))
    with pytest.raises(Fatal, match="disk full"):
        task.step(0)
    assert task.state is SyncState.HALTED
    assert task.step(0) == Idle()
    task.close()
    assert task.state is SyncState.HALTED
