"""The checkpoints topic, read as an adversary wrote it: one proposal a round, k valid signatures, one chain.

Signers pass over what is out of turn, foreign or forged; an audit names it. Rounds may be many, so of a passed one only
its hash and the offset of its proposal stay in memory: what is said about it later is judged by the log itself.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

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
from pipeline.sync.round_book import FIRST, NEWEST

_MOST_STRAYS: Final = 16

ReadAgain = Callable[[int], LogRecord | None]
"""The record of `checkpoints` at an offset that was read before."""


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

    def __init__(self, chain: Chain, verifier: Verifier, report: Report, read_again: ReadAgain) -> None:
        """Before round 0."""
        self._chain = chain
        self._verifier = verifier
        self._report = report
        self._hashes: dict[int, Hash32] = {}
        self._newest: OpenRound | None = None
        self._offsets: dict[int, int] = {}
        self._voted_from: list[int] = []
        self._voted: list[Electorate] = []
        self._read_again = read_again
        self.last_round = -1
        self.last_hash = Hash32(chain.chain_id)
        self.open: list[OpenRound] = []

    def hash_of(self, number: int) -> Hash32 | None:
        """The checkpoint of a passed round."""
        return self._hashes.get(number)

    def take(self, record: LogRecord, electorate: Electorate) -> list[OpenRound]:
        """Read one record; the proposals of the round that it gives its quorum, if so. Then call `close`.

        They are several where they share a checkpoint and differ in the blocks that they name; at most one is right.
        """
        try:
            signature = CheckpointSignature.from_record(record.value)
        except PoisonRecord:
            self._propose(record)
            return []
        return self._sign(record.offset, signature, electorate)

    def superseded(self, record: LogRecord) -> OpenRound | None:
        """The open round that the record proposes a successor of, and that thus stays without its quorum."""
        if not self.open:
            return None
        try:
            checkpoint = Checkpoint.from_bytes(CheckpointProposal.from_record(record.value).checkpoint)
        except PoisonRecord:
            return None
        if checkpoint.chain_id != self._chain.chain_id:
            return None
        before = [item for item in self.open if item.follows and item.checkpoint.round == checkpoint.round - 1]
        named = [item for item in before if item.hash == checkpoint.previous_hash]
        return next(iter(named + before), None)

    def close(self, opened: OpenRound, electorate: Electorate) -> None:
        """The round is passed, decided or not: `last_round` and `last_hash` are its."""
        self.last_round, self.last_hash = opened.checkpoint.round, opened.hash
        self._hashes[self.last_round] = self.last_hash
        self._newest, self._offsets[self.last_round] = opened, opened.offset
        if not self._voted or self._voted[-1] != electorate:
            self._voted_from.append(self.last_round)
            self._voted.append(electorate)
        self.open = []

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
        if len(proposal.advanced) > self._chain.genesis.partitions:
            self._say(FindingKind.CHECKPOINT_FOREIGN, offset, "a proposal with more heads than there are shards")
            return
        if number <= self.last_round:
            self._late_proposal(offset, proposal, hashed, number)
            return
        if any(item.proposal == proposal for item in self.open):
            return
        follows = number == self.last_round + 1 and checkpoint.previous_hash == self.last_hash
        if not follows:
            what = f"the checkpoint of round {number} does not follow the one of round {self.last_round}"
            self._say(FindingKind.CHECKPOINT_CHAIN, offset, what)
            if len(self.open) >= _MOST_STRAYS:
                return
        elif any(item.follows for item in self.open):
            self._say(FindingKind.EQUIVOCATION, offset, f"a second, different proposal of round {number}")
        self.open.append(OpenRound(offset, proposal, checkpoint, hashed, follows))
        self._bound()

    def _bound(self) -> None:
        """Keep of the unsigned rivals those that signers keep: each of them has been named."""
        unsigned = [index for index, item in enumerate(self.open) if item.follows and not item.signatures]
        if len(unsigned) > FIRST + NEWEST:
            del self.open[unsigned[FIRST]]

    def _late_proposal(self, offset: int, proposal: CheckpointProposal, hashed: Hash32, number: int) -> None:
        """A proposal of a passed round: a recovering proposer's, byte for byte the same; or made up."""
        if hashed != self.hash_of(number):
            self._say(FindingKind.EQUIVOCATION, offset, f"a second, different checkpoint of round {number}")
        elif proposal != self._proposal_of(number):
            self._say(FindingKind.EQUIVOCATION, offset, f"a second, different proposal of round {number}")

    def _proposal_of(self, number: int) -> CheckpointProposal | None:
        if self._newest is not None and self._newest.checkpoint.round == number:
            return self._newest.proposal
        record = self._read_again(self._offsets[number])
        try:
            return None if record is None else CheckpointProposal.from_record(record.value)
        except PoisonRecord:
            return None  # it was one when it was read first: the log is changed under the audit

    def _sign(self, offset: int, signature: CheckpointSignature, electorate: Electorate) -> list[OpenRound]:
        number = signature.round
        rivals = [item for item in self.open if item.checkpoint.round == number]
        signed = [item for item in rivals if item.hash == signature.checkpoint_hash]
        if not rivals:
            self._late(offset, signature)
            return []
        if not signed:
            what = f"a signature for a checkpoint of round {number} that was not proposed"
            self._say(FindingKind.BAD_SIGNATURE, offset, what)
            return []
        if not self._holds(offset, signature, signed[0].proposal.checkpoint, electorate):
            return []
        if any(signature.signer in item.signatures for item in rivals if item not in signed):
            what = f"attestor {signature.signer.hex()[:16]} signed two checkpoints of round {number}"
            self._say(FindingKind.EQUIVOCATION, offset, what)
        for item in signed:
            item.signatures.setdefault(signature.signer, signature)
        return [item for item in signed if len(item.signatures) == electorate.threshold]

    def _late(self, offset: int, signature: CheckpointSignature) -> None:
        """A signature of a round that has its quorum already: true, but too many; or false."""
        number = signature.round
        known = self.hash_of(number)
        if known is None:
            self._say(FindingKind.CHECKPOINT_FOREIGN, offset, f"a signature of round {number}, which is not proposed")
        elif known != signature.checkpoint_hash:
            self._say(FindingKind.EQUIVOCATION, offset, f"a signature for another checkpoint of round {number}")
        else:
            proposal = self._proposal_of(number)
            voted = self._voted[bisect_right(self._voted_from, number) - 1]
            if proposal is None:
                self._say(FindingKind.BAD_SIGNATURE, offset, f"the checkpoint of round {number} can't be read again")
            else:
                self._holds(offset, signature, proposal.checkpoint, voted)

    def _holds(self, offset: int, signature: CheckpointSignature, datum: bytes, electorate: Electorate) -> bool:
        number, signer = signature.round, signature.signer.hex()[:16]
        key = {key.key_id: key for key in electorate.attestors}.get(signature.signer)
        if key is None:
            what = f"round {number} is signed by key {signer}, which is none of its attestors'"
            self._say(FindingKind.BAD_SIGNATURE, offset, what)
            return False
        job = VerifyJob(key.suite, key.public_key, datum, contexts.CHECKPOINT, signature.signature)
        if signature.suite != key.suite or not self._verifier.verify(job):
            what = f"the signature of round {number} by attestor {signer} does not hold"
            self._say(FindingKind.BAD_SIGNATURE, offset, what)
            return False
        return True

    def _say(self, kind: FindingKind, offset: int, message: str) -> None:
        self._report(Finding(kind, message, None, None, Topic.CHECKPOINTS, offset))
