"""Rounds as an adversary writes them: quorums, rivals, forged checkpoints, gaps, false cuts."""

from dataclasses import replace

from audit_net import audit_net
from audit_rounds import attestor, attestors_replaced, begun, found, governed, kinds_at, next_round, publish, sign
from sync_net import Net, signer_key

from pipeline.audit.findings import Finding, FindingKind
from pipeline.audit.report import AuditReport
from pipeline.audit.round_reader import RoundReader
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import Hash32
from pipeline.crypto.verifier import InlineVerifier
from pipeline.ledger.checkpoints import (
    Checkpoint,
    CheckpointProposal,
    SignedStateRoot,
    StateRoot,
    checkpoint_hash,
    key_signatures,
)
from pipeline.log.port import Append
from pipeline.testing.suite import TEST_SUITES


def test_a_quorum_of_several_and_new_attestors() -> None:
    net = Net(shards=2, attestors=("one", "two", "three"), threshold=2)
    proposer = net.synchronizer(signer=None)
    old = [attestor(net, name) for name in ("one", "two", "three")]
    net.fund({"alice": 100, "bob": 100})
    net.run(proposer, *old)
    publish(net, sign(net.rounds()[-1][1].checkpoint, net.rounds()[-1][0].round, "three"))
    governed(net, ("four", "five"), 1, "operator", "one", "two")
    net.run(proposer, *old)
    new = attestor(net, "five")
    for _ in range(3):
        net.pay("alice", {"bob": 1})
        net.run(proposer, *old, new)
    report = audit_net(net)
    assert report.ok, "\n".join(report.render())
    assert report.complete_up_to == len(net.rounds()) - 1 > 2
    assert len(net.signatures()) > len(net.rounds())
    assert {item.signer for item in net.signatures()} > {signer_key("five").key_id, signer_key("three").key_id}


def test_the_last_round_of_several_signers_may_be_on_its_way() -> None:
    net = Net(shards=2, attestors=("one", "two"), threshold=2)
    proposer = net.synchronizer(signer=None)
    net.fund({"alice": 100})
    net.run(proposer)
    proposed = audit_net(net)
    assert proposed.ok, "\n".join(proposed.render())
    assert (proposed.rounds, proposed.complete_up_to) == (0, -1)
    net.run(attestor(net, "one"), attestor(net, "two"))
    signed = audit_net(net)
    assert signed.ok, "\n".join(signed.render())
    assert signed.complete_up_to == 0
    assert net.state_roots(0) == net.state_roots(1) == []


def test_what_is_no_round_is_named() -> None:
    net = begun()
    _, proposal = net.rounds()[-1]
    checkpoint = Checkpoint.from_bytes(proposal.checkpoint)
    foreign = replace(checkpoint, chain_id=bytes(32)).to_bytes()
    number = checkpoint.round
    offsets = publish(
        net,
        b"rubbish",
        replace(proposal, checkpoint=foreign),
        sign(proposal.checkpoint, number + 7),
        replace(sign(proposal.checkpoint, number), checkpoint_hash=Hash32(bytes(32))),
        replace(sign(proposal.checkpoint, number), signature=bytes(32)),
        sign(proposal.checkpoint, number, "stranger"),
        proposal,
        sign(proposal.checkpoint, number),
    )
    report = audit_net(net)
    assert [kinds_at(report, offset) for offset in offsets] == [
        {FindingKind.CHECKPOINT_FOREIGN},
        {FindingKind.CHECKPOINT_FOREIGN},
        {FindingKind.CHECKPOINT_FOREIGN},
        {FindingKind.BAD_SIGNATURE},
        {FindingKind.BAD_SIGNATURE},
        {FindingKind.BAD_SIGNATURE},
        set(),
        set(),
    ]
    assert len(report.findings) == 6
    assert report.complete_up_to == number


def test_records_about_old_rounds_are_judged_too() -> None:
    """A round that passed long ago may be repeated and signed late, by its own attestors; nothing else."""
    net = begun()
    (first, proposal), (_, last) = net.rounds()[0], net.rounds()[-1]
    assert first.round == 0
    assert last != proposal
    true = sign(proposal.checkpoint, 0)
    honest = publish(net, proposal, true)
    false = publish(
        net,
        replace(true, signature=b"nonsense", signer=Hash32(b"\7" * 32)),
        replace(true, signature=b"nonsense"),
        sign(proposal.checkpoint, 0, "stranger"),
        replace(proposal, advanced=((0, 999),)),
        replace(proposal, advanced=tuple((number, 7) for number in range(net.chain.genesis.partitions + 1))),
    )
    report = audit_net(net)
    assert [kinds_at(report, offset) for offset in honest] == [set(), set()]
    bad = {FindingKind.BAD_SIGNATURE}
    assert [kinds_at(report, offset) for offset in false] == [
        bad,
        bad,
        bad,
        {FindingKind.EQUIVOCATION},
        {FindingKind.CHECKPOINT_FOREIGN},
    ]
    assert len(report.findings) == 5


def test_late_signatures_count_by_the_attestors_of_their_round() -> None:
    net = attestors_replaced()
    checkpoint, datum = net.rounds()[0][0], net.rounds()[0][1].checkpoint
    late, too_new = publish(net, sign(datum, checkpoint.round, "three"), sign(datum, checkpoint.round, "four"))
    report = audit_net(net)
    assert kinds_at(report, late) == set()
    assert kinds_at(report, too_new) == {FindingKind.BAD_SIGNATURE}
    assert len(report.findings) == 1


def test_many_rivals_of_a_round_are_named_and_not_all_kept() -> None:
    net = begun()
    honest, proposal = next_round(net)
    findings: list[Finding] = []
    reader = RoundReader(net.chain, InlineVerifier(TEST_SUITES), findings.append, lambda _: None, lambda _: None)
    reader.last_round, reader.last_hash = honest.round - 1, honest.previous_hash
    for offset in range(400):
        rival = replace(proposal, checkpoint=replace(honest, timestamp_ms=honest.timestamp_ms + offset).to_bytes())
        reader.take(LogRecord(offset, None, rival.to_record()))
    assert len(reader.open) == 256
    assert len(findings) == 399
    decided = reader.take(LogRecord(400, None, sign(proposal.checkpoint, honest.round).to_record()))
    assert [item.proposal for item in decided] == [proposal]


def test_stray_proposals_do_not_hide_the_true_one() -> None:
    net = begun()
    honest, proposal = next_round(net)
    strays = [
        replace(proposal, checkpoint=replace(honest, round=2**50 + n, previous_hash=Hash32(bytes(32))).to_bytes())
        for n in range(40)
    ]
    offsets = publish(net, *strays)
    publish(net, proposal, sign(proposal.checkpoint, honest.round))
    report = audit_net(net)
    assert all(kinds_at(report, offset) == {FindingKind.CHECKPOINT_CHAIN} for offset in offsets)
    assert report.rounds == honest.round + 1
    missing = found(report, FindingKind.OUTPUT_MISSING)
    assert {item.shard for item in missing} == dict(proposal.advanced).keys()


def test_rivals_of_a_round() -> None:
    net = begun()
    honest, proposal = next_round(net)
    rival = replace(honest, timestamp_ms=honest.timestamp_ms + 1).to_bytes()
    same, other, _, second = publish(
        net,
        replace(proposal, advanced=proposal.advanced[:1]),
        replace(proposal, checkpoint=rival),
        sign(proposal.checkpoint, honest.round + 9),
        proposal,
    )
    publish(net, sign(proposal.checkpoint, honest.round))
    report = audit_net(net)
    assert kinds_at(report, same) == set()
    assert kinds_at(report, other) == kinds_at(report, second) == {FindingKind.EQUIVOCATION}
    assert not found(report, FindingKind.ROOT_MISMATCH)


def test_an_attestor_of_two_checkpoints_is_named() -> None:
    net = Net(shards=2, attestors=("one", "two"), threshold=2)
    net.fund({"alice": 100})
    net.run(net.synchronizer(signer=None))
    ((honest, proposal),) = net.rounds()
    rival = replace(honest, timestamp_ms=honest.timestamp_ms + 1).to_bytes()
    *_, twice = publish(
        net, replace(proposal, checkpoint=rival), sign(proposal.checkpoint, 0, "one"), sign(rival, 0, "one")
    )
    report = audit_net(net)
    assert kinds_at(report, twice) == {FindingKind.EQUIVOCATION}
    assert "signed two checkpoints of round 0" in next(item.message for item in report.findings if item.offset == twice)


def forged(net: Net, **changes: object) -> tuple[AuditReport, int]:
    """A quorum signs a false next round; the offset of its proposal."""
    honest, proposal = next_round(net)
    advanced = changes.pop("advanced", proposal.advanced)
    assert isinstance(advanced, tuple)
    checkpoint = replace(honest, **changes)  # type: ignore[arg-type]
    datum = checkpoint.to_bytes()
    offset, _ = publish(net, CheckpointProposal(datum, advanced), sign(datum, checkpoint.round))
    return audit_net(net), offset


def test_a_quorum_that_signs_a_false_ledger_root() -> None:
    report, offset = forged(begun(), ledger_root=Hash32(b"\1" * 32))
    assert kinds_at(report, offset) == {FindingKind.ROOT_MISMATCH}
    assert report.complete_up_to == report.rounds - 2


def test_a_quorum_that_signs_false_terms() -> None:
    net = begun()
    last = net.rounds()[-1][0]
    report, offset = forged(net, timestamp_ms=last.timestamp_ms - 1)
    assert "its time is before its predecessor's" in report.findings[0].message
    assert kinds_at(report, offset) == {FindingKind.ROOT_MISMATCH}
    report, offset = forged(begun(), control_sequence=99)
    assert "control record 99, which is not there" in report.findings[0].message
    report, offset = forged(begun(), control_sequence=-1)
    assert kinds_at(report, offset) == {FindingKind.ROOT_MISMATCH}


def test_a_quorum_that_signs_shards_wrongly() -> None:
    for advanced in ((), ((1, 3), (0, 3)), ((0, 3), (0, 4)), ((3, 0),), ((1000, 5),), ((0, 0),)):
        report, offset = forged(begun(), advanced=advanced)
        assert kinds_at(report, offset) == {FindingKind.ROOT_MISMATCH}, advanced


def test_a_quorum_that_signs_blocks_which_are_not_there() -> None:
    net = begun()
    height = len(net.read(Topic.BLOCKS, 1)) + 4
    report, offset = forged(net, advanced=((1, height),))
    (cut,) = found(report, FindingKind.HISTORY_CUT)
    assert (cut.shard, cut.height, cut.offset) == (1, height, offset)


def test_a_quorum_that_signs_no_consistent_cut() -> None:
    """The destination's block without the block that sent its bundle."""
    net = begun()
    _, proposal = next_round(net)
    report, offset = forged(net, advanced=((1, dict(proposal.advanced)[1]),))
    assert kinds_at(report, offset) == {FindingKind.CUT_INCONSISTENT}


def test_a_round_without_its_signatures() -> None:
    net = begun()
    honest, proposal = next_round(net)
    (lone,) = publish(net, proposal)
    following = replace(honest, round=honest.round + 1, previous_hash=checkpoint_hash(proposal.checkpoint)).to_bytes()
    publish(net, CheckpointProposal(following, ()), sign(following, honest.round + 1))
    report = audit_net(net)
    assert kinds_at(report, lone) == {FindingKind.NO_QUORUM}
    assert report.rounds == honest.round + 2
    assert report.complete_up_to == honest.round - 1


def root_record(proposal: CheckpointProposal, head: StateRoot) -> SignedStateRoot:
    signature = sign(proposal.checkpoint, Checkpoint.from_bytes(proposal.checkpoint).round)
    return SignedStateRoot(head.to_bytes(), 1, (), proposal.checkpoint, key_signatures([signature]))


def test_state_roots_that_no_round_gave() -> None:
    net = begun()
    honest, proposal = net.rounds()[-1]
    old = net.state_roots(0)[0]
    target = TopicPartition(Topic.STATE_ROOTS, 0)
    values = [old.to_record(), b"rubbish", net.state_roots(0)[-1].to_record()]
    first, rubbish, _ = net.log.append([Append(target, None, value) for value in values])
    _, following = next_round(net)
    publish(net, following, sign(following.checkpoint, honest.round + 1))
    rival = replace(honest, round=honest.round + 1, timestamp_ms=1, previous_hash=Hash32(bytes(32))).to_bytes()
    wrong = root_record(replace(proposal, checkpoint=rival), StateRoot(1))
    (equivocal,) = net.log.append([Append(target, None, wrong.to_record())])
    report = audit_net(net)
    assert kinds_at(report, first, Topic.STATE_ROOTS) == {FindingKind.OUTPUT_FOREIGN}
    assert kinds_at(report, rubbish, Topic.STATE_ROOTS) == {FindingKind.OUTPUT_FOREIGN}
    assert kinds_at(report, equivocal, Topic.STATE_ROOTS) == {FindingKind.EQUIVOCATION, FindingKind.ROOT_MISMATCH}


def test_state_roots_of_other_blocks() -> None:
    """Self-contained and signed, but of another height or hash than the round's proposal says."""
    for change in ({"height": 0}, {"block_hash": bytes(32)}, {"timestamp_ms": 5}):
        net = begun()
        honest, proposal = next_round(net)
        height = dict(proposal.advanced)[0]
        head = replace(StateRoot(0, height, Hash32(bytes(32))), **change)  # type: ignore[arg-type]
        if "timestamp_ms" in change:
            record = net.read(Topic.BLOCKS, 0)[-1]
            from pipeline.ledger.blocks import BlockHeader  # noqa: PLC0415 - only here

            header, hashed = BlockHeader.from_record(record.value)
            head = replace(head, block_hash=hashed, state_root=header.state_root)
        from pipeline.ledger.checkpoints import heads_root  # noqa: PLC0415

        lying = replace(honest, heads_root=heads_root([head]))
        other = CheckpointProposal(lying.to_bytes(), proposal.advanced)
        publish(net, other, sign(other.checkpoint, honest.round))
        target = TopicPartition(Topic.STATE_ROOTS, 0)
        (offset,) = net.log.append([Append(target, None, root_record(other, head).to_record())])
        report = audit_net(net)
        wanted = set() if "timestamp_ms" in change else {FindingKind.ROOT_MISMATCH}
        assert kinds_at(report, offset, Topic.STATE_ROOTS) == wanted
        assert found(report, FindingKind.ROOT_MISMATCH)
