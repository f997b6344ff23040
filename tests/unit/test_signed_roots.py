"""Which state roots on the log count as signed: by whom, behind what, and at what cost."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from sync_net import Net, alone, key_of, signer_key

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import Hash32
from pipeline.config import Config
from pipeline.crypto import contexts
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import StateSynchronizationFailed, TaskDiverged
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.checkpoints import SignedStateRoot, StateRoot
from pipeline.ledger.control import KeySignature, SetAttestors, SetProtocol, SignedControl, encode_action
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.node.settling import finish
from pipeline.shards.signed_roots import SignedRoots
from pipeline.testing.suite import TEST_SUITES

ROOTS = TopicPartition(Topic.STATE_ROOTS, 0)
CONTROL = TopicPartition(Topic.CONTROL, 0)


class Counting(EmbeddedLog):
    """Counts the records that are read of state-roots and control."""

    def __init__(self) -> None:
        super().__init__(MemoryKeyValue())
        self.records = {Topic.STATE_ROOTS: 0, Topic.CONTROL: 0}

    def read(self, source: TopicPartition, start: int, max_records: int, max_bytes: int) -> list[LogRecord]:
        found = super().read(source, start, max_records, max_bytes)
        if source.topic in self.records:
            self.records[source.topic] += len(found)
        return found


def signed_net(**options: Any) -> tuple[Net, SignedStateRoot]:
    net = Net(shards=2, **options)
    sync = net.synchronizer()
    net.fund({"alice": 100, "bob": 100})
    net.run(sync)
    sync.close()
    return net, net.state_roots(0)[-1]


def publish(net: Net, *records: SignedStateRoot | bytes) -> None:
    values = [item if isinstance(item, bytes) else item.to_record() for item in records]
    net.log.append([Append(ROOTS, None, value) for value in values])


def newest(net: Net) -> StateRoot | None:
    return SignedRoots(net.chain, net.log, InlineVerifier(TEST_SUITES)).newest(0)


def govern(net: Net, names: tuple[str, ...], threshold: int, sequence: int, previous: Hash32, *signers: str) -> None:
    """Publish a `SetAttestors`."""
    action = SetAttestors(tuple(signer_key(name) for name in names), threshold)
    unsigned = SignedControl(net.chain.chain_id, sequence, previous, encode_action(1, action))
    signatures = tuple(
        KeySignature(signer_key(name).key_id, 0xFF, key_of(name).sign(unsigned.message(), contexts.CONTROL))
        for name in signers
    )
    record = SignedControl(net.chain.chain_id, sequence, previous, unsigned.body, signatures)
    net.log.append([Append(CONTROL, None, record.to_record())])


def test_what_no_quorum_signed_is_passed_over() -> None:
    net, true = signed_net()
    head = StateRoot.from_bytes(true.state_root)
    assert newest(net) == head
    others = [alone(true, *names, height=10**6) for names in ((), ("mallory",), ("mallory",) * 300)]
    moved = SignedStateRoot(alone(true, height=9).state_root, true.heads, true.path, true.checkpoint, true.signatures)
    publish(net, *others, b"garbage", b"", moved, *[b"junk"] * 200, net.state_roots(1)[-1])
    assert newest(net) == head


def test_there_may_be_none() -> None:
    net = Net(shards=1)
    assert newest(net) is None
    publish(net, *[b"junk"] * 100)
    assert newest(net) is None


def test_each_record_is_looked_at_once() -> None:
    log = Counting()
    net, true = signed_net(log=log)
    publish(net, *[b"junk"] * 500)
    roots = SignedRoots(net.chain, log, InlineVerifier(TEST_SUITES))
    log.records = dict.fromkeys(log.records, 0)
    head = roots.newest(0)
    read = dict(log.records)
    assert read[Topic.STATE_ROOTS] >= 500
    assert read[Topic.CONTROL] == 1, "genesis"
    for _ in range(10):
        assert roots.newest(0) == head
    assert log.records == read
    publish(net, b"junk")
    assert roots.newest(0) == head
    assert log.records[Topic.STATE_ROOTS] == read[Topic.STATE_ROOTS] + 1
    newer = alone(true, "attestor", height=50)
    publish(net, newer, b"junk")
    assert roots.newest(0) == StateRoot.from_bytes(newer.state_root)
    publish(net, true)
    assert roots.newest(0) == StateRoot.from_bytes(newer.state_root), "what was signed stays signed"


def test_roots_of_every_electorate_that_was_named_by_then() -> None:
    net, true = signed_net()
    govern(net, ("four", "five"), 2, 1, Hash32(net.chain.chain_id), "operator", "attestor")
    govern(net, ("mallory",), 1, 2, Hash32(bytes(32)), "operator", "four", "five")  # does not follow: a dead letter
    head = newest(net)
    assert head is not None

    def height_after(sequence: int, height: int, *names: str) -> int:
        publish(net, alone(true, *names, control_sequence=sequence, height=height))
        found = newest(net)
        assert found is not None
        return found.height

    assert head == StateRoot.from_bytes(true.state_root)
    assert height_after(0, 100, "four", "five") == head.height, "not named by then"
    assert height_after(1, 101, "four") == head.height
    assert height_after(1, 102, "mallory") == head.height
    assert height_after(2, 103, "mallory") == head.height
    assert height_after(1, 104, "four", "five") == 104
    assert height_after(1, 105, "attestor") == 105, "the round that consumes the record is the old ones' to sign"


def replaced_net() -> tuple[Net, SignedStateRoot]:
    """A chain whose only attestor was replaced by four and five, who then signed round 1 for shard 1."""
    net, true = signed_net()
    govern(net, ("four", "five"), 2, 1, Hash32(net.chain.chain_id), "operator", "attestor")
    return net, true


def other_shard(net: Net, number: int, *names: str) -> None:
    """Shard 1's root of a round after the attestors were replaced."""
    record = alone(net.state_roots(1)[-1], *names, control_sequence=1, number=number)
    net.log.append([Append(TopicPartition(Topic.STATE_ROOTS, 1), None, record.to_record())])


def test_who_was_replaced_signs_nothing_above_what_the_newest_attestors_signed() -> None:
    net, true = replaced_net()
    head = newest(net)
    for sequence in (0, 1):
        forged = alone(true, "attestor", control_sequence=sequence, number=10**6, height=10**6)
        publish(net, forged)
    assert newest(net) == StateRoot.from_bytes(forged.state_root), "nobody else signed yet: it could be true"
    other_shard(net, 5, "four", "five")
    assert newest(net) == head, "though the shard itself has made no block since"
    between = alone(true, "attestor", number=4, height=9)
    publish(net, between)
    assert newest(net) == StateRoot.from_bytes(between.state_root), "a round before theirs is its true signers'"
    publish(net, alone(true, "four", "five", control_sequence=1, number=6, height=11))
    found = newest(net)
    assert found is not None
    assert found.height == 11


def test_who_took_a_forgery_for_the_newest_before_there_were_others_thinks_again() -> None:
    net, true = signed_net()
    roots = SignedRoots(net.chain, net.log, InlineVerifier(TEST_SUITES))
    forged = alone(true, "attestor", control_sequence=2**40, number=10**6, height=10**6)
    publish(net, forged)
    assert roots.newest(0) == StateRoot.from_bytes(forged.state_root)
    govern(net, ("four", "five"), 2, 1, Hash32(net.chain.chain_id), "operator", "attestor")
    after = alone(true, "four", "five", control_sequence=1, number=6, height=11)
    publish(net, after)
    assert roots.newest(0) == StateRoot.from_bytes(after.state_root)
    publish(net, forged, true)
    assert roots.newest(0) == StateRoot.from_bytes(after.state_root)


def test_attestors_of_a_protocol_to_come_are_nobody_yet() -> None:
    net, true = signed_net()
    unsigned = SignedControl(net.chain.chain_id, 1, Hash32(net.chain.chain_id), encode_action(1, SetProtocol(2)))
    signature = key_of("operator").sign(unsigned.message(), contexts.CONTROL)
    record = replace(unsigned, signatures=(KeySignature(signer_key("operator").key_id, 0xFF, signature),))
    net.log.append([Append(CONTROL, None, record.to_record())])
    assert newest(net) == StateRoot.from_bytes(true.state_root)
    publish(net, alone(true, "attestor", control_sequence=1, number=7))
    with pytest.raises(TaskDiverged, match="upgrade"):
        newest(net)


def test_a_true_root_put_behind_newer_ones_is_not_the_newest() -> None:
    net, true = signed_net()
    newer = alone(true, "attestor", number=9, height=50)
    publish(net, newer, *[true] * 60)
    assert newest(net) == StateRoot.from_bytes(newer.state_root)


def test_finishing_waits_for_a_quorum() -> None:
    net, true = signed_net()
    net.pay("alice", {"bob": 1})
    net.run()
    publish(net, alone(true, height=10**6))
    asked = 0

    def run_until(condition: Any, timeout_ms: int) -> bool:
        nonlocal asked
        asked += 1
        return bool(condition())

    node: Any = SimpleNamespace(
        chain=net.chain, log=net.log, verifier=net.verifier, tasks=net.tasks, config=Config(), run_until=run_until
    )
    with pytest.raises(StateSynchronizationFailed, match="no signed state root"):
        finish(node)
    assert asked == 2
    sync = net.synchronizer()
    net.run(sync)
    finish(node)
