"""The watch of synchronizer and attestors: rounds, heights, and bundles in flight beside a monitor that reads all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sharding_net import ShardingNet
from structlog.testing import capture_logs
from sync_net import Net, key_of
from watch_net import Measured, Series, numbers, serving, verdict

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.errors import TaskFenced
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.checkpoints import Assurance
from pipeline.log.port import Append
from pipeline.shards.traffic import CommunicationMonitor
from pipeline.sync.attestor import Attestor
from pipeline.sync.signer import Signer
from pipeline.sync.synchronizer import Synchronizer
from pipeline.watch.flight import FlightBook, FlightValues
from pipeline.watch.log_meter import LogMeter
from pipeline.watch.rounds import RoundWatch


def watch_of(net: Net, role: str = "synchronizer") -> RoundWatch:
    watch = RoundWatch(net.chain, role, wall_clock_s=lambda: net.now_ms / 1000)
    measured = Measured(net.log)
    watch.meter = LogMeter(lambda: measured, watch.measure)
    return watch


def synchronizer(net: Net, watch: RoundWatch, signer: str | None, kv: MemoryKeyValue | None = None) -> Synchronizer:
    task = Synchronizer(
        net.chain,
        net.log,
        kv or MemoryKeyValue(),
        None if signer is None else Signer(key_of(signer)),
        Assurance.HEADERS,
        net.verifier,
        observer=watch,
    )
    watch.task = task
    return task


def go(net: ShardingNet, *shards: int) -> None:
    """Drive the synchronizer and these shards until nothing happens."""
    net.run(net.sync, tasks=[net.tasks[shard] for shard in shards])


def flights(seen: Series) -> dict[tuple[str, ...], float]:
    return {key: value for key, value in seen.items() if key[0].startswith("hauptbuch_channel_in_flight")}


def test_rounds_and_heights_are_shown_and_readiness_follows_the_task() -> None:
    net = ShardingNet()
    watch = watch_of(net)
    assert watch.obstacles() == ["synchronizer: starting"]
    net.sync = synchronizer(net, watch, "attestor")  # type: ignore[assignment]
    with capture_logs() as said, serving(watch) as server:
        assert verdict(server, "/readyz") == (503, ["synchronizer: fencing"])
        names = [net.name_on(0), net.name_on(1)]
        net.fund(dict.fromkeys(names, 100))
        go(net, 0, 1)
        for _ in range(3):
            net.pay(names[0], {names[1]: 1})
            go(net, 0, 1)
        assert verdict(server, "/readyz") == (200, [])
    seen = numbers(watch)
    ledger = net.sync.follower.ledger  # type: ignore[union-attr]
    assert seen["hauptbuch_signed_round",] == ledger.round > 2
    assert seen["hauptbuch_signed_round_timestamp_seconds",] == ledger.timestamp_ms / 1000
    assert seen["hauptbuch_round_seconds_count",] == ledger.round + 1
    for task in net.tasks:
        height = task.committed.height
        number = str(task.shard)
        assert seen["hauptbuch_signed_height", number] == seen["hauptbuch_checked_height", number] == height
        assert seen["hauptbuch_log_hidden_records", number, "blocks"] == 0
    assert seen["hauptbuch_signer_state", "running"] == 1
    assert seen["hauptbuch_signer_state", "halted"] == 0
    assert flights(seen) == {}
    assert [line["state"] for line in said if "state" in line] == ["recovering", "running"]
    rounds = [line["round"] for line in said if line["log_level"] == "debug"]
    assert rounds == list(range(ledger.round + 1))


def test_what_is_under_way_has_count_age_and_value_until_it_is_executed() -> None:
    net = ShardingNet()
    watch = watch_of(net)
    net.sync = synchronizer(net, watch, "attestor")  # type: ignore[assignment]
    here, there = net.name_on(0), net.name_on(1)
    net.fund({here: 1000, there: 1000})
    go(net, 0, 1)
    monitor = CommunicationMonitor(net.chain, net.log)
    for task in net.tasks:
        monitor.watch(task.committed)
    net.pay(here, {there: 40})
    go(net, 0)
    sent_ms = net.tasks[0].committed.timestamp_ms
    net.now_ms += 5_000
    net.pay(here, {there: 2})
    go(net, 0)
    # Nobody sent these: a repeat of a bundle, and one from nowhere.
    relay = TopicPartition(Topic.RELAY, 1)
    last = net.read(Topic.RELAY, 1)[-1]
    forged = net.bundle(0, 1, 99).to_record()
    net.log.append([Append(relay, None, last.value), Append(relay, None, forged), Append(relay, None, b"junk")])
    seen, report = numbers(watch), monitor.report()
    assert seen["hauptbuch_channel_in_flight_bundles", "1", "0"] == report.in_flight == 2
    assert seen["hauptbuch_channel_in_flight_value", net.asset.hex(), "1", "0"] == report.value[net.asset] == 42
    age_s = seen["hauptbuch_channel_in_flight_age_seconds", "1", "0"]
    assert age_s == pytest.approx((net.now_ms - sent_ms) / 1000)
    assert age_s > 5
    assert flights(seen).keys() == {key for key in flights(seen) if key[-2:] == ("1", "0")}

    # One that starts now knows what is under way, and its age at least from where the shards were signed.
    late = watch_of(net)
    net.sync.close()
    net.sync = synchronizer(net, late, "attestor")  # type: ignore[assignment]
    go(net)
    again = numbers(late)
    assert again["hauptbuch_channel_in_flight_bundles", "1", "0"] == 2
    assert again["hauptbuch_channel_in_flight_value", net.asset.hex(), "1", "0"] == 42
    assert again["hauptbuch_channel_in_flight_age_seconds", "1", "0"] >= 0


def test_executed_bundles_leave_the_series() -> None:
    net = ShardingNet()
    watch = watch_of(net)
    net.sync = synchronizer(net, watch, "attestor")  # type: ignore[assignment]
    here, there = net.name_on(0), net.name_on(1)
    net.fund({here: 1000, there: 1000})
    go(net, 0, 1)
    net.pay(here, {there: 40})
    go(net, 0)
    assert len(flights(numbers(watch))) == 3
    go(net, 0, 1)
    assert flights(numbers(watch)) == {}
    net.pay(here, {there: 7})
    go(net, 0)
    assert numbers(watch)["hauptbuch_channel_in_flight_value", net.asset.hex(), "1", "0"] == 7


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 50), st.booleans()), max_size=8))
def test_flights_agree_with_a_monitor_that_reads_everything(steps: list[tuple[int, int, int, bool]]) -> None:
    net = ShardingNet(3)
    names = [net.name_on(shard) for shard in range(3)]
    monitor, book, values = CommunicationMonitor(net.chain, net.log), FlightBook(), FlightValues(net.chain)
    for task in net.tasks:
        monitor.watch(task.committed)
    measured = Measured(net.log)
    net.fund(dict.fromkeys(names, 10_000))
    net.run()
    for payer, payee, amount, stall in steps:
        net.pay(names[payer], {names[payee]: amount})
        net.run(tasks=[task for task in net.tasks if not (stall and task.shard == payee)])
        for task in net.tasks:
            book.checked(BlockHeader.from_record(net.read(Topic.BLOCKS, task.shard)[-1].value)[0], task.committed)
        report = monitor.report()
        assert {(entry.channel, entry.sent - entry.executed) for entry in book.underway()} == {
            (channel.channel, channel.in_flight) for channel in report.channels if channel.in_flight
        }
        assert sum(values.measure(measured, book).values()) == report.value.get(net.asset, 0)
    assert len(book.heads) == 3 or not steps


def test_nothing_is_read_while_nothing_is_under_way() -> None:
    net = ShardingNet()
    book = FlightBook()
    measured = Measured(net.log)
    net.fund({net.name_on(1): 5})
    net.run()
    book.begin([task.committed for task in net.tasks])
    assert dict(FlightValues(net.chain).measure(measured, book)) == {}
    assert measured.reads == 0


def test_an_attestors_rounds_and_a_fencing_that_ends_it() -> None:
    net = Net(attestors=("one", "two"), threshold=2)
    proposer, watches = watch_of(net), [watch_of(net, "attestor") for _ in range(2)]
    sync = synchronizer(net, proposer, None)
    attestors = []
    for name, watch in zip(("one", "two"), watches, strict=True):
        attestor = Attestor(
            *(net.chain, net.log, MemoryKeyValue(), Signer(key_of(name)), Assurance.HEADERS, net.verifier),
            observer=watch,
        )
        watch.task = attestor
        attestors.append(attestor)
    net.fund({"alice": 10})
    net.run(sync, *attestors)
    ledger = sync.follower.ledger if sync.follower is not None else None
    assert ledger is not None
    assert ledger.round >= 0
    for watch in (proposer, *watches):
        seen = numbers(watch)
        assert seen["hauptbuch_signed_round",] == ledger.round
        assert seen["hauptbuch_round_seconds_count",] == ledger.round + 1
    with capture_logs() as said:
        net.log.writer(f"{net.chain.chain_id.hex()[:16]}-proposer")
        net.fund({"bob": 10})
        net.run(sync, *attestors)
    assert isinstance(sync.error, TaskFenced)
    assert proposer.obstacles()[0].startswith("synchronizer: fenced: ")
    ends = [line for line in said if line["log_level"] == "error"]
    assert [(line["state"], line["role"]) for line in ends] == [("fenced", "synchronizer")]
    assert numbers(proposer)["hauptbuch_halts_total",] == 0


def test_a_round_that_waits_for_long_says_for_whom() -> None:
    net = Net(attestors=("one", "two"), threshold=2)
    watch = RoundWatch(net.chain, "synchronizer", clock_s=lambda: net.now_ms / 1000)
    sync = synchronizer(net, watch, None)
    one, two = [
        Attestor(net.chain, net.log, MemoryKeyValue(), Signer(key_of(name)), Assurance.HEADERS, net.verifier)
        for name in ("one", "two")
    ]
    net.fund({"alice": 10})
    with capture_logs() as said:
        for seconds in (0, 9, 2, 58, 3):
            net.now_ms += seconds * 1_000
            net.run(sync, one)
    told = [line["event"] for line in said if line["log_level"] == "warning"]
    missing = net.chain.genesis.attestors[1].key_id.hex()[:16]
    assert (
        told
        == [
            "synchronizer: round 0 waits with 1 of 2 signatures; see that these run, with their keys, clocks and "
            "assurance: "
            f"attestor 2 ({missing})"
        ]
        * 2
    )
    with capture_logs() as said:
        net.run(sync, one, two)
        net.now_ms += 3_600_000
        net.run(sync, one, two)
    assert numbers(watch)["hauptbuch_signed_round",] > 0
    assert not [line for line in said if line["log_level"] == "warning"]


@pytest.mark.parametrize(
    ("name", "stated", "behind_ms", "why"),
    [
        ("one", Assurance.EXECUTION, 0, "the proposal states EXECUTION, this attestor does HEADERS"),
        ("one", Assurance.HEADERS, 3_600_000, "the proposal is ahead of this machine's clock"),
        ("stranger", Assurance.HEADERS, 0, "its key is not among the attestors in force"),
    ],
)
def test_an_attestor_that_signs_nothing_for_long_says_why(
    name: str, stated: Assurance, behind_ms: int, why: str
) -> None:
    net = Net(attestors=("one", "two"), threshold=2)
    net.fund({"alice": 10})
    net.run(net.synchronizer(signer=None, assurance=stated))
    watch = RoundWatch(net.chain, "attestor", clock_s=lambda: net.now_ms / 1000)
    attestor = Attestor(
        *(net.chain, net.log, MemoryKeyValue(), Signer(key_of(name)), Assurance.HEADERS, net.verifier),
        observer=watch,
    )
    watch.task = attestor
    net.now_ms -= behind_ms
    with capture_logs() as said:
        for seconds in (0, 9, 2, 58, 3):
            net.now_ms += seconds * 1_000
            net.run(attestor)
    told = [line["event"] for line in said if line["log_level"] == "warning"]
    assert told == [f"attestor: round 0 is not signed here: {why}"] * 2


def test_a_setback_is_a_warning_and_a_count() -> None:
    net = Net()
    watch = watch_of(net)
    with capture_logs() as said:
        watch.begun()
        watch.setback(TaskFenced("another one"))
        watch.done(3)
    assert [line["log_level"] for line in said] == ["warning", "debug"]
    seen = numbers(watch)
    assert seen["hauptbuch_fencings_total", "fenced"] == 1
    assert seen["hauptbuch_round_seconds_count",] == 0, "a round that was begun before a setback has no time"
    assert ("hauptbuch_signer_state", "running") not in seen
    assert ShardId(0) not in watch._flight.heads


@pytest.mark.parametrize("role", ["synchronizer", "attestor"])
def test_roles_are_named(role: str) -> None:
    assert RoundWatch(Net().chain, role).obstacles() == [f"{role}: starting"]
