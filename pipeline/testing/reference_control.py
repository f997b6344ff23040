"""The rules of the control topic a second time, as plainly as possible: what tests hold the product against.

Like `pipeline.testing.reference` it shares record types, codes and hashes with the product, and no rule.
"""

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.codec.topics import Topic
from pipeline.crypto import contexts
from pipeline.crypto.suites import SuiteSet
from pipeline.errors import PoisonRecord
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import Code
from pipeline.ledger.control import (
    Action,
    CollectFees,
    CreateShard,
    Quarantine,
    SetAttestors,
    SignedControl,
    control_hash,
    decode_action,
)
from pipeline.ledger.genesis import SignerKey


class Governance(NamedTuple):
    """Who signs rounds."""

    attestors: tuple[SignerKey, ...]
    threshold: int


class Ruling(NamedTuple):
    """A control record that counts."""

    action: Action
    code: Code
    record_hash: bytes


class ReferenceControl:
    """Feed it all records of `control` behind genesis, in order."""

    def __init__(self, chain: Chain, suites: SuiteSet) -> None:
        """After genesis."""
        self._genesis, self._suites = chain.genesis, suites
        self._chain_id = chain.chain_id
        self.head: bytes = chain.chain_id
        self.active_shards = chain.genesis.shards
        self.governance = [Governance(chain.genesis.attestors, chain.genesis.attestor_threshold)]
        """In force after each control record; index = sequence."""

    @property
    def sequence(self) -> int:
        """Of the last record that counts."""
        return len(self.governance) - 1

    def record(self, value: bytes | None) -> Ruling | None:
        """What a record does; None for one that becomes a dead letter."""
        try:
            signed, datum = SignedControl.from_record(value)
            if signed.chain_id != self._chain_id:
                return None
            if (signed.sequence, signed.previous_hash) != (self.sequence + 1, self.head):
                return None
            protocol, action = decode_action(signed.body)
        except PoisonRecord:
            return None
        attestors, threshold = self.governance[-1]
        if protocol != 1 or not self._agreed(self._genesis.operators, self._genesis.operator_threshold, signed):
            return None
        if isinstance(action, SetAttestors) and not self._agreed(attestors, threshold, signed):
            return None
        self.head = control_hash(datum)
        self.governance.append(self.governance[-1])
        return Ruling(action, self._apply(action), self.head)

    def _agreed(self, keys: Iterable[SignerKey], threshold: int, signed: SignedControl) -> bool:
        signers = [signature.signer for signature in signed.signatures]
        if len(set(signers)) < len(signers):
            return False
        message, valid = signed.message(), 0
        for key in keys:
            for item in signed.signatures:
                if item.signer == key.key_id and item.suite == key.suite:
                    valid += self._suites.verify(key.suite, key.public_key, message, contexts.CONTROL, item.signature)
        return valid >= threshold

    def _apply(self, action: Action) -> Code:
        match action:
            case CollectFees():
                return Code.OK
            case Quarantine():
                return Code.OK if action.topic in (Topic.TRANSACTIONS, Topic.RELAY) else Code.NOT_APPLICABLE
            case CreateShard():
                if self.active_shards == self._genesis.partitions:
                    return Code.NO_IDLE_PARTITION
                if action.shard != self.active_shards:
                    return Code.NOT_APPLICABLE
                self.active_shards += 1
                return Code.OK
            case SetAttestors():
                if not 1 <= action.threshold <= len(set(action.attestors)) == len(action.attestors):
                    return Code.NOT_APPLICABLE
                self.governance[-1] = Governance(action.attestors, action.threshold)
                return Code.OK
            case _:
                raise AssertionError(f"no scenario publishes {type(action).__name__}")
