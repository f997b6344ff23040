"""Worker, synchronizer, attestors and replica together on one log, without a cluster: the test deals out the shards."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.config import Config, ShardConfig
from pipeline.crypto.port import SuiteId
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import ConfigError, HauptbuchError, Retryable, TaskDiverged, TaskFenced
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.membership import Revoked
from pipeline.log.port import Append
from pipeline.log.records import encode_record, record_key
from pipeline.node.bootstrap import create_topics, new_chain
from pipeline.node.layout import NodeLayout
from pipeline.node.node import wall_clock_ms
from pipeline.node.replica import Replica, ReplicaReader
from pipeline.node.signing import SigningNode
from pipeline.node.stores import Stores
from pipeline.node.worker import Worker
from pipeline.shards.life import TaskState
from pipeline.shards.observer import CopyObserver, ShardObserver
from pipeline.shards.progress import Idle
from pipeline.shards.recovery import Following
from pipeline.shards.signed_roots import SignedRoots

NEW = new_chain(
    STANDARD_SUITES,
    "test",
    2,
    wall_clock_ms(),
    suite_id=SuiteId.ML_DSA_44,
    partitions=3,
    attestors=2,
    attestor_threshold=2,
    seed=b"s" * 32,
)
BOTH = frozenset({ShardId(0), ShardId(1)})


class Deal:
    """A member of a group whose shards the test chooses."""

    def __init__(self, revoked: Revoked) -> None:
        self._revoked = revoked
        self.shards: frozenset[ShardId] = frozenset()
        self.proves = True
        self.told: dict[ShardId, int] = {}
        self._next: tuple[frozenset[ShardId], bool] | None = None
        self.left = False
        self.inherits: frozenset[ShardId] = frozenset()

    def copies(self, count: int) -> frozenset[ShardId]:
        assert count == 1
        return self.inherits - self.shards

    def give(self, shards: frozenset[ShardId], *, lost: bool = False) -> None:
        self._next = shards, lost

    def poll(self) -> None:
        if self._next is not None:
            shards, lost = self._next
            self._next = None
            self._revoked(self.shards - shards, lost)
            self.shards = shards

    def owns(self, shard: ShardId) -> bool:
        return self.proves and shard in self.shards

    def report(self, positions: Mapping[ShardId, int]) -> None:
        self.told.update(positions)

    def close(self) -> None:
        self.left = True


class Bed:
    """A log with the chain's topics, and what runs on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.chain: Chain = NEW.chain
        self.disk = MemoryKeyValue()
        self.log = EmbeddedLog(self.disk)
        create_topics(self.log, self.chain)
        self.now_ms = wall_clock_ms()
        self.said: list[str] = []

    def worker(
        self,
        name: str,
        shards: frozenset[ShardId],
        heard: list[str] | None = None,
        config: Config | None = None,
    ) -> tuple[Worker, Deal]:
        deals: list[Deal] = []

        def join(revoked: Revoked) -> Deal:
            deals.append(Deal(revoked))
            return deals[0]

        copies = [] if heard is None else heard
        worker = Worker(
            self.chain,
            config or Config(),
            self.root / name,
            self.log,
            join,
            observe=self.observe,
            observe_copy=lambda shard: Heard(shard, copies),
        )
        deals[0].give(shards)
        return worker, deals[0]

    def observe(self, shard: ShardId) -> ShardObserver:
        said = self.said

        class Teller(ShardObserver):
            def moved(self, state: TaskState, error: HauptbuchError | None) -> None:
                said.append(f"shard {shard}: {state.value}{'' if error is None else f': {error}'}")

            def gone(self) -> None:
                said.append(f"shard {shard} is gone")

        return Teller()

    def signing(self, role: str | None) -> SigningNode:
        key = None if role is None else NEW.keys[role]
        return SigningNode(self.chain, Config(), self.root / (role or "sync"), self.log, key, proposes=role is None)

    def drive(self, condition: Callable[[], bool], *nodes: Worker | SigningNode | Replica) -> None:
        for _ in range(3_000):
            if condition():
                return
            self.now_ms += 5
            for node in nodes:
                node.step(self.now_ms)
        raise AssertionError(self.said)


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path)
    yield bed
    bed.log.close()


def leads(worker: Worker, *shards: int) -> bool:
    return {shard for shard, task in worker.tasks.items() if task.state is TaskState.LEADING} == set(shards)


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


class Heard(CopyObserver):
    """What was told of copies, by shard."""

    def __init__(self, shard: ShardId, log: list[str]) -> None:
        self._shard, self._log = shard, log

    def catching_up(self, height: int, end: int) -> None:
        self._log.append(f"{self._shard} at {height} of {end}")

    def follows(self, height: int) -> None:
        self._log.append(f"{self._shard} follows {height}")

    def failed(self, error: HauptbuchError) -> None:
        self._log.append(f"{self._shard} failed: {error}")

    def gone(self) -> None:
        self._log.append(f"{self._shard} gone")


def test_a_standby_follows_and_its_open_store_becomes_the_leaders(bed: Bed) -> None:
    heard: list[str] = []
    one, first = bed.worker("one", BOTH)
    two, second = bed.worker("two", frozenset(), heard)
    second.inherits = BOTH | {ShardId(2)}  # 2 is idle
    ends = [bed.log.end_offset(TopicPartition(Topic.BLOCKS, shard)) for shard in BOTH]
    bed.drive(lambda: leads(one, 0, 1) and two.standbys.warm == BOTH, one, two)
    bed.now_ms += bed.chain.genesis.heartbeat_ms
    height = one.tasks[ShardId(0)].committed.height + 1
    bed.drive(lambda: f"0 follows {height}" in heard, one, two)
    assert not two.tasks
    # The leader's second block is the last that was written: a standby writes nothing.
    written = [bed.log.end_offset(TopicPartition(Topic.BLOCKS, shard)) for shard in BOTH]
    assert written > ends
    bed.now_ms += 50
    two.step(bed.now_ms)
    assert [bed.log.end_offset(TopicPartition(Topic.BLOCKS, shard)) for shard in BOTH] == written

    kept = two.standbys._copies[ShardId(0)].store
    committed = one.tasks[ShardId(0)].committed
    first.give(frozenset({ShardId(1)}))
    second.give(frozenset({ShardId(0)}))
    one.step(bed.now_ms)
    bed.drive(lambda: leads(two, 0), two)
    task = two.tasks[ShardId(0)]
    assert task.store is kept
    assert task.committed == committed
    assert "0 gone" in heard
    assert two.standbys.warm == {ShardId(1)}

    # After a revocation the shard is followed again.
    first.inherits, second.inherits = frozenset(), BOTH
    second.give(frozenset())
    first.give(BOTH)
    bed.drive(lambda: leads(one, 0, 1) and two.standbys.warm == BOTH, two, one)
    second.inherits = frozenset()
    two.step(bed.now_ms)
    assert two.standbys.warm == frozenset()
    assert heard[-2:] == ["0 gone", "1 gone"] or heard[-2:] == ["1 gone", "0 gone"]
    for worker in (one, two):
        worker.close()


def test_a_copy_that_diverges_is_left_alone_and_harms_nobody(bed: Bed) -> None:
    heard: list[str] = []
    one, _ = bed.worker("one", BOTH)
    bed.drive(lambda: leads(one, 0, 1) and one.tasks[ShardId(0)].committed.height >= 0, one)
    one.close()
    two, second = bed.worker("two", frozenset({ShardId(1)}), heard)
    bed.log.append([Append(TopicPartition(Topic.BLOCKS, 0), None, b"no block")])
    second.inherits = frozenset({ShardId(0)})
    bed.drive(lambda: any("failed" in text for text in heard), two)
    assert "undecodable" in heard[-1] or "written by workers only" in heard[-1]
    for _ in range(50):
        bed.now_ms += 100
        two.step(bed.now_ms)
    assert sum("failed" in text for text in heard) == 1
    assert leads(two, 1)
    second.give(frozenset({ShardId(0), ShardId(1)}))
    bed.drive(lambda: two.tasks.get(ShardId(0)) is not None and two.tasks[ShardId(0)].state is TaskState.HALTED, two)
    assert leads(two, 1)
    two.close()


def test_a_copy_does_not_go_on_upon_inputs_that_were_made_again(bed: Bed) -> None:
    source = TopicPartition(Topic.TRANSACTIONS, 0)
    bed.log.append([Append(source, None, b"no transaction")])
    heard: list[str] = []
    one, _ = bed.worker("one", BOTH)
    two, second = bed.worker("two", frozenset(), heard)
    second.inherits = BOTH
    bed.drive(lambda: two.standbys.warm == BOTH and one.tasks[ShardId(0)].committed.positions[2] == 1, one, two)
    bed.drive(lambda: f"0 follows {one.tasks[ShardId(0)].committed.height}" in heard, one, two)
    for worker in (one, two):
        worker.close()
    place = record_key(source, 0)
    bed.disk.write({place: encode_record(place, None, b"of another history")}, sync=True)
    heard.clear()
    two, second = bed.worker("two", frozenset(), heard)
    second.inherits = BOTH
    bed.drive(lambda: any("failed" in text for text in heard) and two.standbys.warm == {ShardId(1)}, two)
    assert any(
        "0 failed: shard 0 height" in text and "does not hold the record that was consumed" in text for text in heard
    )
    second.give(BOTH)
    bed.drive(lambda: leads(two, 1) and two.tasks[ShardId(0)].state is TaskState.HALTED, two)
    two.close()


def test_copies_go_on_while_a_shard_that_came_can_not_be_recovered(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    one, first = bed.worker("one", BOTH)
    two, second = bed.worker("two", frozenset())
    bed.drive(lambda: leads(one, 0, 1), one)
    settle, is_away = bed.log.settle, True

    def settled(source: TopicPartition) -> None:
        if is_away and source == TopicPartition(Topic.BLOCKS, 0):
            raise Retryable("no answer")
        settle(source)

    monkeypatch.setattr(bed.log, "settle", settled)
    first.give(frozenset({ShardId(1)}))
    second.give(frozenset({ShardId(0)}))
    second.inherits = frozenset({ShardId(1)})
    bed.drive(lambda: two.standbys.warm == {ShardId(1)}, one, two)
    assert leads(one, 1)
    assert leads(two)
    is_away = False
    bed.drive(lambda: leads(two, 0), one, two)
    for worker in (one, two):
        worker.close()


def test_no_copies_are_kept_where_none_are_wanted(bed: Bed) -> None:
    heard: list[str] = []
    one, _ = bed.worker("one", BOTH)
    config = Config(shard=ShardConfig(standby_copies=0))
    two, second = bed.worker("two", frozenset(), heard, config)
    second.inherits = BOTH
    bed.drive(lambda: leads(one, 0, 1), one, two)
    assert heard == []
    assert not (bed.root / "two" / "shards").exists()
    one.close()
    two.close()


def test_a_copy_that_is_far_behind_says_how_far(bed: Bed) -> None:
    heard: list[str] = []
    one, _ = bed.worker("one", BOTH)
    for height in range(60):
        bed.drive(lambda at=height: leads(one, 0, 1) and one.tasks[ShardId(0)].committed.height >= at, one)  # type: ignore[misc]
        bed.now_ms += bed.chain.genesis.heartbeat_ms
    two, second = bed.worker("two", frozenset(), heard)
    second.inherits = frozenset({ShardId(0)})
    for _ in range(50):
        bed.now_ms += 600
        two.step(bed.now_ms)
    end = one.tasks[ShardId(0)].committed.height
    assert [text for text in heard if text.startswith("0 at ") and text.endswith(f"of {end}")]
    assert heard[-1] == f"0 follows {end}"
    one.close()
    two.close()


def test_a_copy_that_lacks_the_inputs_of_a_block_is_not_warm_until_it_has_them(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, heard = TopicPartition(Topic.TRANSACTIONS, 0), list[str]()
    one, _ = bed.worker("one", BOTH)
    two, second = bed.worker("two", frozenset(), heard)
    second.inherits = BOTH
    bed.drive(lambda: two.standbys.warm == BOTH and {"0 follows 0", "1 follows 0"} <= set(heard), one, two)
    bed.log.append([Append(source, None, b"no transaction")])
    bed.drive(lambda: one.tasks[ShardId(0)].committed.positions[2] == 1, one)
    height = one.tasks[ShardId(0)].committed.height
    one.close()
    read, end_offset = bed.log.read, bed.log.end_offset
    with monkeypatch.context() as patch:
        patch.setattr(bed.log, "read", lambda place, *where: [] if place == source else read(place, *where))
        patch.setattr(bed.log, "end_offset", lambda place: 0 if place == source else end_offset(place))
        heard.clear()
        for _ in range(9):
            two.step(bed.now_ms)
            assert two.standbys.warm == BOTH  # it may have them in a moment
            bed.now_ms += 100
        bed.now_ms -= 3_600_000  # a clock that is set back keeps nobody waiting
        for _ in range(21):
            two.step(bed.now_ms)
            bed.now_ms += 100
        assert two.standbys.warm == {ShardId(1)}
        assert heard == [f"0 at {height - 1} of {height}"] * 2
    heard.clear()
    bed.drive(lambda: two.standbys.warm == BOTH, two)
    assert heard == [f"0 follows {height}"]
    two.close()


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
