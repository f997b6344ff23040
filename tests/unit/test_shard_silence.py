"""An input that gives no answer: its shard goes on with the others, says so, and takes it up again."""

from collections.abc import Callable

import pytest
from shard_net import ShardNet

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.errors import HauptbuchError, Retryable
from pipeline.shards.life import TaskState
from pipeline.shards.observer import ShardObserver
from pipeline.shards.progress import Idle
from pipeline.shards.task import ShardTask, TaskConfig


class Heard(ShardObserver):
    def __init__(self) -> None:
        self.errors: list[str] = []

    def held_up(self, error: HauptbuchError) -> None:
        self.errors.append(str(error))


def silence(net: ShardNet, monkeypatch: pytest.MonkeyPatch, topic: Topic) -> Callable[[], None]:
    """Partition 0 of a topic gives no answer until the returned function is called."""
    read, is_silent = net.embedded.read, [True]

    def answers(source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        if is_silent and source == TopicPartition(topic, 0):
            raise Retryable(f"{topic.topic_name}: no answer")
        return read(source, start, max_records, max_bytes)

    monkeypatch.setattr(net.embedded, "read", answers)
    return is_silent.clear


def watched(net: ShardNet) -> tuple[ShardTask, Heard]:
    heard = Heard()
    owner, store = net.owners.view_of("me"), net.store_for(0)
    task = ShardTask(net.chain, net.tasks[0].shard, net.log, store, net.verifier, owner, TaskConfig(1), heard)
    task.assign()
    return task, heard


def counts(net: ShardNet) -> tuple[int, int]:
    """Transactions and bundles that shard 0 executed."""
    made = [header.counts for header in net.headers(0)]
    return sum(count.transactions + count.rejected for count in made), sum(count.bundles for count in made)


@pytest.mark.parametrize("topic", [Topic.CONTROL, Topic.RELAY, Topic.TRANSACTIONS])
def test_a_shard_goes_on_with_what_answers(monkeypatch: pytest.MonkeyPatch, topic: Topic) -> None:
    net = ShardNet(2)
    net.fund(dict.fromkeys(net.names(), 1000))
    net.run(ms=100)
    net.tasks[0].revoke()
    task, heard = watched(net)
    net.tasks = [task, net.tasks[1]]
    net.run(ms=100)
    before = counts(net)
    answers = silence(net, monkeypatch, topic)
    net.pay_all(1)
    for _ in range(5):
        net.run(ms=100)
    transactions, bundles = counts(net)
    assert (transactions > before[0]) is (topic is not Topic.TRANSACTIONS)
    assert (bundles > before[1]) is (topic is not Topic.RELAY)
    assert task.state is TaskState.LEADING
    assert set(heard.errors) == {f"{topic.topic_name}: no answer"}
    assert task.step(net.now_ms) == Idle(net.now_ms + 200), "it is asked again, and not without a pause"
    answers()
    heard.errors.clear()
    net.now_ms += 200
    net.run(ms=100)
    assert counts(net) > (transactions, bundles) or topic is Topic.CONTROL
    assert heard.errors == []


def test_no_shard_begins_without_its_control_records(monkeypatch: pytest.MonkeyPatch) -> None:
    net = ShardNet(1)
    task, heard = watched(net)
    answers = silence(net, monkeypatch, Topic.CONTROL)
    net.fund({"alice": 5})
    net.run(tasks=[task], ms=100)
    assert net.headers(0) == []
    assert heard.errors
    answers()
    net.now_ms += 200
    net.run(tasks=[task], ms=100)
    assert task.committed.height == 0
    assert task.committed.positions[0] == 1
