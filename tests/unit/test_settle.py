"""Who recovers waits until no open transaction can hide anything from it."""

from sync_net import Net

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.errors import Retryable
from pipeline.kv.memory import MemoryKeyValue
from pipeline.log.embedded import EmbeddedLog
from pipeline.shards.life import TaskState
from pipeline.shards.progress import Idle
from pipeline.sync.life import SyncState
from pipeline.sync.round_book import CHECKPOINTS


class Unsettled(EmbeddedLog):
    """A log on which a transaction is open until the test ends it, and which can stop to answer reads."""

    def __init__(self) -> None:
        super().__init__(MemoryKeyValue())
        self.open: set[TopicPartition] = set()
        self.settled: list[TopicPartition] = []
        self.silent: set[TopicPartition] = set()

    def settle(self, source: TopicPartition) -> None:
        self.settled.append(source)
        if source in self.open:
            raise Retryable("a transaction is open")

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        if source in self.silent:
            raise Retryable("no answer")
        return super().read(source, start, max_records, max_bytes)


def test_a_shard_recovers_only_once_its_blocks_are_settled() -> None:
    log, blocks = Unsettled(), TopicPartition(Topic.BLOCKS, 0)
    net = Net(shards=1, log=log)
    log.open.add(blocks)
    (task,) = net.tasks
    assert isinstance(task.step(net.now_ms), Idle)
    net.run(ms=5_000)
    assert task.state is TaskState.FENCING
    assert set(log.settled) == {blocks}
    log.open.clear()
    net.run(ms=5_000)
    assert task.state is TaskState.LEADING


def test_a_recovery_that_gets_no_answer_begins_anew() -> None:
    log = Unsettled()
    net = Net(shards=1, log=log)
    net.fund({"alice": 5})
    net.run()
    before = net.tasks[0].committed
    assert before.height >= 0
    net.tasks.clear()
    net.add_shard(0)  # with an empty store, so that it must read the inputs again
    log.silent.add(TopicPartition(Topic.TRANSACTIONS, 0))
    (task,) = net.tasks
    seen = set()
    for _ in range(300):
        task.step(net.now_ms)
        seen.add(task.state)
        net.now_ms += 50
    assert seen == {TaskState.FENCING, TaskState.RECOVERING}
    log.silent.clear()
    net.run(ms=5_000)
    assert task.state is TaskState.LEADING
    assert task.committed.block_hash == before.block_hash


def test_a_signer_reads_its_past_only_once_it_is_settled() -> None:
    log = Unsettled()
    net = Net(shards=1, log=log)
    log.open.add(CHECKPOINTS)
    sync = net.synchronizer()
    net.fund({"alice": 5})
    net.run(sync, ms=1_000)
    assert sync.state is SyncState.FENCING
    assert net.rounds() == []
    log.open.clear()
    net.run(sync, ms=1_000)
    assert sync.state is SyncState.RUNNING
    assert len(net.rounds()) >= 1
