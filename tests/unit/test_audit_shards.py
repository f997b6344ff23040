"""Blocks, bundles and outputs as an adversary writes them."""

from dataclasses import replace

import pytest
from audit_net import audit_net, audit_pairs, dump, kv_of, names_on, play, played, tools
from sync_net import Net

from pipeline.audit.findings import FindingKind
from pipeline.audit.log_editor import LogEditor
from pipeline.audit.report import AuditReport
from pipeline.audit.run import audit_log
from pipeline.audit.tamper_targets import bundles
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import BlockHash, Hash32, Height, ShardId
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.blocks import BlockHeader, frame_header
from pipeline.ledger.relay import EffectKind, bundle_head, decode_groups, encode_groups
from pipeline.log.port import Append
from pipeline.shards.task import TaskState
from pipeline.testing.suite import TEST_SUITES

BLOCKS = TopicPartition(Topic.BLOCKS, 0)


def editor_of(pairs: tuple[tuple[bytes, bytes], ...]) -> tuple[MemoryKeyValue, LogEditor]:
    kv = kv_of(pairs)
    return kv, LogEditor(kv, TEST_SUITES)


def kinds_at(report: AuditReport, topic: Topic, offset: int | None) -> set[FindingKind]:
    return {item.kind for item in report.findings if (item.topic, item.offset) == (topic, offset)}


def header_of(record: LogRecord) -> BlockHeader:
    return BlockHeader.from_record(record.value)[0]


def test_an_executed_forgery_breaks_conservation() -> None:
    """The destination believed a bundle that its source never sent; the source's headers tell."""
    net = Net(shards=2)
    sync = net.synchronizer()
    play(net, sync)
    kv, editor = editor_of(dump(net))
    _, _, last = next(item for item in reversed(bundles(editor)) if item[0].partition == 1)
    kv.close()
    groups = encode_groups([replace(decode_groups(last.groups)[0], kind=EffectKind.CREDIT)])
    head = bundle_head(last.to_bytes())
    forged = replace(last, sequence=last.sequence + 1, previous_head=head, groups=groups)
    signed = len(net.rounds())
    (offset,) = net.log.append([Append(TopicPartition(Topic.RELAY, 1), None, forged.to_record())])
    net.run(sync)
    assert net.tasks[1].state is TaskState.LEADING
    assert len(net.rounds()) == signed
    report = audit_net(net)
    assert kinds_at(report, Topic.RELAY, offset) == {FindingKind.BUNDLE_FORGED}
    assert [item.kind for item in report.findings] == [FindingKind.BUNDLE_FORGED, FindingKind.CONSERVATION]
    assert report.conserved is not None
    assert not report.conserved[0].holds
    assert "is not issued" in report.render()[-1]
    assert report.complete_up_to == signed - 1
    # Without the record itself, what the destination says it executed is still a forgery.
    kv, editor = editor_of(dump(net))
    editor.remove(TopicPartition(Topic.RELAY, 1), offset)
    hidden = audit_log(tools(kv))
    assert FindingKind.INPUT_MISSING in {item.kind for item in hidden.findings}


def test_bundles_out_of_order() -> None:
    net = Net(shards=2)
    (payer,), (payee,) = names_on(net, 0, 1), names_on(net, 1, 1)
    net.fund({payer: 100})
    net.run()
    for _ in range(3):
        net.pay(payer, {payee: 1})
        net.run(tasks=net.tasks[:1])
    kv, editor = editor_of(dump(net))
    relay = TopicPartition(Topic.RELAY, 1)
    first, second, third = editor.records(relay)
    editor.put(relay, second.offset, third.value or b"")
    editor.put(relay, third.offset, second.value or b"")
    editor.put(relay, third.offset + 2, first.value or b"")
    report = audit_log(tools(kv))
    assert [(item.kind, item.offset) for item in report.findings] == [(FindingKind.BUNDLE_ORDER, third.offset)]
    assert len(report.in_flight) == 3


def test_a_bundle_that_can_not_be_read_is_missing_in_its_place() -> None:
    net = Net(shards=2)
    (payer,), (payee,) = names_on(net, 0, 1), names_on(net, 1, 1)
    net.fund({payer: 100})
    net.run()
    net.pay(payer, {payee: 1})
    net.run(tasks=net.tasks[:1])
    kv, editor = editor_of(dump(net))
    (record,) = editor.records(TopicPartition(Topic.RELAY, 1))
    editor.put(TopicPartition(Topic.RELAY, 1), record.offset, b"rubbish")
    report = audit_log(tools(kv))
    assert kinds_at(report, Topic.RELAY, record.offset) == {FindingKind.BUNDLE_MISSING}


def test_a_bundle_on_a_channel_that_was_never_used_is_forged() -> None:
    _, pairs = played(2)
    _, editor = editor_of(pairs)
    *_, (_, _, last) = bundles(editor)
    for source, destination in ((3, 0), (0, 3)):
        stray = replace(last, source=ShardId(source), destination=ShardId(destination), sequence=1)
        kv, editor = editor_of(pairs)
        target = TopicPartition(Topic.RELAY, destination)
        offset = editor.end(target)
        editor.put(target, offset, stray.to_record())
        report = audit_log(tools(kv))
        assert [(item.kind, item.shard, item.offset) for item in report.findings] == [
            (FindingKind.BUNDLE_FORGED, destination, offset)
        ]


def test_blocks_that_do_not_belong() -> None:
    _, pairs = played()
    kv, editor = editor_of(pairs)
    records = editor.records(BLOCKS)
    first, middle, last = header_of(records[0]), header_of(records[4]), header_of(records[-1])
    end = editor.end(BLOCKS)
    strays = [
        replace(last, shard=ShardId(1)),
        replace(last, chain_id=bytes(32)),
        last,
        replace(middle, gas_used=1),
        first,
    ]
    for number, header in enumerate(strays):
        editor.put(BLOCKS, end + number, frame_header(header.to_bytes()))  # type: ignore[attr-defined]
    editor.put(BLOCKS, end + len(strays), b"rubbish")
    report = audit_log(tools(kv))
    assert [kinds_at(report, Topic.BLOCKS, end + number) for number in range(6)] == [
        {FindingKind.BLOCK_UNREADABLE},
        {FindingKind.BLOCK_UNREADABLE},
        set(),
        {FindingKind.BLOCK_FORK},
        set(),
        {FindingKind.BLOCK_UNREADABLE},
    ]


def test_an_inserted_block_does_not_end_the_chain() -> None:
    _, pairs = played()
    kv, editor = editor_of(pairs)
    records = editor.records(BLOCKS)
    hole = records[3].offset + 1
    assert hole < records[4].offset
    stray = replace(header_of(records[4]), height=Height(2**40), previous_hash=BlockHash(Hash32(bytes(32))))
    editor.put(BLOCKS, hole, frame_header(stray.to_bytes()))
    report = audit_log(tools(kv))
    assert [(item.kind, item.offset) for item in report.findings] == [(FindingKind.BLOCK_FORK, hole)]
    assert report.figures.blocks == audit_pairs(pairs).figures.blocks


def test_two_missing_blocks_are_one_finding() -> None:
    _, pairs = played()
    kv, editor = editor_of(pairs)
    records = editor.records(BLOCKS)
    for record in records[3:5]:
        editor.remove(BLOCKS, record.offset)
    report = audit_log(tools(kv))
    assert "block 3 to 4 is missing" in report.findings[0].message
    assert report.findings[0].offset == records[5].offset
    assert report.complete_up_to < report.rounds - 1


def test_the_last_block_may_not_lie_either() -> None:
    _, pairs = played()
    kv, editor = editor_of(pairs)
    record = editor.records(BLOCKS)[-1]
    header = header_of(record)
    editor.put(BLOCKS, record.offset, frame_header(replace(header, previous_hash=bytes(32)).to_bytes()))  # type: ignore[arg-type]
    assert FindingKind.CHAIN_BROKEN in kinds_at(audit_log(tools(kv)), Topic.BLOCKS, record.offset)


def test_inputs_that_end_too_early() -> None:
    net, pairs = played()
    kv, editor = editor_of(pairs)
    source = TopicPartition(Topic.TRANSACTIONS, 0)
    editor.cut(source, editor.records(source)[-1].offset)
    report = audit_log(tools(kv))
    (cut,) = [item for item in report.findings if item.kind is FindingKind.INPUT_MISSING]
    assert (cut.shard, cut.topic) == (0, Topic.BLOCKS)
    assert net.chain.chain_id.hex() == report.chain_id


def test_an_inserted_transaction_is_named() -> None:
    """A producer's transaction left a hole in the middle of a block's range; now a record stands in it."""
    net = Net(shards=1)
    net.fund({"alice": 5, "bob": 5})
    net.run()
    source = TopicPartition(Topic.TRANSACTIONS, 0)
    net.pay("alice", {"bob": 1})
    (copy,) = [record.value for record in net.read(Topic.TRANSACTIONS)][-1:]
    net.log.writer("producer").begin_commit([Append(source, None, copy)])
    net.pay("bob", {"alice": 1})
    net.run()
    kv, editor = editor_of(dump(net))
    records = editor.records(source)
    hole = records[-2].offset + 1
    assert hole < records[-1].offset
    editor.put(source, hole, copy or b"")
    report = audit_log(tools(kv))
    assert kinds_at(report, Topic.TRANSACTIONS, hole) == {FindingKind.INPUT_INSERTED}
    assert "is not among what the block executed" in report.findings[0].message


@pytest.mark.parametrize("change", ["garbage", "foreign", "repeat", "old"])
def test_receipts_that_no_block_gave(change: str) -> None:
    _, pairs = played()
    kv, editor = editor_of(pairs)
    source = TopicPartition(Topic.RECEIPTS, 0)
    records = editor.records(source)
    end = editor.end(source)
    value = {
        "garbage": b"rubbish",
        "foreign": editor.records(TopicPartition(Topic.RECEIPTS, 1))[-1].value,
        "repeat": records[-1].value,
        "old": records[0].value,
    }[change]
    editor.put(source, end, value or b"")
    report = audit_log(tools(kv))
    wanted = set() if change == "repeat" else {FindingKind.OUTPUT_FOREIGN}
    assert kinds_at(report, Topic.RECEIPTS, end) == wanted
    assert report.ok == (change == "repeat")


def test_a_stray_receipt_in_the_middle_hides_nothing() -> None:
    _, pairs = played()
    kv, editor = editor_of(pairs)
    source = TopicPartition(Topic.RECEIPTS, 0)
    records = editor.records(source)
    hole = records[2].offset + 1
    assert hole < records[3].offset
    editor.put(source, hole, records[0].value or b"")
    report = audit_log(tools(kv))
    assert [(item.kind, item.offset) for item in report.findings] == [(FindingKind.OUTPUT_FOREIGN, hole)]


def test_a_forged_dead_letter_is_found() -> None:
    net = Net(shards=1)
    net.log.append([Append(TopicPartition(Topic.TRANSACTIONS, 0), None, b"rubbish")])
    net.run()
    source = TopicPartition(Topic.DEAD_LETTERS, 0)
    (letter,) = net.read(Topic.DEAD_LETTERS)
    assert audit_net(net).ok
    kv, editor = editor_of(dump(net))
    editor.put(source, letter.offset, (letter.value or b"")[:-1] + b"?")
    assert kinds_at(audit_log(tools(kv)), Topic.DEAD_LETTERS, letter.offset) == {FindingKind.OUTPUT_ALTERED}
    kv, editor = editor_of(dump(net))
    editor.remove(source, letter.offset)
    (missing,) = audit_log(tools(kv)).findings
    assert (missing.kind, missing.topic, missing.height) == (FindingKind.OUTPUT_MISSING, Topic.DEAD_LETTERS, 0)


def test_an_idle_partition_with_blocks_is_found() -> None:
    _, pairs = played(2)
    kv, editor = editor_of(pairs)
    idle = TopicPartition(Topic.BLOCKS, 3)
    header = replace(header_of(editor.records(BLOCKS)[0]), shard=ShardId(3))
    editor.put(idle, 0, frame_header(header.to_bytes()))
    report = audit_log(tools(kv))
    assert {item.kind for item in report.findings if item.shard == 3} == {FindingKind.BLOCK_DIVERGED}
