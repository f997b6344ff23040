"""The checkpoints topic, read as an adversary wrote it: one proposal a round, k valid signatures, one chain.

Signers pass over what is out of turn, foreign or forged; an audit names it. Anybody who may write the topic can make up
a proposal, so only valid signatures pass a round: its own, or those of a later one that stands on it. Rounds may be
many, so of a passed one only its hash and the offset of its proposal stay in memory: what is said about it later is
judged by the log itself.
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
_MOST_LOSERS: Final = 16

ReadAgain = Callable[[int], LogRecord | None]
"""The record of `checkpoints` at an offset that was read before."""


class Electorate(NamedTuple):
    """Who signs the next round."""

    attestors: tuple[SignerKey, ...]
    threshold: int


ElectorateAfter = Callable[[Checkpoint], Electorate | None]
"""Who signs what follows a checkpoint; None where its control record is not there."""


@dataclass(slots=True)
class OpenRound:
    """A proposal and the valid signatures it has.

    `follows`: it names the last passed round. `is_early`: it names a proposal that is open itself, or leads to one, and
    no signer looks at it before that has its quorum. `electorate`: who would have to sign it.
    """

    offset: int
    proposal: CheckpointProposal
    checkpoint: Checkpoint
    hash: Hash32
    follows: bool
    is_early: bool
    electorate: Electorate
    signatures: dict[Hash32, CheckpointSignature] = field(default_factory=dict)

    def first(self) -> tuple[KeySignature, ...]:
        """The first signatures by offset, as many as are needed: as state roots carry them."""
        return key_signatures([*self.signatures.values()][: self.electorate.threshold])


class RoundReader:
    """Takes the records of `checkpoints` in order and says which round they decide."""

    def __init__(
        self, chain: Chain, verifier: Verifier, report: Report, read_again: ReadAgain, electorate_after: ElectorateAfter
    ) -> None:
        """Before round 0."""
        self._chain = chain
        self._verifier = verifier
        self._report = report
        self._hashes: dict[int, Hash32] = {}
        self._newest: OpenRound | None = None
        self._offsets: dict[int, int] = {}
        self._losers: dict[int, list[int]] = {}
        self._voted_from: list[int] = []
        self._voted: list[Electorate] = []
        self._read_again = read_again
        self._electorate_after = electorate_after
        self.electorate = Electorate(chain.genesis.attestors, chain.genesis.attestor_threshold)
        self._last_sequence = 0
        self.last_round = -1
        self.last_hash = Hash32(chain.chain_id)
        self.open: list[OpenRound] = []

    def hash_of(self, number: int) -> Hash32 | None:
        """The checkpoint of a passed round."""
        return self._hashes.get(number)

    def take(self, record: LogRecord) -> list[OpenRound]:
        """Read one record; the proposals of the round that it gives its quorum, if so. Then call `close`.

        They are several where they share a checkpoint and differ in the blocks that they name; at most one is right.
        """
        try:
            signature = CheckpointSignature.from_record(record.value)
        except PoisonRecord:
            self._propose(record)
            return []
        return self._sign(record.offset, signature)

    def superseded(self, decided: list[OpenRound]) -> list[OpenRound]:
        """The open rounds below a decided one that it stands on, ascending: it has a quorum and they have none.

        Close them first, in this order; the decided one follows then.
        """
        path: list[OpenRound] = []
        item = decided[0]
        while item.is_early:
            before = self._named_by(item.checkpoint)
            if before is None:
                return []  # it was dropped as one of too many: the round stays out of turn
            path.append(before)
            item = before
        if path:
            for item in (*decided, *path):
                item.follows, item.is_early = True, False
        return path[::-1]

    def close(self, opened: OpenRound) -> None:
        """The round is passed, decided or not: `last_round` and `last_hash` are its, `electorate` what follows it."""
        number = opened.checkpoint.round
        self.last_round, self.last_hash = number, opened.hash
        self._last_sequence = max(self._last_sequence, opened.checkpoint.control_sequence)
        self._hashes[number] = opened.hash
        self._newest, self._offsets[number] = opened, opened.offset
        if not self._voted or self._voted[-1] != self.electorate:
            self._voted_from.append(number)
            self._voted.append(self.electorate)
        self.electorate = self._electorate_after(opened.checkpoint) or self.electorate
        losers = [item.offset for item in self.open if item.checkpoint.round == number and item.hash != opened.hash]
        if losers:
            self._losers[number] = losers[-_MOST_LOSERS:]
        self.finish()

    def finish(self) -> None:
        """Nothing is open any more: what is left came before its time."""
        for item in self.open:
            self._dropped(item)
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
        before = None if follows else self._named_by(checkpoint)
        if follows:
            if any(item.follows for item in self.open):
                self._say(FindingKind.EQUIVOCATION, offset, f"a second, different proposal of round {number}")
        elif before is None:
            what = f"the checkpoint of round {number} does not follow the one of round {self.last_round}"
            self._say(FindingKind.CHECKPOINT_CHAIN, offset, what)
        electorate = self._electorate_after(before.checkpoint) if before is not None else None
        opened = OpenRound(
            offset, proposal, checkpoint, hashed, follows, before is not None, electorate or self.electorate
        )
        self.open.append(opened)
        self._bound(opened)

    def _named_by(self, checkpoint: Checkpoint) -> OpenRound | None:
        """The open proposal that a checkpoint stands on, where that leads back to the last passed round.

        One that goes back to older control records is none: their attestors' keys may be anybody's by now.
        """
        for item in self.open:
            if item.checkpoint.round == checkpoint.round - 1 and item.hash == checkpoint.previous_hash:
                leads_back = item.follows or item.is_early
                return item if leads_back and item.checkpoint.control_sequence >= self._last_sequence else None
        return None

    def _bound(self, newest: OpenRound) -> None:
        """Keep of the unsigned those that signers keep, and few of those that lead nowhere: all of them get named."""
        kind = (newest.follows, newest.is_early)
        unsigned = [item for item in self.open if not item.signatures and (item.follows, item.is_early) == kind]
        first, most = (FIRST, FIRST + NEWEST) if any(kind) else (0, _MOST_STRAYS)
        if len(unsigned) > most:
            self.open.remove(unsigned[first])
            self._dropped(unsigned[first])

    def _dropped(self, item: OpenRound) -> None:
        if item.is_early:
            number = item.checkpoint.round
            what = f"round {number} is proposed while round {number - 1} has no quorum"
            self._say(FindingKind.CHECKPOINT_CHAIN, item.offset, what)

    def _late_proposal(self, offset: int, proposal: CheckpointProposal, hashed: Hash32, number: int) -> None:
        """A proposal of a passed round: a recovering proposer's, byte for byte the same; or made up."""
        if hashed != self.hash_of(number):
            self._say(FindingKind.EQUIVOCATION, offset, f"a second, different checkpoint of round {number}")
            losers = self._losers.setdefault(number, [])
            losers.append(offset)
            del losers[:-_MOST_LOSERS]
        elif proposal != self._proposal_of(number):
            self._say(FindingKind.EQUIVOCATION, offset, f"a second, different proposal of round {number}")

    def _proposal_of(self, number: int) -> CheckpointProposal | None:
        if self._newest is not None and self._newest.checkpoint.round == number:
            return self._newest.proposal
        return self._proposal_at(self._offsets[number])

    def _proposal_at(self, offset: int) -> CheckpointProposal | None:
        record = self._read_again(offset)
        try:
            return None if record is None else CheckpointProposal.from_record(record.value)
        except PoisonRecord:
            return None  # it was one when it was read first: the log is changed under the audit

    def _sign(self, offset: int, signature: CheckpointSignature) -> list[OpenRound]:
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
        if not self._holds(offset, signature, signed[0].proposal.checkpoint, signed[0].electorate):
            return []
        if any(signature.signer in item.signatures for item in rivals if item not in signed):
            what = f"attestor {signature.signer.hex()[:16]} signed two checkpoints of round {number}"
            self._say(FindingKind.EQUIVOCATION, offset, what)
        for item in signed:
            item.signatures.setdefault(signature.signer, signature)
        return [item for item in signed if len(item.signatures) == item.electorate.threshold]

    def _late(self, offset: int, signature: CheckpointSignature) -> None:
        """A signature of a round that has its quorum already: true, but too many; or false; or for another one."""
        number = signature.round
        known = self.hash_of(number)
        if known is None:
            self._say(FindingKind.CHECKPOINT_FOREIGN, offset, f"a signature of round {number}, which is not proposed")
            return
        voted = self._voted[bisect_right(self._voted_from, number) - 1]
        if known == signature.checkpoint_hash:
            proposal = self._proposal_of(number)
            if proposal is None:
                self._say(FindingKind.BAD_SIGNATURE, offset, f"the checkpoint of round {number} can't be read again")
            else:
                self._holds(offset, signature, proposal.checkpoint, voted)
            return
        lost = [item for at in self._losers.get(number, ()) if (item := self._proposal_at(at)) is not None]
        signed = [item.checkpoint for item in lost if checkpoint_hash(item.checkpoint) == signature.checkpoint_hash]
        if not signed:
            what = f"a signature for a checkpoint of round {number} that was not proposed"
            self._say(FindingKind.BAD_SIGNATURE, offset, what)
        elif self._holds(offset, signature, signed[0], voted):
            what = f"attestor {signature.signer.hex()[:16]} signed another checkpoint of round {number} than its quorum"
            self._say(FindingKind.EQUIVOCATION, offset, what)

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
