"""k of n attestors: honest rounds, equivocating proposers, restarts, changes of the attestors and shards."""

from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pytest
from sync_net import Net, key_of, signer_key

from pipeline.client.light import LightClient
from pipeline.client.trust import Trust
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.crypto import contexts
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import VerificationFailed
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance, Checkpoint, CheckpointProposal, CheckpointSignature, checkpoint_hash
from pipeline.ledger.control import (
    Action,
    CreateShard,
    KeySignature,
    SetAttestors,
    SignedControl,
    control_hash,
    encode_action,
)
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.sync import ledger_follower
from pipeline.sync.attestor import Attestor
from pipeline.sync.life import SyncState
from pipeline.sync.round_book import RoundBook
from pipeline.sync.rounds import RoundPlan, RoundTerms, Taken
from pipeline.sync.settings import SyncConfig
from pipeline.sync.signed_ledger import SignedLedger
from pipeline.sync.signer import Signer
from pipeline.sync.synchronizer import Synchronizer
from pipeline.testing.faulty_kv import FaultyKeyValue, SimulatedCrash
from pipeline.testing.suite import TEST_SUITES

ATTESTORS = ("one", "two", "three")
NAMES = [f"account-{number}" for number in range(6)]
CHECKPOINTS = TopicPartition(Topic.CHECKPOINTS, 0)


def make(shards: int = 2) -> Net:
    net = Net(shards, ATTESTORS, threshold=2)
    net.fund(dict.fromkeys(NAMES, 1000))
    return net


def attestor(
    net: Net, name: str, kv: MemoryKeyValue | None = None, assurance: Assurance = Assurance.HEADERS
) -> Attestor:
    return Attestor(
        net.chain,
        net.log,
        kv or MemoryKeyValue(),
        Signer(key_of(name)),
        assurance,
        InlineVerifier(TEST_SUITES),
        SyncConfig(round_linger_ms=1),
        net.store_for,
    )


def more(net: Net, *others: object) -> None:
    for name in NAMES:
        net.pay(name, dict.fromkeys(NAMES, 1))
    net.run(*others)


def assert_sound(net: Net, proposer: Synchronizer, threshold: int = 2) -> None:
    """Every round has one proposal and a quorum, everything is signed, and subscribers accept it."""
    assert proposer.error is None
    rounds = net.rounds()
    assert [checkpoint.round for checkpoint, _ in rounds] == list(range(len(rounds)))
    for _, proposal in rounds:
        hashed = checkpoint_hash(proposal.checkpoint)
        signers = [item.signer for item in net.signatures() if item.checkpoint_hash == hashed]
        assert len(signers) == len(set(signers)) >= threshold
    for shard, task in enumerate(net.tasks):
        assert proposer.follower.ledger.shards[shard].head.height == task.committed.height
        advanced = [item.round for item, proposal in rounds if shard in dict(proposal.advanced)]
        assert [Checkpoint.from_bytes(item.checkpoint).round for item in net.state_roots(shard)] == advanced


def test_two_of_three_sign_each_round() -> None:
    net = make()
    proposer = net.synchronizer(signer=None)
    signers = [attestor(net, name) for name in ATTESTORS]
    net.run(proposer, *signers)
    more(net, proposer, *signers)
    assert_sound(net, proposer)
    assert all(signer.error is None for signer in signers)
    client = LightClient(Trust.of(net.chain, Assurance.HEADERS), InlineVerifier(TEST_SUITES))
    for shard in range(2):
        for signed in net.state_roots(shard):
            assert len(signed.signatures) == 2
            client.verify_root(signed)
    lone = replace(signed, signatures=signed.signatures[:1])
    with pytest.raises(VerificationFailed, match="2 are needed"):
        LightClient(client.trust, InlineVerifier(TEST_SUITES)).verify_root(lone)


def test_without_a_quorum_nothing_is_published() -> None:
    net = make()
    proposer, one = net.synchronizer(signer="one"), attestor(net, "one")
    stranger = attestor(net, "stranger")
    net.run(proposer, one, stranger)
    assert len(net.rounds()) == 1
    assert [item.signer for item in net.signatures()] == [signer_key("one").key_id]
    assert net.state_roots(0) == net.state_roots(1) == []
    two = attestor(net, "two")
    net.run(proposer, one, stranger, two)
    assert_sound(net, proposer)
    assert net.state_roots(0)


def test_a_weaker_attestor_leaves_a_stronger_proposal_unsigned() -> None:
    net = make()
    proposer = net.synchronizer(signer=None, assurance=Assurance.EXECUTION)
    weak = [attestor(net, name) for name in ("one", "two")]
    net.run(proposer, *weak)
    assert len(net.rounds()) == 1
    assert net.signatures() == []
    strong = [attestor(net, name, assurance=Assurance.EXECUTION) for name in ("two", "three")]
    net.run(proposer, weak[0], *strong)
    assert_sound(net, proposer)


def test_the_first_valid_proposal_is_the_only_one() -> None:
    net = make()
    proposer = net.synchronizer(signer=None)
    net.run(proposer)
    ((honest, proposal),) = net.rounds()
    wrong = [
        replace(proposal, advanced=()),
        replace(proposal, advanced=proposal.advanced[:1]),
        replace(proposal, advanced=((0, 10**6), *proposal.advanced[1:])),
        CheckpointProposal(replace(honest, heads_root=bytes(32)).to_bytes(), proposal.advanced),
        CheckpointProposal(replace(honest, timestamp_ms=0).to_bytes(), proposal.advanced),
    ]
    late = CheckpointProposal(replace(honest, timestamp_ms=honest.timestamp_ms + 1).to_bytes(), proposal.advanced)
    net.log.append([Append(CHECKPOINTS, None, item.to_record()) for item in [*wrong, late, late]])
    signers = [attestor(net, name) for name in ATTESTORS]
    net.run(proposer, *signers)
    expected = checkpoint_hash(proposal.checkpoint)
    assert {item.checkpoint_hash for item in net.signatures()} == {expected}
    assert proposer.follower.ledger.checkpoint_hash == expected
    assert len(net.signatures()) >= 2


def test_invalid_proposals_before_it_are_passed_over() -> None:
    net = make()
    net.run()
    donor = net.synchronizer(signer=None)
    net.run(donor)
    ((honest, proposal),) = net.rounds()
    other = make()
    other.run()
    wrong = [
        CheckpointProposal(honest.to_bytes(), ()),
        CheckpointProposal(honest.to_bytes(), proposal.advanced[:1]),
        CheckpointProposal(replace(honest, ledger_root=bytes(32)).to_bytes(), proposal.advanced),
        CheckpointProposal(replace(honest, timestamp_ms=0).to_bytes(), proposal.advanced),
        CheckpointProposal(replace(honest, control_sequence=-1).to_bytes(), proposal.advanced),
        CheckpointProposal(honest.to_bytes(), ((0, 0), (0, 0))),
        CheckpointProposal(honest.to_bytes(), ((3, 0),)),
        CheckpointProposal(replace(honest, previous_hash=bytes(32)).to_bytes(), proposal.advanced),
        CheckpointProposal(replace(honest, chain_id=bytes(32)).to_bytes(), proposal.advanced),
    ]
    other.log.append([Append(CHECKPOINTS, None, item.to_record()) for item in wrong])
    proposer, signers = other.synchronizer(signer=None), [attestor(other, name) for name in ATTESTORS]
    other.run(proposer, *signers)
    assert proposer.error is None
    signed = {item.checkpoint_hash for item in other.signatures()}
    assert len(signed) == 1
    assert proposer.follower.ledger.round == 0
    assert signed == {proposer.follower.ledger.checkpoint_hash}


def test_proposals_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: Counter[bytes] = Counter()
    real = ledger_follower.plan_round

    def plan_round(chain: Chain, ledger: SignedLedger, taken: Taken, terms: RoundTerms) -> RoundPlan:
        plan = real(chain, ledger, taken, terms)
        planned[plan.proposal.checkpoint] += 1
        return plan

    net = make()
    proposer = net.synchronizer(signer=None, assurance=Assurance.EXECUTION)
    net.run(proposer)
    ((honest, proposal),) = net.rounds()
    proposer.close()
    lies = [replace(honest, ledger_root=bytes(32), timestamp_ms=honest.timestamp_ms + more) for more in range(1, 21)]
    records = [CheckpointProposal(item.to_bytes(), proposal.advanced).to_record() for item in lies]
    other = make()
    other.run()
    other.log.append([Append(CHECKPOINTS, None, record) for record in [*records, proposal.to_record()]])
    monkeypatch.setattr(ledger_follower, "plan_round", plan_round)
    weak = attestor(other, "one")
    for _ in range(30):
        other.run(weak)
    assert weak.state is SyncState.RUNNING
    assert other.signatures() == [], "the only valid one states more than this attestor checks"
    assert len(planned) == len(lies) + 1
    assert set(planned.values()) == {1}


def test_a_proposal_ahead_of_the_clock_or_the_log_waits() -> None:
    net = make()
    proposer = net.synchronizer(signer=None)
    net.run(proposer)
    ((_, proposal),) = net.rounds()
    signer = attestor(net, "one")
    early_ms = net.now_ms - 60_000
    for _ in range(20):
        signer.step(early_ms)
    assert net.signatures() == []
    net.run(signer)
    assert len(net.signatures()) == 1
    assert net.signatures()[0].checkpoint_hash == checkpoint_hash(proposal.checkpoint)


@pytest.mark.parametrize("published", [False, True])
def test_a_proposer_that_restarts_finishes_the_round(published: bool) -> None:
    net, disk = make(), MemoryKeyValue()
    proposer = net.synchronizer(disk, signer=None)
    signers = [attestor(net, name) for name in ATTESTORS]
    net.run(proposer)
    net.run(*signers)
    assert len(net.signatures()) >= 2
    if published:
        net.run(proposer, *signers)
    proposer.close()
    assert bool(net.state_roots(0)) == published
    again = net.synchronizer(disk, signer=None)
    net.run(again, *signers)
    more(net, again, *signers)
    assert_sound(net, again)


def test_a_quorum_for_what_the_blocks_do_not_lead_to_halts() -> None:
    net = make()
    proposer = net.synchronizer(signer=None)
    net.run(proposer)
    ((honest, proposal),) = net.rounds()
    lie = CheckpointProposal(replace(honest, heads_root=bytes(32)).to_bytes(), proposal.advanced)
    hashed = checkpoint_hash(lie.checkpoint)
    records = [lie.to_record()]
    for name in ("one", "two"):
        signature = key_of(name).sign(lie.checkpoint, contexts.CHECKPOINT)
        template = Signer(key_of(name))
        records.append(_signature(0, hashed, template, signature))
    net.log.append([Append(CHECKPOINTS, None, record) for record in records])
    net.run(proposer)
    assert proposer.state is SyncState.HALTED
    assert "do not lead to" in str(proposer.error)


def _signature(number: int, hashed: bytes, signer: Signer, signature: bytes) -> bytes:
    return CheckpointSignature(number, hashed, signer.key_id, signer.suite, signature).to_record()


def test_an_attestor_that_restarts_signs_nothing_twice() -> None:
    net = make()
    proposer, disk = net.synchronizer(signer=None), MemoryKeyValue()
    one = attestor(net, "one", disk)
    net.run(proposer, one)
    one.close()
    for kv in (disk, MemoryKeyValue()):
        again = attestor(net, "one", kv)
        net.run(proposer, again)
        assert len(net.signatures()) == 1
        again.close()
    others = [attestor(net, name) for name in ("two", "three")]
    last = attestor(net, "one", disk)
    more(net, proposer, last, *others)
    assert_sound(net, proposer)


def test_two_attestors_of_one_key_the_older_is_fenced() -> None:
    net = make()
    proposer = net.synchronizer(signer=None)
    old = attestor(net, "one")
    net.run(old)
    new = attestor(net, "one")
    new.step(net.now_ms)
    net.run(proposer)
    net.run(old)
    assert old.state is SyncState.FENCED
    net.run(new)
    assert len(net.signatures()) == 1


def test_a_sole_synchronizer_is_fenced_by_an_attestor_of_its_key() -> None:
    net = Net(2, ("one",), threshold=1)
    net.fund(dict.fromkeys(NAMES, 1000))
    old = net.synchronizer(signer="one")
    net.run(old)
    new = attestor(net, "one")
    net.run(new)
    signed = len(net.signatures())
    assert signed
    more(net, old)
    assert old.state is SyncState.FENCED
    assert len(net.signatures()) == signed
    again = net.synchronizer(signer="one")
    net.run(again)
    more(net, again)
    assert_sound(net, again, threshold=1)
    more(net, again, new)
    assert new.state is SyncState.RUNNING, "every round came with its signature: it had none to sign"
    assert_sound(net, again, threshold=1)


def govern(net: Net, sequence: int, previous: bytes, action: Action, *names: str) -> bytes:
    """Publish a control record; returns what the next one must name."""
    unsigned = SignedControl(net.chain.chain_id, sequence, previous, encode_action(1, action))
    signatures = tuple(
        KeySignature(signer_key(name).key_id, 0xFF, key_of(name).sign(unsigned.message(), contexts.CONTROL))
        for name in names
    )
    record = replace(unsigned, signatures=signatures)
    net.log.append([Append(TopicPartition(Topic.CONTROL, 0), None, record.to_record())])
    return control_hash(record.to_bytes())


def test_new_attestors_sign_from_the_round_after() -> None:
    net = make()
    proposer = net.synchronizer(signer=None)
    old = [attestor(net, name) for name in ATTESTORS]
    net.run(proposer, *old)
    before = len(net.rounds())
    action = SetAttestors((signer_key("four"), signer_key("five")), 2)
    govern(net, 1, net.chain.chain_id, action, "operator", "one", "two")
    net.run(proposer, *old)
    assert net.rounds()[-1][0].control_sequence == 1
    changed = len(net.rounds())
    assert changed > before
    more(net, proposer, *old)
    assert len(net.rounds()) == changed + 1
    assert proposer.follower.ledger.round == changed - 1
    new = [attestor(net, name) for name in ("four", "five")]
    more(net, proposer, *old, *new)
    assert proposer.follower.ledger.round > changed - 1
    assert_sound(net, proposer)
    late = [item.signer for item in net.signatures() if item.round >= changed]
    assert set(late) == {signer_key("four").key_id, signer_key("five").key_id}
    rebuilt = net.synchronizer(signer=None)
    net.run(rebuilt, *new)
    assert rebuilt.follower.ledger.checkpoint_hash == proposer.follower.ledger.checkpoint_hash


def test_a_created_shard_joins_the_heads() -> None:
    net = make()
    proposer = net.synchronizer(signer=None)
    signers = [attestor(net, name) for name in ATTESTORS]
    net.run(proposer, *signers)
    assert len(proposer.follower.ledger.shards) == 2
    previous = govern(net, 1, net.chain.chain_id, CreateShard(2), "operator")
    govern(net, 9, previous, CreateShard(3), "operator")  # out of sequence: a dead letter
    net.add_shard(2)
    more(net, proposer, *signers)
    assert proposer.error is None
    ledger = proposer.follower.ledger
    assert [item.head.shard for item in ledger.shards] == [0, 1, 2]
    assert ledger.shards[2].head.height == net.tasks[2].committed.height >= 0
    assert ledger.control_sequence == 1
    assert_sound(net, proposer)
    rebuilt = net.synchronizer(signer=None)
    net.run(rebuilt, *signers)
    assert rebuilt.follower.ledger.checkpoint_hash == ledger.checkpoint_hash


def test_another_genesis_halts() -> None:
    net = make()
    stranger = Net(3)
    stranger.log = net.log
    sync = stranger.synchronizer(signer=None)
    sync.step(net.now_ms)
    sync.step(net.now_ms)
    assert sync.state is SyncState.HALTED
    assert "another genesis" in str(sync.error)


@pytest.mark.parametrize("before", [0, 191, 400], ids=["first", "among the first", "late"])
def test_made_up_proposals_neither_pile_up_nor_displace_the_true_one(before: int) -> None:
    net = make(shards=1)
    net.run()
    proposer = net.synchronizer(signer=None)
    attestors = [attestor(net, name) for name in ATTESTORS]
    net.run(proposer, *attestors)
    more(net)
    ledger = proposer.follower.ledger
    net.run(proposer)
    true = net.rounds()[-1][1]
    assert Checkpoint.from_bytes(true.checkpoint).round == ledger.round + 1
    made_up = [replace(true, advanced=((0, 10_000 + number),)).to_record() for number in range(before + 300)]
    signature = CheckpointSignature(
        ledger.round + 1,
        checkpoint_hash(true.checkpoint),
        Signer(key_of("one")).key_id,
        key_of("one").suite_id,
        key_of("one").sign(true.checkpoint, contexts.CHECKPOINT),
    )
    log = EmbeddedLog(MemoryKeyValue())
    log.create_topic(Topic.CHECKPOINTS, 1)
    tail = made_up[before:] if before < 192 else made_up[before : before + 50]
    for record in (*made_up[:before], true.to_record(), *tail, signature.to_record(), *made_up[before + 50 :]):
        log.append([Append(CHECKPOINTS, None, record)])
    book = RoundBook(net.chain, log, InlineVerifier(TEST_SUITES), 0)
    genesis = net.chain.genesis
    assert book.poll(ledger, genesis.attestors, 2) == []
    assert book.at_end
    assert len([item for item in book.candidates if not item.signatures]) <= 256
    assert len([item for item in book.candidates if item.proposal == true and item.signatures]) == 1


def test_proposals_with_more_heads_than_shards_are_not_kept() -> None:
    net = make(shards=2)
    net.run()
    proposer = net.synchronizer(signer=None)
    net.run(proposer)
    ledger = proposer.follower.ledger
    true = net.rounds()[-1][1]
    twice = replace(true, advanced=((0, 1), (0, 2)))
    huge = replace(true, advanced=tuple((number, 7) for number in range(net.chain.genesis.partitions + 1)))
    log = EmbeddedLog(MemoryKeyValue())
    log.create_topic(Topic.CHECKPOINTS, 1)
    log.append([Append(CHECKPOINTS, None, item.to_record()) for item in (twice, huge, true)])
    book = RoundBook(net.chain, log, InlineVerifier(TEST_SUITES), 0)
    assert book.poll(ledger, net.chain.genesis.attestors, 2) == []
    assert [item.proposal for item in book.candidates] == [true]


def test_an_attestor_cut_down_after_its_guards_first_write_opens_its_directory_again() -> None:
    """After a lost directory the guard's memory of the log is what an attestor writes first."""
    net = make()
    proposer = net.synchronizer(signer=None)
    signers = [attestor(net, name) for name in ATTESTORS]
    net.run(proposer, *signers)
    signers[0].close()
    for crash_at in (1, 2, 3):
        kv = MemoryKeyValue()
        cut = FaultyKeyValue(kv, crash_at=crash_at, when="after")
        with suppress(SimulatedCrash):
            net.run(attestor(net, "one", cut))  # type: ignore[arg-type]
        kv.crash(keep=kv.unsynced)
        again = attestor(net, "one", kv.reopen())
        more(net, proposer, again, *signers[1:])
        assert again.error is None
    assert_sound(net, proposer)
