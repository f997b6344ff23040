"""Rounds: each checkpoint follows from the blocks on the log, under its quorum, and its state roots say so.

What a checkpoint must be is computed by the synchronizer's own pure function from headers alone; that the headers are
true is the replay's part. Where a round can't be derived any more (a block that its quorum signed is altered or gone),
signatures, chain and state roots are checked on all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

from pipeline.audit.findings import Finding, FindingKind, Report, one_line
from pipeline.audit.header_track import HeaderTrack
from pipeline.audit.root_check import Expected, RootCheck, SignedRound
from pipeline.audit.round_reader import Electorate, OpenRound, RoundReader
from pipeline.audit.streams import RecordStream
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import ChainId, Hash32
from pipeline.crypto.verifier import Verifier
from pipeline.errors import TaskDiverged
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Checkpoint
from pipeline.log.port import EventLog
from pipeline.sync.control_feed import ControlFeed
from pipeline.sync.rounds import RoundTerms, plan_round, signed
from pipeline.sync.shard_track import CheckedBlock
from pipeline.sync.signed_ledger import SignedLedger

_CHECKPOINTS = TopicPartition(Topic.CHECKPOINTS, 0)
_PAGE_BYTES = 8 * 2**20


class SeenCheckpoint(Protocol):
    """A checkpoint that the auditor saw before."""

    @property
    def round(self) -> int:
        """Its round."""

    @property
    def hash(self) -> Hash32:
        """Its hash."""


class Trust(Protocol):
    """What the auditor knows from elsewhere; a trust file fits."""

    @property
    def chain_id(self) -> ChainId:
        """The chain."""

    @property
    def last_checkpoint(self) -> SeenCheckpoint | None:
        """The newest checkpoint seen, if any."""


@dataclass(frozen=True, slots=True)
class RoundsResult:
    """`verified`: the last round, from 0 on, in which nothing was wrong; -1 for none. `hash`: its checkpoint's.

    `heads`: shard -> signed height as of that round. `last`: the last round on the log, verified or not.
    """

    verified: int
    hash: Hash32
    heads: Mapping[int, int]
    last: int


class Settled(NamedTuple):
    """Ends of partitions before any block was read, in the order of reading: what stands below them on one topic must
    agree with the whole of those that come after it, also while the chain grows. Index = partition.
    """

    state_roots: Sequence[int]
    checkpoints: int
    relay: Sequence[int]

    @classmethod
    def of(cls, log: EventLog, partitions: int) -> "Settled":
        """As of now."""

        def ends(topic: Topic) -> list[int]:
            return [log.end_offset(TopicPartition(topic, number)) for number in range(partitions)]

        return cls(ends(Topic.STATE_ROOTS), log.end_offset(_CHECKPOINTS), ends(Topic.RELAY))


class RoundsCheck:
    """Reads `checkpoints` and `state-roots`, and of the headers as much as those sign."""

    def __init__(
        self,
        log: EventLog,
        chain: Chain,
        verifier: Verifier,
        control: ControlFeed,
        tracks: Mapping[int, HeaderTrack],
        settled: Settled,
        report: Report,
    ) -> None:
        """`control` has read the control topic to its end."""
        self._chain = chain
        self._control = control
        self._tracks = tracks
        self._report = self._noting(report)
        self._wrong = False
        self._stream = RecordStream(log, _CHECKPOINTS, self._report, end=settled.checkpoints)
        self._log = log
        self._reader = RoundReader(chain, verifier, self._report, self._read_again, self._electorate_after)
        self._roots = {
            shard: RootCheck(log, shard, verifier, self._report, settled.state_roots[shard]) for shard in tracks
        }
        self._ledger: SignedLedger | None = SignedLedger.start(chain)
        self._unpublished: list[tuple[int, int, int, int]] = []
        self._verified = -1
        self._verified_hash = Hash32(chain.chain_id)
        self._verified_heads: dict[int, int] = {}

    def run(self, trust: Trust | None) -> RoundsResult:
        """Check all rounds; then, against `trust`, that the newest checkpoint seen before is among them."""
        while (record := self._stream.pop()) is not None:
            decided = self._reader.take(record)
            if not decided:
                continue
            for passed in self._reader.superseded(decided):
                what = f"round {passed.checkpoint.round} was followed by the next without its quorum"
                self._report(self._finding(FindingKind.NO_QUORUM, passed.offset, what))
                self._decided([passed])
            self._decided(decided)
        self._reader.finish()
        for number, shard, height, position in self._unpublished:
            # A quorum of several publishes in a transaction of its own, after the signatures.
            if number != self._reader.last_round or self._reader.electorate.threshold == 1:
                self._roots[shard].missing(number, height, position)
        for check in self._roots.values():
            check.finish()
        if trust is not None and trust.last_checkpoint is not None:
            self._check_seen(trust.last_checkpoint)
        return RoundsResult(self._verified, self._verified_hash, self._verified_heads, self._reader.last_round)

    def _decided(self, candidates: Sequence[OpenRound]) -> None:
        judged = [(opened, *self._judge(opened)) for opened in candidates]
        opened, after, findings = next((item for item in judged if item[1] is not None), judged[0])
        for finding in findings:
            self._report(finding)
        heights, checkpoint = dict(opened.proposal.advanced), opened.checkpoint
        self._ledger = after
        self._reader.close(opened)
        for shard, height in heights.items():
            if shard in self._tracks:
                self._tracks[shard].sign_off(height)
        self._check_roots(opened, heights)
        if any(shard not in self._tracks or height > self._tracks[shard].replayed for shard, height in heights.items()):
            self._wrong = True  # signed, but not what executing again gives: the replay has said why
        if self._ledger is not None and not self._wrong:
            self._verified, self._verified_hash = checkpoint.round, opened.hash
            self._verified_heads.update(heights)

    def _judge(self, opened: OpenRound) -> tuple[SignedLedger | None, list[Finding]]:
        """The ledger after the round, if that can be told and the checkpoint is what the blocks lead to."""
        checkpoint, findings = opened.checkpoint, list[Finding]()
        name = f"round {checkpoint.round}"
        state = self._control.at_sequence(checkpoint.control_sequence)
        if state is None:
            what = f"{name} is under control record {checkpoint.control_sequence}, which is not there"
            return None, [self._finding(FindingKind.ROOT_MISMATCH, opened.offset, what)]
        blocks = self._taken(opened, state.active_shards, findings)
        ledger = self._ledger
        if blocks is None or ledger is None or not opened.follows:
            return None, findings
        consumed = max([taken[-1].cursor.control.sequence for taken in blocks.values()])
        complaint = None
        if checkpoint.timestamp_ms < ledger.timestamp_ms:
            complaint = "its time is before its predecessor's"
        elif checkpoint.control_sequence < max(consumed, ledger.control_sequence):
            complaint = f"its control sequence {checkpoint.control_sequence} is behind what its blocks consumed"
        if complaint:
            return None, [self._finding(FindingKind.ROOT_MISMATCH, opened.offset, f"{name}: {complaint}")]
        terms = RoundTerms(
            checkpoint.timestamp_ms, checkpoint.control_sequence, state.active_shards, checkpoint.assurance
        )
        try:
            plan = plan_round(self._chain, ledger, blocks, terms)
        except TaskDiverged as error:
            what = f"{name} is no consistent cut: {one_line(error)}"
            return None, [self._finding(FindingKind.CUT_INCONSISTENT, opened.offset, what)]
        if plan.proposal != opened.proposal:
            what = f"{name}: the blocks on the log lead to another ledger root or other heads"
            return None, [self._finding(FindingKind.ROOT_MISMATCH, opened.offset, what)]
        return signed(plan, opened.first()), []

    def _taken(self, opened: OpenRound, active: int, findings: list[Finding]) -> dict[int, list[CheckedBlock]] | None:
        """The blocks that the round signs; None, and perhaps a finding, where they are not there or do not hold."""
        taken: dict[int, list[CheckedBlock]] = {}
        number, advanced = opened.checkpoint.round, opened.proposal.advanced
        shards = [shard for shard, _ in advanced]
        known = all(shard < active and shard in self._tracks for shard in shards)
        if not shards or not known or any(a >= b for a, b in pairwise(shards)):
            what = f"round {number} does not name active shards, ascending"
            findings.append(self._finding(FindingKind.ROOT_MISMATCH, opened.offset, what))
            return None
        for shard, height in advanced:
            track = self._tracks[shard]
            blocks = track.up_to(height)
            if blocks is not None:
                taken[shard] = blocks
            elif track.read_height < height:
                what = f"round {number} signs block {height}, but blocks end at {track.read_height}: history was cut"
                place = opened.offset
                findings.append(Finding(FindingKind.HISTORY_CUT, what, shard, height, Topic.CHECKPOINTS, place))
            elif track.holds:
                what = f"round {number} signs block {height} of shard {shard}, which an earlier round signed"
                findings.append(self._finding(FindingKind.ROOT_MISMATCH, opened.offset, what))
        return taken if len(taken) == len(advanced) else None

    def _check_roots(self, opened: OpenRound, heights: Mapping[int, int]) -> None:
        checkpoint = SignedRound(opened.checkpoint.round, opened.proposal.checkpoint, *opened.electorate)
        for shard, height in sorted(heights.items()):
            track = self._tracks.get(shard)
            if track is None:
                continue
            head = None if self._ledger is None else self._ledger.shards[shard].head
            roots = self._roots[shard]
            if not roots.round(checkpoint, Expected(height, head, track.hash_at(height))):
                self._unpublished.append((checkpoint.number, shard, height, roots.position))

    def _electorate_after(self, checkpoint: Checkpoint) -> Electorate | None:
        state = self._control.at_sequence(checkpoint.control_sequence)
        return None if state is None else Electorate(state.attestors, state.attestor_threshold)

    def _read_again(self, offset: int) -> LogRecord | None:
        records = self._log.read(_CHECKPOINTS, offset, 1, _PAGE_BYTES)
        return records[0] if records and records[0].offset == offset else None

    def _check_seen(self, seen: SeenCheckpoint) -> None:
        found = self._reader.hash_of(seen.round)
        end = self._stream.end
        if found is None:
            last = self._reader.last_round
            what = f"round {seen.round}, seen before, is not on the log: history was cut after round {last}"
            self._report(self._finding(FindingKind.HISTORY_CUT, end, what))
        elif found != seen.hash:
            what = f"round {seen.round} has another checkpoint than the one seen before: history was replaced"
            self._report(self._finding(FindingKind.EQUIVOCATION, end, what))

    def _noting(self, report: Report) -> Report:
        def note(finding: Finding) -> None:
            self._wrong = True
            report(finding)

        return note

    @staticmethod
    def _finding(kind: FindingKind, offset: int, message: str) -> Finding:
        return Finding(kind, message, None, None, Topic.CHECKPOINTS, offset)
