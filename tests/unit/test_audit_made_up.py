"""Records that anybody may make up, who may write a topic: each is named itself, and hides and accuses nothing else."""

from dataclasses import replace

import pytest
from audit_net import audit_net, audit_pairs, dump, kv_of, names_on, play
from audit_rounds import attestor, attestors_replaced, begun, found, kinds_at, next_round, publish, sign
from sync_net import Net

from pipeline.audit import numbered
from pipeline.audit.findings import FindingKind
from pipeline.audit.log_editor import LogEditor
from pipeline.audit.report import AuditReport
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ChainId, Hash32
from pipeline.ledger.checkpoints import (
    Checkpoint,
    CheckpointProposal,
    SignedStateRoot,
    StateRoot,
    checkpoint_hash,
)
from pipeline.ledger.receipts import DeadLetter, ReceiptChunk
from pipeline.log.port import Append
from pipeline.testing.suite import TEST_SUITES


def after(proposal: CheckpointProposal, advanced: tuple[tuple[int, int], ...] = ()) -> CheckpointProposal:
    """A made-up next round that names this one."""
    checkpoint = Checkpoint.from_bytes(proposal.checkpoint)
    following = replace(checkpoint, round=checkpoint.round + 1, previous_hash=checkpoint_hash(proposal.checkpoint))
    return CheckpointProposal(following.to_bytes(), advanced)


def finish(net: Net) -> None:
    """Two more honest rounds."""
    sync = net.synchronizer()
    net.run(sync)
    (payer,), (payee,) = names_on(net, 0, 1), names_on(net, 1, 1)
    net.pay(payer, {payee: 1})
    net.run(sync)


def places(report: AuditReport) -> list[tuple[FindingKind, Topic | None, int | None]]:
    return [(item.kind, item.topic, item.offset) for item in report.findings]


def test_a_proposal_before_its_time_closes_no_round() -> None:
    net = begun()
    honest, proposal = next_round(net)
    rival = replace(proposal, checkpoint=replace(honest, ledger_root=Hash32(b"\1" * 32)).to_bytes())
    early = after(rival)
    first, *rest = publish(net, rival, early, after(early), after(proposal))
    finish(net)
    report = audit_net(net)
    *strays, unknown = rest
    assert kinds_at(report, unknown) == {FindingKind.CHECKPOINT_CHAIN}, "it names a round that is not proposed yet"
    assert all(kinds_at(report, offset) == {FindingKind.CHECKPOINT_CHAIN} for offset in strays)
    # The rival came first, so the honest proposal is the second one; its signature accuses nobody.
    assert [item.message for item in found(report, FindingKind.EQUIVOCATION)] == [
        f"a second, different proposal of round {honest.round}"
    ]
    assert first not in {item.offset for item in report.findings}
    assert len(report.findings) == 4
    assert report.rounds == honest.round + 2
    assert not {FindingKind.NO_QUORUM, FindingKind.ROOT_MISMATCH} & {item.kind for item in report.findings}


def test_a_successor_made_up_between_a_proposal_and_its_signatures() -> None:
    net = Net(shards=2, attestors=("one", "two"), threshold=2)
    proposer, signers = net.synchronizer(signer=None), [attestor(net, name) for name in ("one", "two")]
    net.fund({"alice": 100, "bob": 0})
    net.run(proposer)
    ((_, proposal),) = net.rounds()
    early = after(proposal)
    offsets = publish(net, early, after(early), replace(early, advanced=((0, 7),)))
    net.run(proposer, *signers)
    net.pay("alice", {"bob": 1})
    net.run(proposer, *signers)
    report = audit_net(net)
    assert [kinds_at(report, offset) for offset in offsets] == [{FindingKind.CHECKPOINT_CHAIN}] * 3
    assert len(report.findings) == 3
    assert report.rounds >= 2


def test_keys_of_replaced_attestors_pass_no_round() -> None:
    """They would, could a made-up proposal say under which control record the next one is signed."""
    net = attestors_replaced()
    last, proposal = net.rounds()[-1]
    assert last.control_sequence == 1
    false = replace(Checkpoint.from_bytes(after(proposal).checkpoint), control_sequence=0)
    stepping = CheckpointProposal(false.to_bytes(), ())
    stolen = after(stepping)
    _, early, *signed = publish(
        net, stepping, stolen, *[sign(stolen.checkpoint, last.round + 2, name) for name in ("one", "two")]
    )
    report = audit_net(net)
    assert kinds_at(report, early) == {FindingKind.CHECKPOINT_CHAIN}
    assert [kinds_at(report, offset) for offset in signed] == [{FindingKind.BAD_SIGNATURE}] * 2
    assert report.rounds == last.round + 1


def test_proposals_at_the_end_that_nobody_signed() -> None:
    net = begun()
    _, proposal = next_round(net)
    proposed, early = publish(net, proposal, after(proposal))
    report = audit_net(net)
    assert kinds_at(report, proposed) == set()
    assert kinds_at(report, early) == {FindingKind.CHECKPOINT_CHAIN}
    assert len(report.findings) == 1


def test_two_rounds_in_turn_without_their_signatures() -> None:
    net = begun()
    honest, proposal = next_round(net)
    second = after(proposal)
    third = after(second)
    first_at, second_at, third_at, _ = publish(net, proposal, second, third, sign(third.checkpoint, honest.round + 2))
    report = audit_net(net)
    assert kinds_at(report, first_at) == {FindingKind.NO_QUORUM}
    assert FindingKind.NO_QUORUM in kinds_at(report, second_at)
    assert FindingKind.NO_QUORUM not in kinds_at(report, third_at)
    assert not found(report, FindingKind.CHECKPOINT_CHAIN)
    assert report.rounds == honest.round + 3


def test_more_made_up_successors_than_are_kept() -> None:
    net = begun()
    honest, proposal = next_round(net)
    fakes = [
        CheckpointProposal(
            replace(Checkpoint.from_bytes(after(proposal).checkpoint), timestamp_ms=number).to_bytes(), ()
        )
        for number in range(300)
    ]
    _, *offsets = publish(net, proposal, *fakes)
    publish(net, sign(proposal.checkpoint, honest.round))
    report = audit_net(net)
    assert all(kinds_at(report, offset) == {FindingKind.CHECKPOINT_CHAIN} for offset in offsets)
    assert {item.kind for item in report.findings} == {FindingKind.CHECKPOINT_CHAIN, FindingKind.OUTPUT_MISSING}
    assert report.rounds == honest.round + 1


def test_signatures_of_what_lost_its_round() -> None:
    """Valid ones accuse their signer, others nobody, whoever's name they bear."""
    net = begun()
    honest, proposal = next_round(net)
    early = replace(proposal, checkpoint=replace(honest, timestamp_ms=honest.timestamp_ms + 1).to_bytes())
    late = replace(proposal, checkpoint=replace(honest, timestamp_ms=honest.timestamp_ms + 2).to_bytes())
    publish(net, early, proposal, sign(proposal.checkpoint, honest.round), late)
    true = [sign(item.checkpoint, honest.round) for item in (early, late)]
    false = [replace(item, signature=b"nonsense") for item in true]
    offsets = publish(net, *true, *false, replace(true[0], checkpoint_hash=Hash32(b"\5" * 32)))
    report = audit_net(net)
    equivocal, bad = {FindingKind.EQUIVOCATION}, {FindingKind.BAD_SIGNATURE}
    assert [kinds_at(report, offset) for offset in offsets] == [equivocal, equivocal, bad, bad, bad]


def root_of_round(net: Net, number: int) -> SignedStateRoot:
    """A state root under no valid signature."""
    old = net.state_roots(0)[-1]
    checkpoint = replace(Checkpoint.from_bytes(old.checkpoint), round=number)
    signatures = tuple(replace(item, signature=b"nonsense") for item in old.signatures)
    return replace(old, checkpoint=checkpoint.to_bytes(), signatures=signatures)


@pytest.mark.parametrize("ahead", [0, 1, 2, 2**40])
def test_a_made_up_state_root_hides_no_true_one(ahead: int) -> None:
    net = begun()
    number = net.rounds()[-1][0].round + 1
    target = TopicPartition(Topic.STATE_ROOTS, 0)
    (offset,) = net.log.append([Append(target, None, root_of_round(net, number + ahead).to_record())])
    finish(net)
    finish(net)
    report = audit_net(net)
    assert kinds_at(report, offset, Topic.STATE_ROOTS)
    assert {item.offset for item in report.findings} == {offset}
    assert report.rounds > number + 2


def test_state_roots_in_another_order() -> None:
    net = begun()
    swapped_net = begun()
    finish(net)
    target = TopicPartition(Topic.STATE_ROOTS, 0)
    first, second = (item.to_record() for item in net.state_roots(0)[-2:])
    publish(swapped_net, *[record.value for record in net.read(Topic.CHECKPOINTS, 0)[len(swapped_net.rounds()) * 2 :]])
    before, later = swapped_net.log.append([Append(target, None, value) for value in (second, first)])
    report = audit_net(swapped_net)
    assert kinds_at(report, later, Topic.STATE_ROOTS) == set()
    assert FindingKind.OUTPUT_FOREIGN in kinds_at(report, before, Topic.STATE_ROOTS)


def receipts_of(net: Net, height: int, **changes: object) -> bytes:
    chunk = ReceiptChunk(net.chain.chain_id, 0, height, 0, ())
    return replace(chunk, **changes).to_record()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ahead", "changes"),
    [(1, {}), (2, {}), (2**40, {}), (1, {"shard": 1}), (1, {"chain_id": ChainId(bytes(32))})],
)
def test_made_up_receipts_hide_no_true_ones(ahead: int, changes: dict[str, object]) -> None:
    net = begun()
    last = len(net.read(Topic.BLOCKS, 0)) - 1
    target = TopicPartition(Topic.RECEIPTS, 0)
    (offset,) = net.log.append([Append(target, None, receipts_of(net, last + 1 + ahead, **changes))])
    finish(net)
    finish(net)
    finish(net)
    assert len(net.read(Topic.BLOCKS, 0)) > last + 3
    report = audit_net(net)
    (finding,) = report.findings
    assert (finding.topic, finding.offset) == (Topic.RECEIPTS, offset)
    assert finding.kind in {FindingKind.OUTPUT_FOREIGN, FindingKind.OUTPUT_ALTERED}


def test_a_made_up_dead_letter_of_the_far_future() -> None:
    net = Net(shards=2)
    play(net, net.synchronizer())
    transactions, letters = (TopicPartition(topic, 0) for topic in (Topic.TRANSACTIONS, Topic.DEAD_LETTERS))
    for number in range(2):
        net.log.append([Append(transactions, None, b"rubbish")])
        net.run()
        if not number:
            last = DeadLetter.from_record(net.read(Topic.DEAD_LETTERS, 0)[-1].value)
            (offset,) = net.log.append([Append(letters, None, replace(last, height=2**40).to_record())])
    report = audit_net(net)
    assert places(report) == [(FindingKind.OUTPUT_FOREIGN, Topic.DEAD_LETTERS, offset)]


def test_only_so_many_records_are_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is what bounds memory: beyond it what stands behind counts as missing, which says too much."""
    monkeypatch.setattr(numbered, "MOST_ASIDE", 3)
    for made_up, is_missing in ((2, False), (3, True)):
        net = begun()
        last = len(net.read(Topic.BLOCKS, 0)) - 1
        target = TopicPartition(Topic.RECEIPTS, 0)
        net.log.append([Append(target, None, receipts_of(net, last + 3, first_index=n)) for n in range(made_up)])
        for _ in range(3):
            finish(net)
        report = audit_net(net)
        assert bool(found(report, FindingKind.OUTPUT_MISSING)) is is_missing
        assert not report.ok


def test_receipts_that_stand_before_those_of_an_earlier_block() -> None:
    net = begun()
    finish(net)
    records = net.read(Topic.RECEIPTS, 0)
    kv = kv_of(dump(net))
    editor = LogEditor(kv, TEST_SUITES)
    target = TopicPartition(Topic.RECEIPTS, 0)
    first, second = records[-2:]
    editor.put(target, first.offset, second.value or b"")
    editor.put(target, second.offset, first.value or b"")
    report = audit_pairs(tuple(kv.scan(b"", b"\xff\xff", 1 << 30)))
    assert places(report) == [(FindingKind.OUTPUT_FOREIGN, Topic.RECEIPTS, first.offset)]


def test_a_head_of_nothing_is_no_state_root() -> None:
    """Fields that decode and mean nothing are told, and the true root is found behind them."""
    net = begun()
    number = net.rounds()[-1][0].round + 1
    target = TopicPartition(Topic.STATE_ROOTS, 1)
    empty = replace(root_of_round(net, number), state_root=StateRoot(0).to_bytes(), heads=0, path=())
    (offset,) = net.log.append([Append(target, None, empty.to_record())])
    finish(net)
    report = audit_net(net)
    assert {item.offset for item in report.findings} == {offset}
