"""The audit as a whole: honest ledgers, what it refuses, its figures, damaged storage, other processes."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from audit_net import Outside, audit_net, audit_pairs, dump, kv_of, named, names_on, play, played, tools
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sync_net import Net, make_chain

from pipeline.audit.findings import Finding, FindingKind
from pipeline.audit.log_editor import LogEditor
from pipeline.audit.run import audit_log
from pipeline.audit.tamper import LIES, Damage, tell
from pipeline.audit.tools import Tools, directory_tools, memory_kv, open_directory, standard_verifier
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ChainId
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import ConfigError
from pipeline.kv.memory import MemoryKeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.ledger.transactions import Burn, Freeze
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.log.records import end_key
from pipeline.testing.suite import TEST_SUITES


def test_an_honest_ledger_holds() -> None:
    net, pairs = played()
    seen: list[tuple[int, int]] = []
    report = audit_pairs(pairs, chain=net.chain, progress=lambda shard, height: seen.append((shard, height)))
    assert report.ok, "\n".join(report.render())
    assert report.complete_up_to == report.rounds - 1 == net.rounds()[-1][0].round
    assert report.figures.blocks == sum(len(net.read(Topic.BLOCKS, shard)) for shard in range(3)) == len(seen)
    assert report.figures.transactions == sum(net.nonces.values())
    assert report.unsigned_blocks == 0
    assert report.in_flight == ()
    assert report.conserved is not None
    (line,) = report.conserved
    assert (line.symbol, line.balances, line.issued, line.holds) == ("UNIT", 9000, 9000, True)


def test_the_report_is_json_and_text() -> None:
    report = audit_pairs(played()[1])
    value = json.loads(report.to_text())
    assert list(value)[:3] == ["ok", "verdict", "chain_id"]
    assert value["figures"]["blocks"] == report.figures.blocks
    assert value["conservation"][0]["issued"] == "9000"
    assert report.render()[:2] == [f"chain {report.chain_id}", report.verdict]
    assert report.render()[-1].startswith("UNIT: balances 9000 + fees 0 + in flight 0 = issued 9000")


def test_a_report_with_findings_is_json_and_text() -> None:
    kv = kv_of(played()[1])
    damage = LIES["raise_transaction_amount"](LogEditor(kv, TEST_SUITES))
    report = audit_log(tools(kv))
    value = json.loads(report.to_text())
    assert value["findings"][0] == {
        "kind": "input_altered",
        "shard": damage.shard,
        "height": report.findings[0].height,
        "topic": "transactions",
        "offset": damage.offset,
        "message": report.findings[0].message,
    }
    assert value["conservation"] is None
    assert value["verdict"].startswith("1 finding; ")
    assert any(line.startswith("  input altered: shard 0 height 2 transactions offset 0: ") for line in report.render())
    assert report.render()[-1] == "conservation: not judged, a shard could not be executed to its end"


def test_bundles_in_flight_and_unsigned_blocks_are_counted() -> None:
    net = Net(shards=2)
    sync = net.synchronizer()
    (payer,), (payee,) = names_on(net, 0, 1), names_on(net, 1, 1)
    net.fund({payer: 100})
    net.run(sync)
    net.pay(payer, {payee: 30})
    net.run(tasks=net.tasks[:1])
    report = audit_net(net)
    assert report.ok, "\n".join(report.render())
    assert [(item.source, item.destination, list(item.value.values())) for item in report.in_flight] == [(0, 1, [30])]
    assert report.unsigned_blocks == 1
    assert report.conserved is not None
    assert (report.conserved[0].balances, report.conserved[0].in_flight) == (70, 30)
    damage = LIES["remove_bundle"](LogEditor(kv := kv_of(dump(net)), TEST_SUITES))
    lost = audit_log(tools(kv))
    kinds = [item.kind for item in lost.findings]
    assert FindingKind.BUNDLE_MISSING in kinds
    assert FindingKind.CONSERVATION in kinds
    assert any((item.topic, item.shard, item.offset) == (Topic.RELAY, 1, damage.offset + 2) for item in lost.findings)


def test_a_quorum_burns_and_freezes_hold() -> None:
    net = Net(shards=2, attestors=("a", "b", "c"), threshold=1)
    sync = net.synchronizer(signer="b")
    (payer,), (payee,) = names_on(net, 0, 1), names_on(net, 1, 1)
    net.fund({payer: 100, payee: 100, "treasury": 50})
    net.run(sync)
    net.send("treasury", Burn(net.asset, 20))
    from sync_net import address_of_key, key_of  # noqa: PLC0415 - names that only this test needs

    net.send("treasury", Freeze(net.asset, address_of_key(key_of(payee)), True))
    net.run(sync)
    net.pay(payer, {payee: 10})
    net.log.append([Append(TopicPartition(Topic.TRANSACTIONS, 0), None, b"rubbish")])
    net.log.append([Append(TopicPartition(Topic.CONTROL, 0), b"key", None)])
    net.run(sync)
    report = audit_net(net)
    assert report.ok, "\n".join(report.render())
    assert report.conserved is not None
    assert (report.conserved[0].issued, report.conserved[0].burned, report.conserved[0].balances) == (250, 20, 230)


def test_a_recovered_leader_may_repeat_its_last_outputs() -> None:
    net = Net(shards=2)
    sync = net.synchronizer()
    play(net, sync)
    before = len(net.read(Topic.RECEIPTS, 0))
    for task in net.tasks:
        task.revoke()
        task.assign()
    net.run(sync)
    play(net, sync)
    for task in net.tasks:
        task.revoke()
        task.assign()
    net.run(sync)
    assert len(net.read(Topic.RECEIPTS, 0)) > before
    report = audit_net(net)
    assert report.ok, "\n".join(report.render())


class Kept:
    """A log that is not closed with the audit."""

    def __init__(self, log: EmbeddedLog) -> None:
        self.log = log

    def __getattr__(self, name: str) -> Any:
        return (lambda: None) if name == "close" else getattr(self.log, name)


def test_a_ledger_may_grow_while_it_is_audited() -> None:
    net = Net(shards=3)
    sync = net.synchronizer()
    play(net, sync)
    people = [names_on(net, shard, 2) for shard in range(3)]
    calls = 0

    def pay(shard: int, height: int) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0 and calls < 40:
            net.pay(people[calls % 3][0], {people[(calls + 1) % 3][1]: 1})
            net.run(sync, ms=10)

    report = audit_log(Tools(lambda: Kept(net.log), new_test_verifier, memory_kv), progress=pay)
    assert report.ok, "\n".join(report.render())
    assert calls > 20
    assert audit_net(net).ok


def test_another_genesis_is_refused() -> None:
    _, pairs = played()
    other = make_chain(shards=2)
    report = audit_pairs(pairs, chain=other)
    assert [item.kind for item in report.findings] == [FindingKind.GENESIS]
    assert other.chain_id.hex() in report.findings[0].message
    told = audit_pairs(pairs, trust=Outside(ChainId(bytes(32)), None))
    assert [item.kind for item in told.findings] == [FindingKind.GENESIS]
    assert told.verdict == "1 finding; no round is complete"


def test_a_log_without_genesis_is_refused() -> None:
    empty = audit_log(tools(MemoryKeyValue()))
    assert [item.kind for item in empty.findings] == [FindingKind.GENESIS]
    kv = kv_of(played()[1])
    LogEditor(kv, TEST_SUITES).put(TopicPartition(Topic.CONTROL, 0), 0, b"no genesis")
    assert [item.kind for item in audit_log(tools(kv)).findings] == [FindingKind.GENESIS]


def test_missing_topics_are_named() -> None:
    net = Net(shards=1)
    kv = MemoryKeyValue()
    log = EmbeddedLog(kv)
    log.create_topic(Topic.CONTROL, 1)
    log.append([Append(TopicPartition(Topic.CONTROL, 0), None, net.chain.genesis.to_record())])
    report = audit_log(tools(kv))
    assert {(item.kind, item.topic) for item in report.findings} == {
        (FindingKind.TOPICS, topic) for topic in Topic if topic is not Topic.CONTROL
    }


@pytest.mark.parametrize("topic", [topic for topic in Topic if topic is not Topic.DEAD_LETTERS])
def test_a_failing_disk_is_named_with_its_place(topic: Topic) -> None:
    kv = kv_of(played()[1])
    editor = LogEditor(kv, TEST_SUITES)
    source = TopicPartition(topic, 0)
    records = editor.records(source)
    offset = records[len(records) // 2].offset
    editor.rot(source, offset)
    report = audit_log(tools(kv))
    shard = None if topic in (Topic.CONTROL, Topic.CHECKPOINTS) else 0
    if topic is Topic.CONTROL:
        assert [(item.kind, item.offset) for item in report.findings] == [(FindingKind.GENESIS, 0)]
        return
    assert named(report, FindingKind.STORAGE_DAMAGED, Damage("", topic, shard, None, offset)), report.render()
    assert f"offset {offset}" in report.findings[0].message


def test_damaged_metadata_is_a_finding() -> None:
    kv = kv_of(played()[1])
    kv.write({end_key(TopicPartition(Topic.BLOCKS, 0)): b"x"}, sync=True)
    report = audit_log(tools(kv))
    assert [item.kind for item in report.findings] == [FindingKind.STORAGE_DAMAGED]


def test_rot_needs_a_record() -> None:
    with pytest.raises(ConfigError, match="no record at offset 999"):
        LogEditor(kv_of(played()[1]), TEST_SUITES).rot(TopicPartition(Topic.BLOCKS, 0), 999)


RECORDS = [
    (source, record.offset, record.value or b"")
    for topic in Topic
    for source in LogEditor(kv_of(played()[1]), TEST_SUITES).partitions(topic)
    for record in LogEditor(kv_of(played()[1]), TEST_SUITES).records(source)
]


CHANGES = ("flip", "remove", "rot", "truncate", "null", "append", "swap")
Record = tuple[TopicPartition, int, bytes]
AnyChange = given(st.sampled_from(RECORDS), st.sampled_from(CHANGES), st.integers(0, 1 << 20), st.sampled_from(RECORDS))


def check_noticed(record: Record, change: str, at: int, other: Record) -> None:
    """Every record of the played ledger was consumed, produced or signed, so changing any of them is a finding."""
    source, offset, value = record
    kv = kv_of(played()[1])
    editor = LogEditor(kv, TEST_SUITES)
    place = at % len(value)
    match change:
        case "flip":
            editor.put(source, offset, value[:place] + bytes([value[place] ^ (1 << at % 8)]) + value[place + 1 :])
        case "remove":
            editor.remove(source, offset)
        case "rot":
            editor.rot(source, offset)
        case "truncate":
            editor.put(source, offset, value[:place])
        case "null":
            editor.put(source, offset, b"")
        case "append":
            editor.put(source, offset, value + b"\0")
        case "swap":
            if other[2] == value:
                return
            editor.put(source, offset, other[2])
    report = audit_log(tools(kv))
    assert not report.ok, (source, offset, change)
    assert all(isinstance(item, Finding) and item.kind is not FindingKind.UNEXPECTED for item in report.findings), [
        item for item in report.findings if item.kind is FindingKind.UNEXPECTED
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@AnyChange
def test_no_change_goes_unnoticed(record: Record, change: str, at: int, other: Record) -> None:
    check_noticed(record, change, at, other)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@AnyChange
def test_no_change_of_very_many_goes_unnoticed(record: Record, change: str, at: int, other: Record) -> None:
    check_noticed(record, change, at, other)


def new_test_verifier() -> InlineVerifier:
    return InlineVerifier(TEST_SUITES)


def test_processes_find_the_same(tmp_path: Path) -> None:
    rocks = open_rocks(tmp_path / "log")
    rocks.write(dict(played()[1]), sync=True)
    rocks.close()
    with directory_tools(tmp_path / "log", workers=2) as made:
        parts = Tools(made.open_log, new_test_verifier, made.new_kv)
        assert pickle.loads(pickle.dumps(made)).open_log.args == (tmp_path / "log",)
        heights: dict[int, int] = {}
        report = audit_log(parts, workers=2, progress=heights.__setitem__)
        scratch = made.new_kv.args[0]
    assert not scratch.exists()
    assert report.ok, "\n".join(report.render())
    alone = audit_pairs(played()[1])
    assert report.figures == alone.figures
    assert sorted(heights) == [0, 1, 2]
    damage = tell(tmp_path / "log", LIES["raise_transaction_amount"], TEST_SUITES)
    lying = audit_log(Tools(lambda: open_directory(tmp_path / "log"), new_test_verifier, memory_kv))
    assert named(lying, FindingKind.INPUT_ALTERED, damage)


def test_no_log_is_no_audit(tmp_path: Path) -> None:
    with directory_tools(tmp_path / "nothing") as made, pytest.raises(ConfigError, match="has no store to read"):
        audit_log(made)
    verifier = standard_verifier(1)
    assert verifier.accepts_key(1, bytes(1312))
    verifier.close()
