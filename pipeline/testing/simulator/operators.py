"""Operators: the control records that they agree on, and those that only look like it."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from random import Random

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import Address, Hash32, ShardId, TxId
from pipeline.crypto import contexts
from pipeline.ledger.control import (
    Action,
    CollectFees,
    CreateShard,
    KeySignature,
    Quarantine,
    SetAttestors,
    SignedControl,
    encode_action,
)
from pipeline.ledger.genesis import PROTOCOL, SignerKey
from pipeline.ledger.packing import RELAY_ENTRY
from pipeline.ledger.relay import EffectKind, RelayBundle, RelayGroup, encode_groups
from pipeline.testing.reference_control import ReferenceControl
from pipeline.testing.simulator.cluster import Cluster
from pipeline.testing.simulator.prediction import NEVER_SENT
from pipeline.testing.simulator.report import Trace
from pipeline.testing.simulator.traffic import Traffic
from pipeline.testing.suite import TEST_SUITES
from pipeline.testing.world import Actor

_CONTROL = TopicPartition(Topic.CONTROL, 0)
_LIES = ("control replay", "control alone", "control jump", "control unbacked", "control twice signed")


class Operators:
    """Who governs one simulation. What they believe of control is what the model makes of the log."""

    def __init__(
        self,
        cluster: Cluster,
        traffic: Traffic,
        keys: Sequence[Actor],
        attestors: Sequence[Actor],
        random: Random,
        trace: Trace,
    ) -> None:
        """`attestors`: all who ever attest."""
        self._cluster, self._traffic, self._random, self._trace = cluster, traffic, random, trace
        self._keys, self._attestors = keys, {_key(actor): actor for actor in attestors}
        self._model = ReferenceControl(cluster.chain, TEST_SUITES)
        self._next = 1

    def govern(self) -> None:
        """The next control record."""
        self._publish(self._action())

    def _action(self) -> Action:
        random = self._random
        match random.randrange(10):
            case 0:
                return CreateShard(self._cluster.active_shards)
            case 1 | 2 | 3 if self._cluster.chaos.attestors:
                return self._new_attestors()
            case 4 | 5 | 6:
                return self._quarantine()
            case _:
                return CollectFees(random.choice(self._traffic.actors).address)

    def _new_attestors(self) -> SetAttestors:
        pool = sorted(self._attestors, key=lambda key: key.public_key)
        chosen = self._random.sample(pool, self._random.randint(1, len(pool)))
        return SetAttestors(tuple(chosen), self._random.randint(1, len(chosen)))

    def _quarantine(self) -> Action:
        """Of a transaction, executed meanwhile or not, or of a true bundle that waits: executed all the same."""
        random, published = self._random, self._traffic.published
        waiting = self._waiting_bundles()
        if waiting and random.random() < 0.6:
            target, record = random.choice(waiting)
            return _set_aside(target, record.offset, record.value or b"")
        if not published:
            return CollectFees(random.choice(self._traffic.actors).address)
        target, offset, value = published[-1] if random.random() < 0.7 else random.choice(published)
        return _set_aside(target, offset, value if random.random() < 0.8 else b"another")

    def _waiting_bundles(self) -> list[tuple[TopicPartition, LogRecord]]:
        found = []
        for shard in range(self._cluster.active_shards):
            target = TopicPartition(Topic.RELAY, shard)
            position = self._cluster.task(shard).committed.positions[1]
            found += [(target, record) for record in self._cluster.log.read(target, position, 4, 1 << 20)]
        return found

    def _publish(self, action: Action) -> bool:
        """Whether it was acknowledged."""
        signers = [*self._keys, *self._quorum(action)]
        control = self._signed(self._following(action), signers)
        offset = self._cluster.guarded_append(_CONTROL, control.to_record())
        self._trace.event(f"control {type(action).__name__}", f"offset {offset}")
        return offset is not None

    def _quorum(self, action: Action) -> list[Actor]:
        if not isinstance(action, SetAttestors):
            return []
        return [self._attestors[key] for key in self._model.governance[-1].attestors]

    def _following(self, action: Action) -> SignedControl:
        """The next record, not signed."""
        for record in self._read(self._next):
            self._model.record(record.value)
            self._next = record.offset + 1
        body = encode_action(PROTOCOL, action)
        return SignedControl(self._cluster.chain.chain_id, self._model.sequence + 1, Hash32(self._model.head), body)

    def _read(self, start: int) -> list[LogRecord]:
        return self._cluster.log.read(_CONTROL, start, 1_000, 1 << 22)

    @staticmethod
    def _signed(control: SignedControl, signers: Sequence[Actor]) -> SignedControl:
        message = control.message()
        signatures = tuple(
            KeySignature(_key(actor).key_id, actor.key.suite_id, actor.key.sign(message, contexts.CONTROL))
            for actor in signers
        )
        return replace(control, signatures=signatures)

    # Not agreed on

    def lie(self) -> None:
        """A record that looks like the operators' and is not: all become dead letters."""
        random, kind = self._random, self._random.choice(_LIES)
        action: Action = CollectFees(random.choice(self._traffic.actors).address)
        if kind == "control unbacked":  # by those who attest until then
            action = self._new_attestors()
        control = self._following(action)
        value: bytes | None
        match kind:
            case "control replay":
                value = random.choice(self._read(0)[1:] or [LogRecord(0, None, b"nothing")]).value
            case "control alone":
                value = self._signed(control, self._keys[:1]).to_record()
            case "control jump":
                value = self._signed(replace(control, sequence=control.sequence + 1), self._keys).to_record()
            case "control twice signed":
                value = self._signed(control, [self._keys[0]] * 3).to_record()
            case _:
                value = self._signed(control, self._keys).to_record()
        offset = self._cluster.guarded_append(_CONTROL, value)
        self._trace.event(f"lie {kind}", f"control[0] {offset}")

    def forge(self) -> None:
        """A bundle that its source never sent, in a place that operators had set aside before: a dead letter."""
        random, chain = self._random, self._cluster.chain
        shard = random.randrange(chain.genesis.shards)
        source = (shard + 1) % chain.genesis.partitions
        thief = random.choice(self._traffic.actors).address
        entry = RELAY_ENTRY.pack(0, thief, (10**6).to_bytes(16, "big"))
        group = RelayGroup(TxId(bytes(32)), Address(bytes(32)), self._traffic.asset, EffectKind.CREDIT, b"", entry)
        forged = RelayBundle(
            chain.chain_id,
            ShardId(source),
            ShardId(shard),
            0,
            0,
            NEVER_SENT + random.randrange(9),
            Hash32(random.randbytes(32)),
            encode_groups([group]),
        ).to_record()
        target = TopicPartition(Topic.RELAY, shard)
        if self._publish(_set_aside(target, self._cluster.log.end_offset(target), forged)):
            offset = self._cluster.guarded_append(target, forged)
            self._trace.event("lie bundle", f"relay[{shard}] {offset}")


def _set_aside(target: TopicPartition, offset: int, value: bytes) -> Quarantine:
    return Quarantine(int(target.topic), target.partition, offset, Hash32(sha256(value).digest()))


def _key(actor: Actor) -> SignerKey:
    return SignerKey(actor.key.suite_id, actor.key.public_key)
