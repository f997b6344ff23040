"""The derived view of load and traffic: equal to what the readers of the log measure, whatever is fed twice."""

import json
import random

from sharding_net import ShardingNet

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.ledger.cursor import ShardCursor
from pipeline.shards.load import LoadBalancer
from pipeline.shards.traffic import CommunicationMonitor
from pipeline.shards.view import LoadView

SHARDS = 3
WINDOW_MS = 60_000


def played() -> ShardingNet:
    net = ShardingNet(SHARDS)
    names = [f"n{number}" for number in range(12)]
    net.fund(dict.fromkeys(names, 1000))
    net.run()
    for name in names:
        net.pay(name, dict.fromkeys(names, 2))
    net.run()
    return net


def records(net: ShardingNet) -> list[tuple[Topic, int, LogRecord]]:
    found = []
    for topic in (Topic.BLOCKS, Topic.RELAY):
        for shard in range(SHARDS):
            source = TopicPartition(topic, shard)
            found.append([(topic, shard, record) for record in net.log.read(source, 0, 10_000, 1 << 30)])
    chance = random.Random(5)
    mixed = []
    while any(found):
        queue = chance.choice([queue for queue in found if queue])
        mixed.append(queue.pop(0))
    return mixed


def test_the_view_equals_what_the_log_says_whatever_is_fed_again() -> None:
    net = played()
    everything = records(net)
    view = LoadView(net.chain, WINDOW_MS)
    for _ in range(2):  # at least once
        for item in everything:
            view.fold(*item)
    report = view.report()
    assert json.loads(json.dumps(report)) == report

    balancer = LoadBalancer(net.log, net.chain.shard_map, WINDOW_MS)
    monitor = CommunicationMonitor(net.chain, net.log)
    for shard in range(SHARDS):
        balancer.watch(ShardCursor.start(net.chain, shard))  # type: ignore[arg-type]
        monitor.watch(ShardCursor.start(net.chain, shard))  # type: ignore[arg-type]
    load, traffic = balancer.measure(), monitor.report()
    assert (report["at_ms"], report["gas"], report["refused"]) == (load.to_ms, load.gas, 0)
    assert load.gas > 0
    heights = [task.committed.height for task in net.tasks]
    assert report["shards"] == [{**item._asdict(), "height": heights[item.shard]} for item in load.shards]
    assert report["hottest"] == [item._asdict() for item in load.hottest]
    found = [(item["source"], item["destination"], item["sent"], item["executed"]) for item in report["channels"]]
    assert found == [(*item.channel, item.sent, item.executed) for item in traffic.channels]
    assert len(found) > 2
    assert all(item["in_flight"] == item["age_ms"] == 0 for item in report["channels"])


def test_what_is_under_way_has_its_value_and_age() -> None:
    net = played()
    blocks = [item for item in records(net) if item[0] is Topic.BLOCKS]
    relay = [item for item in records(net) if item[0] is Topic.RELAY]
    view = LoadView(net.chain, WINDOW_MS)
    for item in [*relay, *[item for item in blocks if item[1] != 1]]:  # shard 1 stands still
        view.fold(*item)
    toward = [item for item in view.report()["channels"] if item["destination"] == 1]
    assert toward
    assert all(item["in_flight"] > 0 and item["bytes_in_flight"] > 0 for item in toward)
    paid = sum(int(amount) for item in toward for amount in item["value"].values())
    assert paid > 0
    for item in blocks:
        view.fold(*item)
    assert all(item["in_flight"] == 0 and item["value"] == {} for item in view.report()["channels"])


def test_what_can_not_be_read_is_counted_and_harms_nothing() -> None:
    net = played()
    view = LoadView(net.chain, WINDOW_MS)
    for item in records(net):
        view.fold(*item)
    before = view.report()
    foreign = next(record for topic, shard, record in records(net) if topic is Topic.BLOCKS and shard == 1)
    for record in (
        LogRecord(10**6, None, b"nonsense"),
        LogRecord(10**6 + 1, None, None),
        foreign._replace(offset=10**7),
    ):
        view.fold(Topic.BLOCKS, 0, record)
        view.fold(Topic.RELAY, 0, record)
        view.fold(Topic.RELAY, 0, record)
    assert view.report() == {**before, "refused": 6}
