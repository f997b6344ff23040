"""What the `checkpoints` topic says about the next round: proposals, and signatures by the attestors in force.

Read strictly in offset order: everything about round r stands before anything about round r + 1, since a proposer
proposes only after the previous round has its quorum. What is out of turn, foreign or forged is passed over.

Anybody who may write the topic can make up proposals, so unsigned ones are bounded: the first `FIRST` of a round stay,
and of those behind them the newest `NEWEST`, so that an early valid proposal is not pushed out, nor a late one shut
out. What an attestor signed stays too. This depends on the topic alone: all who read it keep the same.
"""

from dataclasses import dataclass, field
from typing import Final

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import Hash32
from pipeline.crypto import contexts
from pipeline.crypto.verifier import Verifier, VerifyJob
from pipeline.errors import PoisonRecord
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import (
    Checkpoint,
    CheckpointProposal,
    CheckpointSignature,
    checkpoint_hash,
    key_signatures,
)
from pipeline.ledger.control import KeySignature
from pipeline.ledger.genesis import SignerKey
from pipeline.log.port import EventLog
from pipeline.sync.signed_ledger import SignedLedger

CHECKPOINTS: Final = TopicPartition(Topic.CHECKPOINTS, 0)
FIRST: Final = 192
NEWEST: Final = 64
_PAGE: Final = 256
_PAGE_BYTES: Final = 8 * 2**20


@dataclass(slots=True)
class Candidate:
    """A proposal for the next round and the valid signatures it has so far, by offset, one a signer."""

    proposal: CheckpointProposal
    checkpoint: Checkpoint
    checkpoint_hash: Hash32
    signatures: dict[Hash32, CheckpointSignature] = field(default_factory=dict)
    is_invalid: bool = False
    """What was found invalid stays so for its round: nobody judges it again."""

    def first(self, threshold: int) -> tuple[KeySignature, ...]:
        """The first `threshold` signatures by offset."""
        return key_signatures([*self.signatures.values()][:threshold])


class RoundBook:
    """Follows `checkpoints` one round at a time."""

    def __init__(self, chain: Chain, log: EventLog, verifier: Verifier, next_offset: int) -> None:
        """Reads on from `next_offset`."""
        self._chain = chain
        self._log = log
        self._verifier = verifier
        self._unread: list[LogRecord] = []
        self._position = next_offset
        self.next_offset = next_offset
        self.at_end = False
        self.candidates: list[Candidate] = []

    def poll(self, ledger: SignedLedger, attestors: tuple[SignerKey, ...], threshold: int) -> list[Candidate]:
        """Read on until proposals for the round after `ledger` have their quorum, or the topic ends (`at_end`).

        Two proposals can share a checkpoint, and so its signatures, and differ in the blocks they name; at most one of
        those is right.
        """
        listed = {key.key_id: key for key in attestors}
        while not (decided := [item for item in self.candidates if len(item.signatures) >= threshold]):
            if not self._unread:
                self._unread = self._log.read(CHECKPOINTS, self._position, _PAGE, _PAGE_BYTES)[::-1]
                self.at_end = not self._unread
                if self.at_end:
                    return []
                self._position = self._unread[0].offset + 1
            record = self._unread.pop()
            self.next_offset = record.offset + 1
            self._take(record, ledger, listed)
        return decided

    def turn(self) -> None:
        """The round is decided: what was read about it is done with."""
        self.candidates.clear()

    def _take(self, record: LogRecord, ledger: SignedLedger, listed: dict[Hash32, SignerKey]) -> None:
        try:
            signature = CheckpointSignature.from_record(record.value)
        except PoisonRecord:
            self._propose(record, ledger)
        else:
            self._sign(signature, ledger, listed)

    def _propose(self, record: LogRecord, ledger: SignedLedger) -> None:
        try:
            proposal = CheckpointProposal.from_record(record.value)
            checkpoint = Checkpoint.from_bytes(proposal.checkpoint)
        except PoisonRecord:
            return
        if not self._has_shape(proposal):
            return
        hashed = checkpoint_hash(proposal.checkpoint)
        if (
            checkpoint.chain_id == self._chain.chain_id
            and checkpoint.round == ledger.round + 1
            and checkpoint.previous_hash == ledger.checkpoint_hash
            and all(candidate.proposal != proposal for candidate in self.candidates)
        ):
            self.candidates.append(Candidate(proposal, checkpoint, hashed))
            self._bound()

    def _has_shape(self, proposal: CheckpointProposal) -> bool:
        """Each shard once at most. Thus a proposal is small, whoever made it up; no attestor signs another."""
        advanced = proposal.advanced
        return len(advanced) <= self._chain.genesis.partitions and len(dict(advanced)) == len(advanced)

    def _bound(self) -> None:
        """Drop the oldest unsigned proposal behind the first ones, where there are too many."""
        unsigned = [index for index, item in enumerate(self.candidates) if not item.signatures]
        if len(unsigned) > FIRST + NEWEST:
            del self.candidates[unsigned[FIRST]]

    def _sign(self, signature: CheckpointSignature, ledger: SignedLedger, listed: dict[Hash32, SignerKey]) -> None:
        key = listed.get(signature.signer)
        if key is None or key.suite != signature.suite or signature.round != ledger.round + 1:
            return
        for candidate in self.candidates:
            if candidate.checkpoint_hash == signature.checkpoint_hash and signature.signer not in candidate.signatures:
                datum = candidate.proposal.checkpoint
                job = VerifyJob(key.suite, key.public_key, datum, contexts.CHECKPOINT, signature.signature)
                if self._verifier.verify(job):
                    candidate.signatures[signature.signer] = signature
