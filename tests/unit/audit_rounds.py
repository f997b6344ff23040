"""Rounds to lie about: a ledger with signed ones, records of `checkpoints` made by hand, what an audit says of them."""

from collections.abc import Sequence
from dataclasses import replace

from audit_net import dump, kv_of, names_on, play
from sync_net import Net, key_of, signer_key

from pipeline.audit.findings import Finding, FindingKind
from pipeline.audit.report import AuditReport
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Hash32
from pipeline.crypto import contexts
from pipeline.crypto.verifier import InlineVerifier
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.checkpoints import (
    Assurance,
    Checkpoint,
    CheckpointProposal,
    CheckpointSignature,
    checkpoint_hash,
)
from pipeline.ledger.control import KeySignature, SetAttestors, SignedControl, encode_action
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.sync.attestor import Attestor
from pipeline.sync.settings import SyncConfig
from pipeline.sync.signer import Signer
from pipeline.testing.suite import TEST_SUITES

CHECKPOINTS = TopicPartition(Topic.CHECKPOINTS, 0)


def attestor(net: Net, name: str) -> Attestor:
    return Attestor(
        net.chain,
        net.log,
        MemoryKeyValue(),
        Signer(key_of(name)),
        Assurance.HEADERS,
        InlineVerifier(TEST_SUITES),
        SyncConfig(round_linger_ms=1),
    )


def attestors_replaced() -> Net:
    """Rounds that two of "one", "two" and "three" signed, then rounds that "four" alone signs."""
    net = Net(shards=2, attestors=("one", "two", "three"), threshold=2)
    proposer, old = net.synchronizer(signer=None), [attestor(net, name) for name in ("one", "two")]
    net.fund({"alice": 100, "bob": 100})
    net.run(proposer, *old)
    governed(net, ("four",), 1, "operator", "one", "two")
    net.run(proposer, *old)
    new = attestor(net, "four")
    for _ in range(3):
        net.pay("alice", {"bob": 1})
        net.run(proposer, *old, new)
    return net


def begun() -> Net:
    """Some signed rounds, then blocks that nobody signed."""
    net = Net(shards=2)
    sync = net.synchronizer()
    play(net, sync)
    (payer,), (payee,) = names_on(net, 0, 1), names_on(net, 1, 1)
    net.pay(payer, {payee: 1})
    net.run()
    return net


def next_round(net: Net) -> tuple[Checkpoint, CheckpointProposal]:
    """The honest next round, taken from a synchronizer on a copy of the log."""
    copy = Net.__new__(Net)
    copy.__dict__ |= net.__dict__
    copy.log = EmbeddedLog(kv_of(dump(net)))
    before = len(net.rounds())
    copy.run(copy.synchronizer(), tasks=[])
    return copy.rounds()[before]


def sign(checkpoint: bytes, number: int, name: str = "attestor") -> CheckpointSignature:
    key = key_of(name)
    signature = key.sign(checkpoint, contexts.CHECKPOINT)
    return CheckpointSignature(number, checkpoint_hash(checkpoint), signer_key(name).key_id, key.suite_id, signature)


def publish(net: Net, *records: CheckpointProposal | CheckpointSignature | bytes) -> list[int]:
    values = [item if isinstance(item, bytes) else item.to_record() for item in records]
    return net.log.append([Append(CHECKPOINTS, None, value) for value in values])


def kinds_at(report: AuditReport, offset: int, topic: Topic = Topic.CHECKPOINTS) -> set[FindingKind]:
    return {item.kind for item in report.findings if (item.topic, item.offset) == (topic, offset)}


def found(report: AuditReport, kind: FindingKind) -> list[Finding]:
    return [item for item in report.findings if item.kind is kind]


def governed(net: Net, names: Sequence[str], threshold: int, *signers: str) -> None:
    action = SetAttestors(tuple(signer_key(name) for name in names), threshold)
    unsigned = SignedControl(net.chain.chain_id, 1, Hash32(net.chain.chain_id), encode_action(1, action))
    signatures = tuple(
        KeySignature(signer_key(name).key_id, 0xFF, key_of(name).sign(unsigned.message(), contexts.CONTROL))
        for name in signers
    )
    record = replace(unsigned, signatures=signatures).to_record()
    net.log.append([Append(TopicPartition(Topic.CONTROL, 0), None, record)])
