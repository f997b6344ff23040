"""Attestors and proposers that lie, rounds that are replayed, roots that are offered from elsewhere."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from audit_net import audit_net
from sync_net import Net, key_of, signer_key

from pipeline.audit.findings import FindingKind
from pipeline.client.light import LightClient
from pipeline.client.subscriber import StateRootSubscriber
from pipeline.client.trust import Trust
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Hash32
from pipeline.crypto import contexts
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import VerificationFailed
from pipeline.ledger.checkpoints import (
    Assurance,
    Checkpoint,
    CheckpointProposal,
    CheckpointSignature,
    SignedStateRoot,
    checkpoint_hash,
)
from pipeline.ledger.control import KeySignature
from pipeline.log.port import Append
from pipeline.sync.synchronizer import Synchronizer
from pipeline.testing.suite import TEST_SUITES

NAMES = [f"n{number}" for number in range(6)]
CHECKPOINTS = TopicPartition(Topic.CHECKPOINTS, 0)


def played() -> tuple[Net, Synchronizer]:
    net = Net(shards=2)
    sync = net.synchronizer()
    net.fund(dict.fromkeys(NAMES, 100))
    net.run(sync)
    for name in NAMES:
        net.pay(name, dict.fromkeys(NAMES, 1))
    net.run(sync)
    assert sync.error is None
    return net, sync


def client_of(net: Net, attestors: Sequence[str] = ("attestor",), threshold: int = 1) -> LightClient:
    trust = Trust.of(net.chain, Assurance.HEADERS)
    keys = tuple(signer_key(name) for name in attestors)
    return LightClient(replace(trust, attestors=keys, threshold=threshold), InlineVerifier(TEST_SUITES))


def signature_by(name: str, datum: bytes) -> KeySignature:
    return KeySignature(signer_key(name).key_id, key_of(name).suite_id, key_of(name).sign(datum, contexts.CHECKPOINT))


def twin_of(net: Net) -> tuple[Checkpoint, CheckpointProposal]:
    """Another checkpoint of the last round, signed by the true key: two histories for two audiences."""
    checkpoint, proposal = net.rounds()[-1]
    other = replace(checkpoint, timestamp_ms=checkpoint.timestamp_ms + 1)
    return other, replace(proposal, checkpoint=other.to_bytes())


def test_two_audiences_that_meet_have_the_proof() -> None:
    """An equivocating signer is caught by any client that saw the other root, and by the audit, with both hashes."""
    net, _ = played()
    other, proposal = twin_of(net)
    shown = net.state_roots(0)[-1]
    hidden = replace(shown, checkpoint=proposal.checkpoint, signatures=(signature_by("attestor", proposal.checkpoint),))
    client = client_of(net)
    assert client.verify_root(hidden).checkpoint == other, "alone it looks as good"
    with pytest.raises(VerificationFailed, match="equivocation"):
        client.verify_root(shown)
    signature = CheckpointSignature(
        other.round,
        checkpoint_hash(proposal.checkpoint),
        signer_key("attestor").key_id,
        key_of("attestor").suite_id,
        key_of("attestor").sign(proposal.checkpoint, contexts.CHECKPOINT),
    )
    net.log.append([Append(CHECKPOINTS, None, record) for record in (proposal.to_record(), signature.to_record())])
    kinds = {item.kind for item in audit_net(net).findings}
    assert FindingKind.EQUIVOCATION in kinds


def test_two_histories_on_two_partitions_meet_in_one_subscriber() -> None:
    """Shard 1's readers are told of other checkpoints, well chained: whoever reads both shards sees it."""
    net, sync = played()
    for name in NAMES:
        net.pay(name, dict.fromkeys(NAMES, 1))
        net.run(sync)
    previous: dict[int, Hash32] = {}
    told = []
    for root in net.state_roots(1):
        honest = Checkpoint.from_bytes(root.checkpoint)
        before = previous.get(honest.round - 1, honest.previous_hash)
        datum = replace(honest, timestamp_ms=honest.timestamp_ms + 1, previous_hash=before).to_bytes()
        previous[honest.round] = checkpoint_hash(datum)
        told.append(replace(root, checkpoint=datum, signatures=(signature_by("attestor", datum),)))
    here = {Checkpoint.from_bytes(root.checkpoint).round for root in net.state_roots(0)}
    assert len(here & previous.keys()) > 2, "rounds that both are told of"
    start = net.log.end_offset(TopicPartition(Topic.STATE_ROOTS, 1))
    net.log.append([Append(TopicPartition(Topic.STATE_ROOTS, 1), None, root.to_record()) for root in told])
    subscriber = StateRootSubscriber(net.log, client_of(net), range(2), {1: start})
    assert {root.state_root.shard for root in subscriber.poll()} == {0}
    assert all("equivocation" in str(item.error) for item in subscriber.refused)
    assert len(subscriber.refused) == len(told)


def test_fewer_than_k_liars_convince_nobody_and_k_do() -> None:
    """What k of n means: with two of three, one lying attestor is harmless, two are the ledger."""
    net, _ = played()
    honest = net.state_roots(0)[-1]
    lie = replace(Checkpoint.from_bytes(honest.checkpoint), timestamp_ms=1).to_bytes()
    people = ("attestor", "second", "third")

    def lied(*names: str) -> SignedStateRoot:
        return replace(honest, checkpoint=lie, signatures=tuple(signature_by(name, lie) for name in names))

    for names in (("second",), ("second", "second"), ("second", "stranger"), ()):
        with pytest.raises(VerificationFailed, match="2 are needed"):
            client_of(net, people, 2).verify_root(lied(*names))
    assert client_of(net, people, 2).verify_root(lied("second", "third")).checkpoint.timestamp_ms == 1


def test_a_signature_under_a_borrowed_name_counts_for_nobody() -> None:
    net, _ = played()
    honest = net.state_roots(0)[-1]
    forged = replace(signature_by("mallory", honest.checkpoint), signer=signer_key("attestor").key_id)
    other_suite = replace(honest.signatures[0], suite=2)
    for signature in (forged, other_suite, replace(honest.signatures[0], signature=b"")):
        with pytest.raises(VerificationFailed, match="0 attestors"):
            client_of(net).verify_root(replace(honest, signatures=(signature,)))


def test_thousands_of_signatures_buy_no_work() -> None:
    net, _ = played()
    honest = net.state_roots(0)[-1]
    with pytest.raises(VerificationFailed, match="256 are allowed"):
        client_of(net).verify_root(replace(honest, signatures=honest.signatures * 5_000))


def test_old_rounds_on_checkpoints_again_change_nothing() -> None:
    net, sync = played()
    records = [record.value for record in net.read(Topic.CHECKPOINTS)]
    before = sync.follower.ledger.round
    net.log.append([Append(CHECKPOINTS, None, value) for value in [*records, *reversed(records)]])
    net.pay(NAMES[0], {NAMES[1]: 1})
    net.run(sync)
    assert sync.error is None
    assert sync.follower.ledger.round > before
    fresh = net.synchronizer()
    net.run(fresh, tasks=[])
    assert fresh.error is None
    assert fresh.follower.ledger.checkpoint_hash == sync.follower.ledger.checkpoint_hash


def test_a_subscriber_passes_by_roots_that_were_slipped_in() -> None:
    """Old ones, another shard's, another chain's, unsigned ones; it goes on with the true ones."""
    net, sync = played()
    subscriber = StateRootSubscriber(net.log, client_of(net), range(2))
    assert subscriber.poll()
    honest = net.state_roots(0)[-1]
    chain = replace(Checkpoint.from_bytes(honest.checkpoint), chain_id=bytes(32)).to_bytes()
    slipped = [
        replace(honest, signatures=()),
        net.state_roots(1)[-1],
        replace(honest, checkpoint=chain, signatures=(signature_by("attestor", chain),)),
    ]
    target = TopicPartition(Topic.STATE_ROOTS, 0)
    offsets = net.log.append([Append(target, None, root.to_record()) for root in slipped])
    assert subscriber.poll() == []
    assert [item.offset for item in subscriber.refused] == offsets
    net.pay(NAMES[0], {NAMES[1]: 1})
    net.run(sync)
    assert subscriber.poll()


def test_a_signature_copied_under_another_round_halts_nobody() -> None:
    net, sync = played()
    signature, (_, proposal) = net.signatures()[-1], net.rounds()[-1]
    for number in (signature.round + 1_000, signature.round - 1):
        copy = replace(signature, round=number)
        net.log.append([Append(CHECKPOINTS, None, item.to_record()) for item in (proposal, copy)])
    sync.close()
    again = net.synchronizer()  # its directory is lost, so that it must believe the log
    net.pay(NAMES[0], {NAMES[1]: 1})
    net.run(again)
    assert again.error is None
    assert net.rounds()[-1][0].round > signature.round


def test_an_unsigned_proposal_binds_no_sole_signer() -> None:
    """One that nobody can judge yet, and one that states more than the signer checks."""
    net, sync = played()
    assert sync.follower is not None
    ledger = sync.follower.ledger
    checkpoint = replace(net.rounds()[-1][0], round=ledger.round + 1, previous_hash=ledger.checkpoint_hash)
    advanced = tuple((shard, ledger.shards[shard].head.height + 1) for shard in range(2))
    for forged in (
        replace(checkpoint, timestamp_ms=4_070_908_800_000),
        replace(checkpoint, assurance=Assurance.EXECUTION),
    ):
        net.log.append([Append(CHECKPOINTS, None, CheckpointProposal(forged.to_bytes(), advanced).to_record())])
    for name in NAMES:
        net.pay(name, dict.fromkeys(NAMES, 1))
    net.run(sync)
    assert (sync.error, sync.follower.unsigned_blocks) == (None, 0)
    assert {item.assurance for item, proposal in net.rounds() if _is_signed(net, proposal)} == {Assurance.HEADERS}


def _is_signed(net: Net, proposal: CheckpointProposal) -> bool:
    return checkpoint_hash(proposal.checkpoint) in {one.checkpoint_hash for one in net.signatures()}
