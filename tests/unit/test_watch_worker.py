"""A worker's watch over real shards: series that come and go with them, readiness, and what the log is asked."""

from threading import Event
from typing import NamedTuple

import pytest
from prometheus_client.metrics_core import Metric
from shard_net import ShardNet
from structlog.testing import capture_logs
from watch_net import Measured, get, numbers, series, serving, verdict

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.errors import LogStalled, OutcomeUnknown, Retryable, TaskDiverged, TaskFenced, TransactionAbortable
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.blocks import Counts
from pipeline.log.embedded import EmbeddedLog
from pipeline.shards.life import TaskState
from pipeline.shards.task import ShardTask, TaskConfig
from pipeline.watch.incidents import cause_of
from pipeline.watch.log_meter import LogMeter, MeasuredLog
from pipeline.watch.worker import WorkerWatch

ZERO, ONE = ShardId(0), ShardId(1)
BOTH = frozenset({ZERO, ONE})


class Place(NamedTuple):
    shards: frozenset[ShardId]
    rebalances: int


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class WatchedNet(ShardNet):
    """Two shards whose tasks a watch observes."""

    def __init__(self) -> None:
        super().__init__(2)
        self.clock = Clock()
        self.watch = WorkerWatch(self.chain, self.clock)
        self.watch.verified = lambda: 7
        self.tasks = [self.watched(shard) for shard in (ZERO, ONE)]
        self.measured = Measured(self.embedded)
        self.watch.meter = LogMeter(lambda: self.measured, self.watch.measure)

    def watched(self, shard: ShardId) -> ShardTask:
        owner, config, store = self.owners.view_of("me"), TaskConfig(linger_ms=1), self.store_for(shard)
        observer = self.watch.observe(shard)
        task = ShardTask(self.chain, shard, self.log, store, self.verifier, owner, config, observer)
        task.assign()
        return task


def test_series_come_with_shards_and_go_with_them() -> None:
    net = WatchedNet()
    net.watch.group = Place(BOTH, 3)
    with serving(net.watch) as server:
        assert verdict(server, "/readyz") == (503, ["shard 0: fencing", "shard 1: fencing"])
        net.play()
        assert verdict(server, "/readyz") == (200, [])
        status, content_type, body = get(server, "/metrics")
    assert (status, content_type.partition(";")[0]) == (200, "text/plain")
    seen = series(body.decode())
    for task in net.tasks:
        number, cursor = str(task.shard), task.committed
        headers = net.headers(task.shard)
        counted = Counts(*map(sum, zip(*[header.counts for header in headers], strict=True)))
        assert seen["hauptbuch_shard_state", number, "leading"] == 1
        assert seen["hauptbuch_shard_state", number, "halted"] == 0
        assert seen["hauptbuch_shard_height", number] == cursor.height == len(headers) - 1
        assert seen["hauptbuch_shard_block_timestamp_seconds", number] == cursor.timestamp_ms / 1000
        assert seen["hauptbuch_shard_gas_total", number] == sum(header.gas_used for header in headers)
        for fate, count in counted._asdict().items():
            assert seen["hauptbuch_shard_records_total", fate, number] == count
        for kind in ("execution", "commit", "store"):
            assert seen[f"hauptbuch_shard_{kind}_seconds_count", number] == len(headers)
        assert seen["hauptbuch_shard_blocks_total", number] == len(headers)
        assert seen["hauptbuch_shard_lag_records", number, "transactions"] == 0
        assert seen["hauptbuch_log_hidden_records", number, "transactions"] == 0
    assert seen["hauptbuch_signatures_verified_total",] == 7
    assert (seen["hauptbuch_group_shards",], seen["hauptbuch_rebalances_total",]) == (2, 3)
    assert seen["process_resident_memory_bytes",] > 0

    net.tasks[1].revoke()
    net.watch.shards[ONE].gone()
    left = numbers(net.watch)
    assert [key for key in left if key[0].startswith("hauptbuch_shard") and "1" in key[1:]] == []
    assert left["hauptbuch_shard_height", "0"] == net.tasks[0].committed.height
    net.tasks[1] = net.watched(ONE)
    net.run()
    assert numbers(net.watch)["hauptbuch_shard_blocks_total", "1"] == 0
    assert net.watch.obstacles() == []


def test_the_log_tells_of_lag_and_of_open_transactions_or_of_nothing() -> None:
    net = WatchedNet()
    net.play(steps=1)
    names = net.names()
    for _ in range(3):
        net.pay(names[0], {names[-1]: 1})
    net.measured.hidden[TopicPartition(Topic.TRANSACTIONS, 0)] = 2
    seen = numbers(net.watch)
    assert seen["hauptbuch_shard_lag_records", "0", "transactions"] == 3
    assert seen["hauptbuch_log_hidden_records", "0", "transactions"] == 2
    assert seen["hauptbuch_log_answers",] == 1

    def away() -> None:
        raise Retryable("no broker answers")

    net.measured.before = away
    seen = numbers(net.watch)
    assert seen["hauptbuch_log_answers",] == 0
    assert ("hauptbuch_shard_lag_records", "0", "transactions") not in seen
    assert ("hauptbuch_shard_height", "0") in seen

    def broken() -> None:
        raise ValueError("a bug")

    net.measured.before = broken
    with capture_logs() as said:
        assert numbers(net.watch)["hauptbuch_log_answers",] == 0
    assert [line["log_level"] for line in said] == ["error"]
    net.measured.before = lambda: None
    assert numbers(net.watch)["hauptbuch_log_answers",] == 1


def test_a_scrape_does_not_wait_for_a_slow_cluster() -> None:
    answer, opened = Event(), Measured(EmbeddedLog(MemoryKeyValue()))

    def slow(_log: MeasuredLog) -> list[Metric]:
        answer.wait(30)
        return []

    meter = LogMeter(lambda: opened, slow, patience_s=0.05)
    assert [metric.samples[0].value for metric in meter.collect()] == [0]
    answer.set()
    patient = LogMeter(lambda: opened, lambda log: [])
    assert [metric.samples[0].value for metric in patient.collect()] == [1]
    patient.close()
    meter.close()
    assert [metric.samples[0].value for metric in meter.collect()] == [0], "closed"


def test_a_worker_is_ready_when_every_shard_that_came_leads() -> None:
    net = WatchedNet()
    assert net.watch.obstacles() == ["not in the group of workers yet"]
    net.watch.group = Place(frozenset(), 0)
    assert net.watch.obstacles() == ["not in the group of workers yet"]
    net.run()
    net.watch.group = Place(BOTH | {ShardId(3)}, 1)
    assert net.watch.obstacles() == [], "3 is idle"
    del net.watch.shards[ZERO]
    assert net.watch.obstacles() == ["shard 0: assigned, not taken up yet"]


def test_a_driver_that_stands_is_not_alive() -> None:
    net = WatchedNet()
    done = net.watch.watching(lambda: True)
    with serving(net.watch) as server:
        net.clock.now_s += 59
        assert verdict(server, "/healthz") == (200, [])
        net.clock.now_s += 2
        reason = "no step for 61 s: the driver is stuck, restart the process"
        assert verdict(server, "/healthz") == (503, [reason])
        assert verdict(server, "/readyz")[1][0] == reason
        assert numbers(net.watch)["hauptbuch_step_age_seconds",] == 61
        assert done()
        assert verdict(server, "/healthz") == (200, [])


def test_lives_are_logged_with_shard_and_height_and_incidents_counted() -> None:
    with capture_logs() as said:
        net = WatchedNet()
        net.run()
        net.owners.names[0] = "other"
        zombie = net.task(0, owner=net.owners.view_of("other"))
        net.run(zombie, tasks=[], ms=100)
        net.fund(dict.fromkeys(net.names(), 5))
        net.run()
    first = [line for line in said if line["shard"] == 0]
    assert [line["state"] for line in first if "state" in line] == [
        *("fencing", "recovering", "leading", "fencing", "unassigned")
    ]
    assert [line["event"] for line in first][2] == "shard 0: leading, block -1"
    assert [line["event"].partition(": ")[2][:14] for line in first if line["log_level"] == "warning"] == [
        "fenced anew: w"
    ]
    assert all(line["height"] == 0 for line in first[3:]), "the funding's block"
    seen = numbers(net.watch)
    assert seen["hauptbuch_fencings_total", "fenced"] == 1
    assert seen["hauptbuch_fencings_total", "unknown"] == 0
    assert seen["hauptbuch_halts_total",] == 0


def test_a_shard_behind_an_open_transaction_leads_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    net = WatchedNet()
    net.fund(dict.fromkeys(net.names(), 5))
    net.run()
    read = net.embedded.read
    is_open = True

    def hides(source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        if is_open and source == TopicPartition(Topic.TRANSACTIONS, 0):
            raise LogStalled("a transaction that is open for 31 s hides everything")
        return read(source, start, max_records, max_bytes)

    monkeypatch.setattr(net.embedded, "read", hides)
    before = len(net.headers(1))
    with capture_logs() as said:
        net.pay_all(0)
        for _ in range(400):
            net.clock.now_s += 0.2
            net.run(ms=200)
    assert len(net.headers(1)) > before, "the other shard is not held up"
    assert [line["event"] for line in said if line["log_level"] != "debug"] == [
        "shard 0: held up: a transaction that is open for 31 s hides everything"
    ] * 2, "after 10 s, and once a minute"
    assert all(task.state is TaskState.LEADING for task in net.tasks)
    is_open = False
    before = len(net.headers(0))
    net.run()
    assert len(net.headers(0)) > before


def test_a_halt_says_what_to_do_and_is_counted() -> None:
    net = WatchedNet()
    net.run()
    with capture_logs() as said:
        net.now_ms += net.chain.genesis.max_clock_step_ms + 10**6
        net.fund(dict.fromkeys(net.names(), 5))
        net.run()
    halts = [line for line in said if line["log_level"] == "error"]
    assert {line["shard"] for line in halts} == {0, 1}
    assert all("--accept-time" in line["event"] for line in halts)
    assert net.watch.shards[ZERO].state is TaskState.HALTED
    assert numbers(net.watch)["hauptbuch_halts_total",] == 2
    net.watch.group = Place(BOTH, 1)
    assert ["set the clock" in reason for reason in net.watch.obstacles()] == [True, True]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TaskFenced("x"), "fenced"),
        (TransactionAbortable("x"), "aborted"),
        (OutcomeUnknown("x"), "unknown"),
        (Retryable("x"), "unanswered"),
    ],
)
def test_causes_of_fencings(error: Retryable, cause: str) -> None:
    assert cause_of(error) == cause


def test_copies_have_series_of_their_own() -> None:
    net = WatchedNet()
    copy = net.watch.observe_copy(ShardId(3))
    with capture_logs() as said:
        copy.catching_up(4, 9)
        copy.follows(9)
        copy.follows(10)
        assert numbers(net.watch)["hauptbuch_standby_height", "3"] == 10
        assert numbers(net.watch)["hauptbuch_standby_warm", "3"] == 1
        copy.catching_up(10, 11)
        assert numbers(net.watch)["hauptbuch_standby_warm", "3"] == 0
        copy.follows(11)
        assert numbers(net.watch)["hauptbuch_standby_warm", "3"] == 1
        copy.failed(TaskDiverged("audit the shard"))
        assert numbers(net.watch)["hauptbuch_standby_warm", "3"] == 0
        copy.gone()
    assert [line["event"] for line in said][:4] == [
        "shard 3: standby, block 4 of 9, 50 %",
        "shard 3: standby, block 9, warm",
        "shard 3: standby, block 10 of 11, 91 %",
        "shard 3: standby, block 11, warm",
    ]
    assert said[4]["event"] == "shard 3: standby stopped: audit the shard"
    assert ("hauptbuch_standby_height", "3") not in numbers(net.watch)
