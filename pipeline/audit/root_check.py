"""Signed state roots on `state-roots[p]`: one for each round that moved the shard, each true by itself."""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.audit.findings import Finding, FindingKind, Report, one_line
from pipeline.audit.numbered import NumberedRecords
from pipeline.audit.streams import RecordStream
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import BlockHash, ShardId
from pipeline.crypto import contexts
from pipeline.crypto.verifier import Verifier, VerifyJob
from pipeline.errors import PoisonRecord, VerificationFailed
from pipeline.ledger.checkpoints import Checkpoint, SignedStateRoot, StateRoot
from pipeline.ledger.control import KeySignature
from pipeline.ledger.genesis import SignerKey
from pipeline.log.port import EventLog
from pipeline.tree.rfc6962 import root_from_inclusion


class SignedRound(NamedTuple):
    """A round under its quorum, and who had to sign it."""

    number: int
    checkpoint: bytes
    attestors: Sequence[SignerKey]
    threshold: int


class Expected(NamedTuple):
    """What the blocks on the log say of a signed head; `head` None where the round could not be derived from them."""

    height: int
    head: StateRoot | None
    block_hash: BlockHash | None


class RootCheck:
    """One partition, compared round by round."""

    def __init__(self, log: EventLog, shard: int, verifier: Verifier, report: Report, settled: int) -> None:
        """`settled`: the end of the partition before any round was read; what stands below it must be of such a one."""
        self._shard = ShardId(shard)
        self._verifier = verifier
        self._report = report
        checkpoints = TopicPartition(Topic.CHECKPOINTS, 0)
        stream = RecordStream(log, TopicPartition(Topic.STATE_ROOTS, shard), report)
        # A round takes two records at least, so no round exceeds the end of the checkpoints.
        self._records = NumberedRecords(stream, _round_of, lambda: log.end_offset(checkpoints))
        self._settled = settled
        self._last: bytes | None = None
        self._reached = -1

    @property
    def position(self) -> int:
        """Where the next record stands, at the earliest."""
        return self._records.position

    def round(self, signed: SignedRound, expected: Expected) -> bool:
        """The round's record. False where it is not there: at the end of the partition it may be on its way."""
        found = False
        while (record := self._records.next_for(signed.number)) is not None:
            offset = record.offset
            if record.value == self._last:
                continue
            try:
                root = SignedStateRoot.from_record(record.value)
                number = Checkpoint.from_bytes(root.checkpoint).round
            except PoisonRecord as error:
                self._say(FindingKind.OUTPUT_FOREIGN, None, offset, f"no signed state root: {one_line(error)}")
                continue
            if number != signed.number:
                what = f"a state root of round {number}, which did not move this shard or is done with"
                self._say(FindingKind.OUTPUT_FOREIGN, None, offset, what)
                continue
            if offset < self._reached:
                what = f"the state root of round {number} stands before one of an earlier round"
                self._say(FindingKind.OUTPUT_FOREIGN, expected.height, offset, what)
            found = True
            if self._check(root, signed, expected, offset):
                self._reached, self._last = max(self._reached, offset), record.value
                break  # else anybody may have made it up: the true one may stand behind it
        return found

    def missing(self, number: int, height: int, position: int) -> None:
        """The round's record is not there; `position` as of when it was looked for."""
        what = f"the state root of round {number} is missing; it belongs before this offset"
        self._say(FindingKind.OUTPUT_MISSING, height, position, what)

    def finish(self) -> None:
        """No round follows."""
        for record in self._records.rest(self._settled):
            if record.value != self._last:
                self._say(FindingKind.NO_QUORUM, None, record.offset, "a state root of a round that has no quorum")

    def _check(self, root: SignedStateRoot, signed: SignedRound, expected: Expected, offset: int) -> bool:
        """Whether it has a quorum, be it right or wrong."""
        height = expected.height
        valid = valid_signers(self._verifier, signed.attestors, root.checkpoint, root.signatures)
        if valid < signed.threshold:
            what = f"round {signed.number}: {valid} of {signed.threshold} signatures are valid ones of its attestors"
            self._say(FindingKind.BAD_SIGNATURE, height, offset, what)
        elif root.checkpoint != signed.checkpoint:
            what = f"its attestors signed two checkpoints of round {signed.number}"
            self._say(FindingKind.EQUIVOCATION, height, offset, what)
        complaint = self._complaint(root, expected)
        if complaint:
            self._say(FindingKind.ROOT_MISMATCH, height, offset, f"round {signed.number}: {complaint}")
        return valid >= signed.threshold

    def _complaint(self, root: SignedStateRoot, expected: Expected) -> str | None:
        try:
            head = StateRoot.from_bytes(root.state_root)
            checkpoint = Checkpoint.from_bytes(root.checkpoint)
            if head.shard != self._shard or not 0 <= head.shard < root.heads:
                return f"it is the state root of shard {head.shard}"
            if root_from_inclusion(head.shard, root.heads, root.state_root, root.path) != checkpoint.heads_root:
                return "it is not among the heads that the checkpoint commits to"
        except (PoisonRecord, VerificationFailed) as error:
            return one_line(error)
        if head.height != expected.height:
            return f"it signs block {head.height}, the proposal block {expected.height}"
        if expected.block_hash is not None and head.block_hash != expected.block_hash:
            return f"it signs another block {head.height} than blocks holds"
        if expected.head is not None and head != expected.head:
            return f"it does not agree with block {head.height} on the log"
        return None

    def _say(self, kind: FindingKind, height: int | None, offset: int, message: str) -> None:
        self._report(Finding(kind, message, self._shard, height, Topic.STATE_ROOTS, offset))


def _round_of(record: LogRecord) -> int:
    try:
        return Checkpoint.from_bytes(SignedStateRoot.from_record(record.value).checkpoint).round
    except PoisonRecord:
        return -1


def valid_signers(
    verifier: Verifier, attestors: Sequence[SignerKey], checkpoint: bytes, signatures: Sequence[KeySignature]
) -> int:
    """How many distinct listed attestors signed this checkpoint."""
    listed = {key.key_id: key for key in attestors}
    valid = set()
    for item in signatures:
        key = listed.get(item.signer)
        if key is None or key.suite != item.suite:
            continue
        if verifier.verify(VerifyJob(key.suite, key.public_key, checkpoint, contexts.CHECKPOINT, item.signature)):
            valid.add(item.signer)
    return len(valid)
