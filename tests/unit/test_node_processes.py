"""Worker, synchronizer, attestors and replica together on one log, without a cluster."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from node_bed import BOTH, NEW, Bed, Deal, leads

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.config import Config
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import ConfigError, LogStalled, Retryable, TaskDiverged, TaskFenced
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.checkpoints import Assurance
from pipeline.log.embedded import EmbeddedLog
from pipeline.node.layout import NodeLayout
from pipeline.node.replica import Replica, ReplicaReader
from pipeline.node.signing import SigningNode
from pipeline.node.stores import Stores
from pipeline.node.worker import Worker
from pipeline.shards.life import TaskState
from pipeline.shards.progress import Idle
from pipeline.shards.recovery import Following
from pipeline.shards.signed_roots import SignedRoots


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path)
    yield bed
    bed.log.close()


def test_shards_are_led_signed_by_a_quorum_and_followed(bed: Bed) -> None:
    worker, deal = bed.worker("w", BOTH | {ShardId(2)})
    sync, first, second = bed.signing(None), bed.signing("attestor"), bed.signing("attestor-2")
    nodes = (worker, sync, first, second)
    roots = SignedRoots(bed.chain, bed.log, InlineVerifier(STANDARD_SUITES))
    bed.drive(lambda: all(roots.newest(shard) is not None for shard in BOTH), *nodes)
    assert leads(worker, 0, 1)  # 2 is idle and has no task
    bed.now_ms += 1_000
    worker.step(bed.now_ms)
    assert set(deal.told) == BOTH
    head = roots.newest_head(0)
    assert head is not None
    assert head.checkpoint.assurance is Assurance.EXECUTION

    layout = NodeLayout(bed.root / "replica")
    layout.root.mkdir()
    layout.genesis.write_bytes(bed.chain.genesis.to_record())
    replica = Replica(layout, Config(), bed.log)
    replica.catch_up()
    assert [task.committed for task in replica.tasks] == [worker.tasks[shard].committed for shard in sorted(BOTH)]
    bed.now_ms += bed.chain.genesis.heartbeat_ms
    before = replica.tasks[0].committed.height
    bed.drive(lambda: replica.tasks[0].committed.height > before, worker, replica)
    assert not replica.run_until(lambda: False, 1)
    replica.close()
    for node in nodes:
        node.close()
    reader = ReplicaReader(layout, Config(), bed.log)  # goes on where the stores stand
    assert reader.cursor(0).height > before
    assert len(reader.stores) == 2
    assert reader.account(bed.chain.genesis.treasury) is not None
    reader.close()


def test_a_shard_goes_from_one_worker_to_another_whose_stores_are_empty(bed: Bed) -> None:
    one, first = bed.worker("one", BOTH)
    two, second = bed.worker("two", frozenset())
    bed.drive(lambda: leads(one, 0, 1) and one.tasks[ShardId(0)].committed.height == 0, one, two)
    first.give(frozenset({ShardId(1)}))
    second.give(frozenset({ShardId(0)}))
    bed.drive(lambda: leads(one, 1) and leads(two, 0), one, two)
    assert two.tasks[ShardId(0)].committed.height == 0
    first.give(BOTH, lost=True)
    second.give(frozenset(), lost=True)
    bed.drive(lambda: leads(one, 0, 1), two, one)
    assert not two.tasks
    for worker, deal in ((one, first), (two, second)):
        worker.close()
        assert deal.left
    assert bed.said[-2:] == ["shard 1: unassigned", "shard 1 is gone"]


def test_who_can_not_prove_a_shard_does_not_fence_it_and_tries_again(bed: Bed) -> None:
    owner, _ = bed.worker("owner", BOTH)
    bed.drive(lambda: leads(owner, 0, 1), owner)
    zombie, deal = bed.worker("zombie", BOTH)
    deal.proves = False
    for _ in range(500):
        bed.now_ms += 5
        zombie.step(bed.now_ms)
        owner.step(bed.now_ms)
    assert leads(owner, 0, 1)
    assert leads(zombie)
    deal.proves = True
    bed.drive(lambda: leads(zombie, 0, 1), zombie)
    zombie.close()
    owner.close()


def test_a_clock_that_is_set_back_keeps_no_shard_waiting(bed: Bed) -> None:
    worker, deal = bed.worker("one", BOTH)
    deal.proves = False
    for _ in range(20):
        bed.now_ms += 5
        worker.step(bed.now_ms)
    assert leads(worker)
    bed.now_ms -= 3_600_000
    deal.proves = True
    bed.drive(lambda: leads(worker, 0, 1), worker)
    worker.close()


def make_foreign(path: Path) -> None:
    stores = Stores(NEW.chain, 1 << 20)
    state = stores.open_shard(path, ShardId(1))
    state.commit(state.view().prepare({}), {})
    stores.close()


def make_damaged(path: Path) -> None:
    make_foreign(path)
    (path / "CURRENT").write_bytes(b"MANIFEST-999999\n")


def make_file(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch()


@pytest.mark.parametrize(
    ("make", "reason"),
    [(make_foreign, "is that of shard 1, not of 0"), (make_damaged, "failed|damaged"), (make_file, "File exists")],
)
def test_a_store_that_can_not_be_opened_halts_its_shard_alone(
    bed: Bed, make: Callable[[Path], None], reason: str
) -> None:
    path = NodeLayout(bed.root / "w").shard(0)
    make(path)
    worker, deal = bed.worker("w", BOTH)
    bed.drive(lambda: leads(worker, 1), worker)
    for _ in range(50):
        bed.now_ms += 100
        worker.step(bed.now_ms)
    halts = [text for text in bed.said if text.startswith("shard 0")]
    assert len(halts) == 1
    assert re.match(rf"shard 0: halted: the state store of shard 0 can't be opened: .*({reason})[^\n]*$", halts[0])
    assert leads(worker, 1)
    # It is opened anew when it comes again.
    deal.give(frozenset({ShardId(1)}))
    worker.step(bed.now_ms)
    assert bed.said[-1] == "shard 0 is gone"
    path.rename(bed.root / "kept")
    deal.give(BOTH)
    bed.drive(lambda: leads(worker, 0, 1), worker)
    worker.close()


def test_a_worker_ends_cleanly_with_a_shard_whose_store_was_not_opened(bed: Bed) -> None:
    make_foreign(NodeLayout(bed.root / "w").shard(0))
    worker, deal = bed.worker("w", BOTH)
    bed.drive(lambda: leads(worker, 1), worker)
    worker.close()
    assert deal.left
    assert "shard 0 is gone" in bed.said


def test_a_replica_opens_a_shard_again_whose_log_did_not_answer(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = NodeLayout(bed.root / "replica")
    layout.root.mkdir()
    layout.genesis.write_bytes(bed.chain.genesis.to_record())
    replica = Replica(layout, Config(), bed.log)
    replica.tasks.pop()  # as if it were created later
    replica._stores.close_one(layout.shard(1))
    answers: list[Exception] = [Retryable("no answer")]

    def following(*args: object) -> Following:
        if answers:
            raise answers.pop()
        return Following(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("pipeline.node.replica.Following", following)
    assert replica.step(bed.now_ms) == Idle(bed.now_ms + 200)
    replica.step(bed.now_ms)
    assert len(replica.tasks) == 2
    replica.close()


def test_a_replica_says_that_an_open_transaction_hides_the_log(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = NodeLayout(bed.root / "replica")
    layout.root.mkdir()
    layout.genesis.write_bytes(bed.chain.genesis.to_record())
    replica = Replica(layout, Config(), bed.log)

    def stalled(*_: object) -> list[LogRecord]:
        raise LogStalled("hides everything")

    monkeypatch.setattr(bed.log, "read", stalled)
    with pytest.raises(LogStalled, match="hides everything"):
        replica.run_until(lambda: False, 10_000)
    replica.close()


def test_a_second_synchronizer_fences_the_first(bed: Bed) -> None:
    worker, _ = bed.worker("w", BOTH)
    old = bed.signing(None)
    bed.drive(lambda: leads(worker, 0, 1), worker, old)
    with pytest.raises(ConfigError, match="in use by pid"):
        bed.signing(None)
    young = SigningNode(bed.chain, Config(), bed.root / "young", bed.log, None, proposes=True)
    with pytest.raises(TaskFenced):
        bed.drive(lambda: False, worker, young, old)
    for node in (worker, old, young):
        node.close()


def test_a_log_without_the_chain_is_refused_and_the_directory_released(tmp_path: Path) -> None:
    log = EmbeddedLog(MemoryKeyValue())
    assert log.partitions(Topic.CONTROL) == 0
    for _ in range(2):
        with pytest.raises(ConfigError, match="no topics of this chain"):
            Worker(NEW.chain, Config(), tmp_path, log, Deal)
        with pytest.raises(ConfigError, match="no topics of this chain"):
            SigningNode(NEW.chain, Config(), tmp_path, log, None, proposes=True)


def test_a_worker_whose_topics_were_replaced_leads_nothing_and_stays(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, deal = bed.worker("one", BOTH)
    bed.drive(lambda: all(task.state is TaskState.LEADING for task in worker.tasks.values()) and worker.tasks, worker)
    read = bed.log.read

    def replaced(source: TopicPartition, *where: int) -> list[LogRecord]:
        if source.topic is Topic.CONTROL:
            raise TaskDiverged("blocks was deleted and made again: restore the cluster")
        return read(source, *where)

    monkeypatch.setattr(bed.log, "read", replaced)
    assert worker.step(bed.now_ms) == Idle()
    assert worker.step(bed.now_ms) == Idle()
    assert {task.state for task in worker.tasks.values()} == {TaskState.HALTED}
    assert all("restore the cluster" in str(task.error) for task in worker.tasks.values())
    assert not deal.left
    worker.close()
