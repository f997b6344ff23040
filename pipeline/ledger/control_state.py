"""What the control records consumed so far have made of the chain, and the rule that admits the next one."""

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, assert_never

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import Hash32
from pipeline.crypto import contexts
from pipeline.crypto.verifier import Verifier, VerifyJob
from pipeline.errors import ConfigError, PoisonRecord, TaskDiverged
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import Code
from pipeline.ledger.control import (
    Action,
    CollectFees,
    CreateShard,
    Quarantine,
    SetAttestors,
    SetProtocol,
    SetShardMap,
    SignedControl,
    control_hash,
    decode_action,
    signers_of,
)
from pipeline.ledger.genesis import SignerKey


@dataclass(frozen=True, slots=True)
class ControlState:
    """After genesis: sequence 0. `quarantine` holds (topic, partition, offset, sha256) of records to be set aside."""

    sequence: int
    previous_hash: Hash32
    protocol: int
    active_shards: int
    attestors: tuple[SignerKey, ...]
    attestor_threshold: int
    quarantine: frozenset[tuple[int, int, int, bytes]] = frozenset()

    @classmethod
    def start(cls, chain: Chain) -> "ControlState":
        """What genesis says."""
        genesis = chain.genesis
        first = Hash32(chain.chain_id)
        return cls(0, first, genesis.protocol, genesis.shards, genesis.attestors, genesis.attestor_threshold)

    def is_quarantined(self, source: TopicPartition, record: LogRecord) -> bool:
        """Whether operators set this record aside."""
        if not self.quarantine:
            return False
        entry = (int(source.topic), source.partition, record.offset, sha256(record.value or b"").digest())
        return entry in self.quarantine

    def to_json(self) -> dict[str, Any]:
        """The store's private form."""
        return {
            "sequence": self.sequence,
            "previous_hash": self.previous_hash.hex(),
            "protocol": self.protocol,
            "active_shards": self.active_shards,
            "attestors": [[key.suite, key.public_key.hex()] for key in self.attestors],
            "attestor_threshold": self.attestor_threshold,
            "quarantine": sorted([t, p, o, digest.hex()] for t, p, o, digest in self.quarantine),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ControlState":
        """Read back what `to_json` gave."""
        return cls(
            value["sequence"],
            Hash32(bytes.fromhex(value["previous_hash"])),
            value["protocol"],
            value["active_shards"],
            tuple(SignerKey(suite, bytes.fromhex(key)) for suite, key in value["attestors"]),
            value["attestor_threshold"],
            frozenset((t, p, o, bytes.fromhex(digest)) for t, p, o, digest in value["quarantine"]),
        )


@dataclass(frozen=True, slots=True)
class AppliedControl:
    """A valid control record: the state after it, its result, and the action if it is for the engine to carry out."""

    state: ControlState
    code: Code
    action: Action
    record_hash: Hash32


def admit(chain: Chain, state: ControlState, record: LogRecord, verifier: Verifier) -> AppliedControl:
    """Check sequence, chain and signatures of a control record and apply it.

    Raises `PoisonRecord` for anything that is not the next record of k of n operators (a dead letter), and
    `TaskDiverged` for a protocol that this version does not know: it must not execute one more block.
    """
    signed, datum = SignedControl.from_record(record.value)
    if signed.chain_id != chain.chain_id:
        raise PoisonRecord("a control record of another chain")
    if signed.sequence != state.sequence + 1 or signed.previous_hash != state.previous_hash:
        raise PoisonRecord(f"control record {signed.sequence} does not follow {state.sequence}")
    protocol, action = decode_action(signed.body)
    if protocol != state.protocol:
        raise PoisonRecord(f"a control record of protocol {protocol}")
    _check_quorum(chain.genesis.operators, chain.genesis.operator_threshold, signed, verifier)
    if isinstance(action, SetAttestors):
        _check_quorum(state.attestors, state.attestor_threshold, signed, verifier)
    record_hash = control_hash(datum)
    moved = replace(state, sequence=signed.sequence, previous_hash=record_hash)
    after, code = _apply(chain, moved, action, verifier)
    return AppliedControl(after, code, action, record_hash)


def _check_quorum(keys: tuple[SignerKey, ...], threshold: int, signed: SignedControl, verifier: Verifier) -> None:
    message = signed.message()
    valid = sum(
        verifier.verify(VerifyJob(key.suite, key.public_key, message, contexts.CONTROL, item.signature))
        for key, item in signers_of(keys, signed.signatures)
    )
    if valid < threshold:
        raise PoisonRecord(f"control record {signed.sequence} has {valid} of {threshold} signatures")


def _apply(chain: Chain, state: ControlState, action: Action, verifier: Verifier) -> tuple[ControlState, Code]:
    match action:
        case CreateShard(shard):
            if state.active_shards >= chain.genesis.partitions:
                return state, Code.NO_IDLE_PARTITION
            if shard != state.active_shards:
                return state, Code.NOT_APPLICABLE
            return replace(state, active_shards=shard + 1), Code.OK
        case SetAttestors(attestors, threshold):
            try:
                replace(chain.genesis, attestors=attestors, attestor_threshold=threshold).validate()
            except ConfigError:
                return state, Code.NOT_APPLICABLE
            # A key that nobody can verify with would end all rounds, and no quorum could ever replace it.
            if not all(verifier.accepts_key(key.suite, key.public_key) for key in attestors):
                return state, Code.NOT_APPLICABLE
            return replace(state, attestors=attestors, attestor_threshold=threshold), Code.OK
        case SetProtocol(protocol):
            if protocol != state.protocol:
                raise TaskDiverged(f"operators switched to protocol {protocol}: upgrade hauptbuch on every worker")
            return state, Code.NOT_APPLICABLE
        case CollectFees():
            return state, Code.OK
        case Quarantine(topic, partition, offset, digest):
            if topic not in (Topic.TRANSACTIONS, Topic.RELAY):
                return state, Code.NOT_APPLICABLE
            entry = (topic, partition, offset, bytes(digest))
            return replace(state, quarantine=state.quarantine | {entry}), Code.OK
        case SetShardMap():
            return state, Code.REFUSED_IN_PROTOCOL
        case _:
            assert_never(action)
