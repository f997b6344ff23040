"""The checkpoints topic, read as an adversary wrote it: one proposal a round, k valid signatures, one chain.

Signers pass over what is out of turn, foreign or forged; an audit names it.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.audit.findings import Finding, FindingKind, Report, one_line
from pipeline.codec.topics import LogRecord, Topic
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


@dataclass(slots=True)
class OpenRound:
    """A proposal and the valid signatures it has."""

    offset: int
    proposal: CheckpointProposal
    checkpoint: Checkpoint
    hash: Hash32
    follows: bool
    signatures: dict[Hash32, CheckpointSignature] = field(default_factory=dict)

    def first(self, threshold: int) -> tuple[KeySignature, ...]:
        """The first `threshold` signatures by offset, as state roots carry them."""
        return key_signatures([*self.signatures.values()][:threshold])


class Electorate(NamedTuple):
    """Who signs the next round."""

    attestors: tuple[SignerKey, ...]
    threshold: int


class RoundReader:
    """Takes the records of `checkpoints` in order and says which round they decide."""

    def __init__(self, chain: Chain, verifier: Verifier, report: Report) -> None:
        """Before round 0."""
        self._chain = chain
        self._verifier = verifier
        self._report = report
        self._hashes: dict[int, Hash32] = {}
        self._passed: tuple[OpenRound, Electorate] | None = None
        self.last_round = -1
        self.last_hash = Hash32(chain.chain_id)
        self.open: OpenRound | None = None

    def hash_of(self, number: int) -> Hash32 | None:
        """The checkpoint of a passed round."""
        return self._hashes.get(number)

    def take(self, record: LogRecord, electorate: Electorate) -> OpenRound | None:
        """Read one record; the round that it gives its quorum, if so. Then call `close`."""
        try:
            signature = CheckpointSignature.from_record(record.value)
        except PoisonRecord:
            self._propose(record)
            return None
        return self._sign(record.offset, signature, electorate)

    def supersedes(self, record: LogRecord) -> bool:
        """Whether the record proposes a round behind the open one, which thus stays without its quorum."""
        if self.open is None:
            return False
        try:
            checkpoint = Checkpoint.from_bytes(CheckpointProposal.from_record(record.value).checkpoint)
        except PoisonRecord:
            return False
        return checkpoint.chain_id == self._chain.chain_id and checkpoint.round == self.open.checkpoint.round + 1

    def close(self, electorate: Electorate) -> None:
        """The open round is passed, decided or not: `last_round` and `last_hash` are its."""
        assert self.open is not None, "close without an open round"
        self.last_round, self.last_hash = self.open.checkpoint.round, self.open.hash
        self._hashes[self.last_round] = self.last_hash
        self._passed = self.open, electorate
        self.open = None

    def _propose(self, record: LogRecord) -> None:
        offset = record.offset
        try:
            proposal = CheckpointProposal.from_record(record.value)
            checkpoint = Checkpoint.from_bytes(proposal.checkpoint)
        except PoisonRecord as error:
            self._say(FindingKind.CHECKPOINT_FOREIGN, offset, f"neither proposal nor signature: {one_line(error)}")
            return
        if checkpoint.chain_id != self._chain.chain_id:
            self._say(FindingKind.CHECKPOINT_FOREIGN, offset, "a checkpoint of another chain")
            return
        hashed, number = checkpoint_hash(proposal.checkpoint), checkpoint.round
        if number <= self.last_round:
            if hashed != self.hash_of(number):
                self._say(FindingKind.EQUIVOCATION, offset, f"a second, different checkpoint of round {number}")
            return
        follows = number == self.last_round + 1 and checkpoint.previous_hash == self.last_hash
        if self.open is not None and (self.open.follows or not follows):
            if proposal != self.open.proposal:
                self._say(
                    FindingKind.EQUIVOCATION, offset, f"a second, different proposal while round {number} is open"
                )
            return
        if not follows:
            what = f"the checkpoint of round {number} does not follow the one of round {self.last_round}"
            self._say(FindingKind.CHECKPOINT_CHAIN, offset, what)
        self.open = OpenRound(offset, proposal, checkpoint, hashed, follows)

    def _sign(self, offset: int, signature: CheckpointSignature, electorate: Electorate) -> OpenRound | None:
        number, opened = signature.round, self.open
        if opened is None or number != opened.checkpoint.round:
            self._late(offset, signature)
            return None
        if signature.checkpoint_hash != opened.hash:
            kind = FindingKind.EQUIVOCATION if signature.signer in opened.signatures else FindingKind.BAD_SIGNATURE
            self._say(kind, offset, f"a signature for another checkpoint of round {number} than the one proposed")
            return None
        if not self._holds(offset, signature, opened, electorate):
            return None
        opened.signatures.setdefault(signature.signer, signature)
        return opened if len(opened.signatures) == electorate.threshold else None

    def _late(self, offset: int, signature: CheckpointSignature) -> None:
        """A signature of a round that has its quorum already: true, but too many; or false."""
        number = signature.round
        known = self.hash_of(number)
        if known is None:
            self._say(FindingKind.CHECKPOINT_FOREIGN, offset, f"a signature of round {number}, which is not proposed")
        elif known != signature.checkpoint_hash:
            self._say(FindingKind.EQUIVOCATION, offset, f"a signature for another checkpoint of round {number}")
        elif self._passed is not None and self._passed[0].checkpoint.round == number:
            self._holds(offset, signature, *self._passed)

    def _holds(self, offset: int, signature: CheckpointSignature, signed: OpenRound, electorate: Electorate) -> bool:
        number, signer = signature.round, signature.signer.hex()[:16]
        key = {key.key_id: key for key in electorate.attestors}.get(signature.signer)
        if key is None:
            what = f"round {number} is signed by key {signer}, which is none of its attestors'"
            self._say(FindingKind.BAD_SIGNATURE, offset, what)
            return False
        datum = signed.proposal.checkpoint
        job = VerifyJob(key.suite, key.public_key, datum, contexts.CHECKPOINT, signature.signature)
        if signature.suite != key.suite or not self._verifier.verify(job):
            what = f"the signature of round {number} by attestor {signer} does not hold"
            self._say(FindingKind.BAD_SIGNATURE, offset, what)
            return False
        return True

    def _say(self, kind: FindingKind, offset: int, message: str) -> None:
        self._report(Finding(kind, message, None, None, Topic.CHECKPOINTS, offset))
