"""EXECUTION is never signed over what was not executed: stores ahead of the signed head, and heads that stay."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from sync_net import Net, key_of
from sync_rounds import NAMES, busy_net, more
from test_sync_lies import lying_header

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.errors import Retryable, TaskDiverged
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.blocks import BlockHeader, frame_header
from pipeline.ledger.checkpoints import Assurance
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.sync import execution, shard_track
from pipeline.sync.attestor import Attestor
from pipeline.sync.life import SyncState
from pipeline.sync.settings import SyncConfig
from pipeline.sync.signer import Signer
from pipeline.sync.synchronizer import Synchronizer
from pipeline.tree.rfc6962 import EMPTY_ROOT

BLOCKS = TopicPartition(Topic.BLOCKS, 1)
HOUR_MS = 3_600_000


class ShyLog(EmbeddedLog):
    """Shows nothing of one partition from an offset on, as while a transaction is open."""

    hidden: TopicPartition | None = None
    start = 0
    forged: Sequence[bytes] = ()

    def read(self, source: TopicPartition, offset: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        if self.forged and source == BLOCKS:
            true = super().read(source, 0, 1 << 20, 1 << 30)
            records = [item for item in true if item.offset < self.start]
            records += [LogRecord(self.start + at, None, value) for at, value in enumerate(self.forged)]
            return [item for item in records if item.offset >= offset][:max_records]
        records = super().read(source, offset, max_records, max_bytes)
        return [item for item in records if source != self.hidden or item.offset < self.start]

    def settle(self, source: TopicPartition) -> None:
        if source == self.hidden:
            raise Retryable("a transaction is open")
        super().settle(source)

    def end_offset(self, source: TopicPartition) -> int:
        if self.forged and source == BLOCKS:
            return self.start + len(self.forged)
        return self.start if source == self.hidden else super().end_offset(source)


class Ahead:
    """Two attestors whose stores are ahead of the signed heads, and the log as it was at these."""

    def __init__(self) -> None:
        self.net = Net(2, ("one", "two", "three"), threshold=2, log=ShyLog(MemoryKeyValue()))
        self.net.fund(dict.fromkeys(NAMES, 1000))
        self.net.run()
        more(self.net)
        self._disks = {name: MemoryKeyValue() for name in ("one", "two")}
        self._stores = {name: {shard: MemoryKeyValue() for shard in range(2)} for name in self._disks}
        self.lie = BlockHeader.from_bytes(lying_header(self.net))
        self.lie_cursor = self.net.tasks[1].committed
        self.before = self.net.log.end_offset(BLOCKS)
        for _ in range(3):
            more(self.net)
        attestors = self.attestors()
        self.net.run(*attestors)  # nobody proposes
        self.height = attestors[0].follower.tracks[1].checked_height
        assert self.height > self.lie.height + 1
        for attestor in attestors:
            attestor.close()

    def attestors(self) -> list[Attestor]:
        return [
            Attestor(
                self.net.chain,
                self.net.log,
                disk,
                Signer(key_of(name)),
                Assurance.EXECUTION,
                self.net.verifier,
                SyncConfig(round_linger_ms=1),
                lambda shard, name=name: self.net.store_for(shard, self._stores[name][shard]),
            )
            for name, disk in self._disks.items()
        ]

    def forge(self, headers: Sequence[BlockHeader]) -> None:
        """Whoever owns the brokers cuts the blocks of shard 1 at its last signed one, and writes others."""
        log = self.net.log
        log.start, log.forged = self.before, [frame_header(header.to_bytes()) for header in headers]

    def lies(self, count: int, last_ahead_ms: int = 0) -> list[BlockHeader]:
        """Blocks that chain, from the first lie on."""
        found = [self.lie]
        while len(found) < count:
            last = found[-1]
            _, last_hash = BlockHeader.from_record(frame_header(last.to_bytes()))
            cursor = replace(self.lie_cursor, height=last.height + 1)
            found.append(
                replace(last, height=cursor.height, previous_hash=last_hash, cursors_root=cursor.cursors_root())
            )
        found[-1] = replace(found[-1], timestamp_ms=found[-1].timestamp_ms + last_ahead_ms)
        assert all(item.root == EMPTY_ROOT for item in found[-1].inputs)
        return found

    def signed(self) -> int:
        return len(self.net.signatures())


def false_proposer(net: Net) -> Synchronizer:
    """Whoever may write to `checkpoints` claims EXECUTION, and does not execute."""
    proposer = net.synchronizer(signer=None, assurance=Assurance.HEADERS)
    proposer.step(net.now_ms)
    proposer._assurance = Assurance.EXECUTION  # only what its proposals say: it has its follower
    return proposer


def drive(ahead: Ahead, attestors: list[Attestor]) -> None:
    """The proposer finds the lie good."""
    proposer = false_proposer(ahead.net)
    ahead.net.run(proposer, *attestors, tasks=[])
    assert proposer.error is None
    assert dict(ahead.net.rounds()[-1][1].advanced)[1] >= ahead.lie.height


@pytest.mark.parametrize("whole", [False, True], ids=["ends below the store", "goes on to the store"])
def test_forged_blocks_below_the_stores_own_halt_unsigned(whole: bool) -> None:
    ahead = Ahead()
    ahead.forge(ahead.lies(ahead.height - ahead.lie.height + 1 if whole else 1))
    attestors = ahead.attestors()
    drive(ahead, attestors)
    for attestor in attestors:
        assert attestor.state is SyncState.HALTED
        assert isinstance(attestor.error, TaskDiverged)
        what = "executed another block of this height" if whole else "which the log does not hold"
        assert what in str(attestor.error)
        assert str(attestor.error).startswith(f"shard 1{f' height {ahead.height}' if whole else ''}")
    assert ahead.signed() == 0


def test_forged_blocks_are_unsigned_while_the_rest_waits() -> None:
    ahead = Ahead()
    ahead.forge(ahead.lies(2, last_ahead_ms=HOUR_MS))  # the second is ahead of every clock
    attestors = ahead.attestors()
    drive(ahead, attestors)
    assert all(attestor.state is SyncState.RUNNING for attestor in attestors)
    assert ahead.signed() == 0


def test_a_store_ahead_waits_for_hidden_blocks_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_track, "_READ_AHEAD", 1)
    ahead = Ahead()
    log = ahead.net.log
    log.hidden, log.start = BLOCKS, ahead.net.read(Topic.BLOCKS, 1)[-1].offset
    attestors = ahead.attestors()
    proposer = false_proposer(ahead.net)
    ahead.net.run(proposer, *attestors, tasks=[], ms=500)
    assert ahead.net.rounds()
    assert (ahead.signed(), [attestor.error for attestor in attestors]) == (0, [None, None])
    log.hidden = None
    ahead.net.run(proposer, *attestors, tasks=[], ms=2500)
    assert [attestor.error for attestor in attestors] == [None, None]
    assert attestors[0].follower.ledger.shards[1].head.height == ahead.height


def test_a_store_further_ahead_than_blocks_go_unsigned_halts() -> None:
    net, stores = busy_net(3), {shard: MemoryKeyValue() for shard in range(2)}
    net.run(net.synchronizer(signer=None, assurance=Assurance.EXECUTION, stores=stores), tasks=[])
    sync = net.synchronizer(assurance=Assurance.EXECUTION, stores=stores)
    sync._config = SyncConfig(round_linger_ms=1, max_unsigned=1)
    net.log = sync._log
    net.run(sync, tasks=[])
    assert sync.state is SyncState.HALTED
    assert "checkpoints topic was truncated or replaced" in str(sync.error)


def with_signed_headers(shy: ShyLog, forged: bool) -> tuple[Net, MemoryKeyValue]:
    """Shard 1 is signed at HEADERS, with a block that consumed what does not exist if `forged`; shard 0 goes on."""
    net, disk = Net(shards=2, log=shy), MemoryKeyValue()
    net.fund(dict.fromkeys(NAMES, 1000))
    net.run()
    more(net)
    if forged:
        header = BlockHeader.from_bytes(lying_header(net))
        inputs = list(header.inputs)
        inputs[1] = replace(inputs[1], next=10**6, count=1, root=bytes(32))
        control, relay, transactions = [item.next for item in inputs]
        after = replace(net.tasks[1].committed, height=header.height, positions=(control, relay, transactions))
        counts = header.counts._replace(repeats=1)
        header = replace(header, inputs=tuple(inputs), counts=counts, cursors_root=after.cursors_root())
        net.log.append([Append(BLOCKS, None, frame_header(header.to_bytes()))])
    sync = net.synchronizer(disk)
    net.run(sync, tasks=[])
    sync.close()
    net.fund({NAMES[0]: 1, NAMES[1]: 1})
    net.run(tasks=[net.tasks[net.chain.shard_map.owner_of(net.chain.genesis.treasury)]])
    return net, disk


def test_signed_blocks_that_can_not_be_executed_halt_the_next_round() -> None:
    net, disk = with_signed_headers(ShyLog(MemoryKeyValue()), forged=True)
    rounds = len(net.rounds())
    sync = net.synchronizer(disk, assurance=Assurance.EXECUTION)
    net.run(sync, tasks=[])
    assert sync.state is SyncState.HALTED
    assert "consumed relay-1 to 1000000, which ends at" in str(sync.error)
    assert len(net.rounds()) == rounds


def test_no_round_is_begun_over_heads_that_stay_and_are_not_executed_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, disk = with_signed_headers(log := ShyLog(MemoryKeyValue()), forged=False)
    treasury = net.chain.shard_map.owner_of(net.chain.genesis.treasury)
    rounds = len(net.rounds())
    log.hidden = TopicPartition(Topic.TRANSACTIONS, 1 - treasury)
    # As if the end, asked once more, had moved: an open transaction is waited for.
    monkeypatch.setattr(execution, "require_end", lambda *_: None)
    sync = net.synchronizer(disk, assurance=Assurance.EXECUTION)
    net.run(sync, tasks=[])
    assert sync.state is SyncState.RUNNING
    assert (sync.follower.unsigned_blocks > 0, len(net.rounds())) == (True, rounds)
    log.hidden = None
    net.run(sync, tasks=[], ms=1500)
    assert sync.error is None
    assert net.rounds()[-1][0].assurance is Assurance.EXECUTION
