"""A store goes on only upon the inputs that it consumed: the last record of each still stands there."""

import pytest
from shard_net import ShardNet
from test_shard_recovery import cut, halted, led, reopen, rewrite

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.errors import Fatal, Retryable
from pipeline.log.port import Append
from pipeline.log.records import end_key, record_key
from pipeline.shards.consumed import CONSUMED, stored_consumed
from pipeline.shards.life import TaskState

TRANSACTIONS = TopicPartition(Topic.TRANSACTIONS, 0)


def stopped(shards: int = 2) -> ShardNet:
    """A net that has played, and leads nothing any more."""
    net = ShardNet(shards)
    net.play()
    for task in net.tasks:
        task.revoke()
    return net


def refusal(net: ShardNet, topic: Topic, offset: int) -> str:
    height = net.headers()[-1].height
    return f"shard 0 height {height}: {topic.topic_name} offset {offset} does not hold the record that was consumed"


def make_again(net: ShardNet, records: int) -> None:
    """`transactions` as if somebody had deleted it, made it anew and filled it."""
    batch: dict[bytes, bytes | None] = {
        record_key(TRANSACTIONS, record.offset): None for record in net.read(Topic.TRANSACTIONS)
    }
    batch[end_key(TRANSACTIONS)] = bytes(8)
    net.disk.write(batch, sync=True)
    reopen(net)
    net.log.append([Append(TRANSACTIONS, None, b"of another history")] * records)


@pytest.mark.parametrize("more", [0, 1, 50])
def test_a_kept_store_does_not_lead_on_a_topic_that_was_made_again_and_filled_past_its_position(more: int) -> None:
    net = stopped()
    consumed = net.end(Topic.TRANSACTIONS)
    make_again(net, consumed + more)
    assert refusal(net, Topic.TRANSACTIONS, consumed - 1) in halted(net, net.stores[0])


@pytest.mark.parametrize("topic", [Topic.TRANSACTIONS, Topic.RELAY])
@pytest.mark.parametrize("value", [b"another record", None])
def test_another_last_record_halts(topic: Topic, value: bytes | None) -> None:
    net = stopped()
    offset = rewrite(net, topic, -1, value)
    assert refusal(net, topic, offset) in halted(net, net.stores[0])


def test_a_last_record_that_is_gone_halts() -> None:
    net = stopped(1)
    consumed = net.end(Topic.TRANSACTIONS)
    cut(net, Topic.TRANSACTIONS, 1)
    assert refusal(net, Topic.TRANSACTIONS, consumed - 1) in halted(net, net.stores[0])


def test_a_store_that_followed_halts_as_one_that_led_does() -> None:
    net = stopped()
    task = led(net)
    task.revoke()
    assert task.store is not net.stores[0]
    offset = rewrite(net, Topic.TRANSACTIONS, -1, b"another record")
    assert refusal(net, Topic.TRANSACTIONS, offset) in halted(net, task.store)


def test_blocks_that_consume_nothing_of_an_input_keep_its_last_record() -> None:
    net = stopped()
    before = stored_consumed(net.stores[0])
    task = led(net, net.stores[0])
    net.now_ms += net.chain.genesis.heartbeat_ms
    net.run(tasks=[task], ms=10)
    assert task.committed.height == net.headers()[-1].height
    assert not any(item.count for item in net.headers()[-1].inputs)
    assert stored_consumed(net.stores[0]) == before
    assert [last.offset + 1 for last in before.last] == list(task.committed.positions)
    task.revoke()
    led(net, net.stores[0])


@pytest.mark.parametrize("goes_back", [False, True])
def test_a_store_of_a_version_that_kept_no_digests_is_taken_as_it_is_once(goes_back: bool) -> None:
    """Digests that such a version left behind, when somebody went back to it, are of older records and mean nothing."""
    net = stopped(1)
    store = net.stores[0]
    older = store.meta(CONSUMED) if goes_back else None
    task = led(net, store)
    net.pay_all(1)
    net.run(tasks=[task])
    task.revoke()
    store.commit(store.view().prepare({}), {CONSUMED: older})
    task = led(net, store)
    net.now_ms += net.chain.genesis.heartbeat_ms
    net.run(tasks=[task], ms=10)  # its next block, which consumes nothing
    task.revoke()
    offset = rewrite(net, Topic.TRANSACTIONS, -1, b"another record")
    assert refusal(net, Topic.TRANSACTIONS, offset) in halted(net, store)


def test_a_store_that_kept_no_digests_halts_where_no_record_stands() -> None:
    net = stopped(1)
    net.stores[0].commit(net.stores[0].view().prepare({}), {CONSUMED: None})
    consumed = net.end(Topic.TRANSACTIONS)
    cut(net, Topic.TRANSACTIONS, 1)
    assert refusal(net, Topic.TRANSACTIONS, consumed - 1) in halted(net, net.stores[0])


def test_damaged_digests_are_fatal() -> None:
    net = stopped(1)
    store = net.stores[0]
    store.commit(store.view().prepare({}), {CONSUMED: bytes(119)})
    with pytest.raises(Fatal, match="last consumed records kept by the state store are damaged"):
        net.run(tasks=[net.task(store=store)])


def test_a_broker_that_does_not_show_the_record_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    net = stopped(1)
    read, hidden, refusals = net.embedded.read, [True], [Retryable("open"), None]

    def hides(source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        return [] if source == TRANSACTIONS and hidden[0] else read(source, start, max_records, max_bytes)

    def settle(source: TopicPartition) -> None:
        if source == TRANSACTIONS:
            if (refusal := refusals.pop(0)) is not None:
                raise refusal
            hidden[0] = False

    monkeypatch.setattr(net.embedded, "read", hides)
    monkeypatch.setattr(net.embedded, "settle", settle)
    task = net.task(store=net.stores[0])
    while refusals:
        net.now_ms += 100
        task.step(net.now_ms)
        assert task.state is not TaskState.HALTED
    net.run(tasks=[task])
    assert (task.state, task.error, task.shard) == (TaskState.LEADING, None, ShardId(0))
