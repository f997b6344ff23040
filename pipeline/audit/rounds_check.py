"""Rounds: each checkpoint follows from the blocks on the log, under its quorum, and its state roots say so.

What a checkpoint must be is computed by the synchronizer's own pure function from headers alone; that the headers are
true is the replay's part. Where a round can't be derived any more (a block that its quorum signed is altered or gone),
signatures, chain and state roots are checked on all the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pipeline.audit.findings import Finding, FindingKind, Report, one_line
from pipeline.audit.header_track import HeaderTrack
from pipeline.audit.root_check import Expected, RootCheck, SignedRound
from pipeline.audit.round_reader import Electorate, OpenRound, RoundReader
from pipeline.audit.streams import RecordStream
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ChainId, Hash32
from pipeline.crypto.verifier import Verifier
from pipeline.errors import TaskDiverged
from pipeline.ledger.chain import Chain
from pipeline.log.port import EventLog
from pipeline.sync.control_feed import ControlFeed
from pipeline.sync.rounds import RoundTerms, plan_round, signed
from pipeline.sync.shard_track import CheckedBlock
from pipeline.sync.signed_ledger import SignedLedger

_CHECKPOINTS = TopicPartition(Topic.CHECKPOINTS, 0)


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


class RoundsCheck:
    """Reads `checkpoints` and `state-roots`, and of the headers as much as those sign."""

    def __init__(
        self,
        log: EventLog,
        chain: Chain,
        verifier: Verifier,
        control: ControlFeed,
        tracks: Mapping[int, HeaderTrack],
        report: Report,
    ) -> None:
        """`control` has read the control topic to its end."""
        self._chain = chain
        self._control = control
        self._tracks = tracks
        self._report = self._noting(report)
        self._wrong = False
        self._stream = RecordStream(log, _CHECKPOINTS, self._report)
        self._reader = RoundReader(chain, verifier, self._report)
        self._roots = {shard: RootCheck(log, shard, verifier, self._report) for shard in tracks}
        self._ledger: SignedLedger | None = SignedLedger.start(chain)
        self._electorate = Electorate(chain.genesis.attestors, chain.genesis.attestor_threshold)
        self._unpublished: list[tuple[int, int, int]] = []
        self._verified = -1
        self._verified_hash = Hash32(chain.chain_id)
        self._heads: dict[int, int] = {}
        self._verified_heads: dict[int, int] = {}

    def run(self, trust: Trust | None) -> RoundsResult:
        """Check all rounds; then, against `trust`, that the newest checkpoint seen before is among them."""
        while (record := self._stream.pop()) is not None:
            if self._reader.supersedes(record):
                opened = self._reader.open
                assert opened is not None, "superseded"
                what = f"round {opened.checkpoint.round} was followed by the next without its quorum"
                self._say(FindingKind.NO_QUORUM, opened.offset, what)
                self._decided(opened)
            decided = self._reader.take(record, self._electorate)
            if decided is not None:
                self._decided(decided)
        for number, shard, height in self._unpublished:
            # A quorum of several publishes in a transaction of its own, after the signatures.
            if number != self._reader.last_round or self._electorate.threshold == 1:
                self._roots[shard].missing(number, height)
        for check in self._roots.values():
            check.finish()
        if trust is not None and trust.last_checkpoint is not None:
            self._check_seen(trust.last_checkpoint)
        return RoundsResult(self._verified, self._verified_hash, self._verified_heads, self._reader.last_round)

    def _decided(self, opened: OpenRound) -> None:
        checkpoint = opened.checkpoint
        voted = self._electorate
        heights = dict(opened.proposal.advanced)
        blocks = self._taken(opened, heights)
        ledger = self._ledger if opened.follows else None
        self._ledger = None if ledger is None or blocks is None else self._derive(opened, ledger, blocks)
        after = self._control.at_sequence(checkpoint.control_sequence)
        if after is None:
            what = f"round {checkpoint.round} is under control record {checkpoint.control_sequence}, which is not there"
            self._say(FindingKind.ROOT_MISMATCH, opened.offset, what)
            self._ledger = None
        else:
            self._electorate = Electorate(after.attestors, after.attestor_threshold)
        self._reader.close(voted)
        self._heads.update(heights)
        self._check_roots(opened, heights, voted)
        if any(shard not in self._tracks or height > self._tracks[shard].replayed for shard, height in heights.items()):
            self._wrong = True  # signed, but not what executing again gives: the replay has said why
        if self._ledger is not None and not self._wrong:
            self._verified, self._verified_hash = checkpoint.round, opened.hash
            self._verified_heads.update(heights)

    def _taken(self, opened: OpenRound, heights: Mapping[int, int]) -> dict[int, list[CheckedBlock]] | None:
        taken: dict[int, list[CheckedBlock]] = {}
        number = opened.checkpoint.round
        for shard, height in opened.proposal.advanced:
            track = self._tracks.get(shard)
            if track is None or len(heights) != len(opened.proposal.advanced) or height <= self._heads.get(shard, -1):
                self._say(FindingKind.ROOT_MISMATCH, opened.offset, f"round {number} names shard {shard} wrongly")
                return None
            blocks = track.take(height)
            if blocks is not None:
                taken[shard] = blocks
            elif track.at_end and track.read_height < height:
                what = f"round {number} signs block {height}, but blocks end at {track.read_height}: history was cut"
                self._report(Finding(FindingKind.HISTORY_CUT, what, shard, height, Topic.CHECKPOINTS, opened.offset))
        return taken if len(taken) == len(heights) else None

    def _derive(
        self, opened: OpenRound, ledger: SignedLedger, blocks: dict[int, list[CheckedBlock]]
    ) -> SignedLedger | None:
        """The ledger after the round, if the checkpoint is what the blocks lead to."""
        checkpoint, offset = opened.checkpoint, opened.offset
        number = checkpoint.round
        consumed = max([0, *[taken[-1].cursor.control.sequence for taken in blocks.values()]])
        state = self._control.at_sequence(checkpoint.control_sequence)
        complaint = None
        if not blocks:
            complaint = "it moves no shard"
        elif checkpoint.timestamp_ms < ledger.timestamp_ms:
            complaint = "its time is before its predecessor's"
        elif checkpoint.control_sequence < max(consumed, ledger.control_sequence):
            complaint = f"its control sequence {checkpoint.control_sequence} is behind what its blocks consumed"
        if complaint or state is None or max(blocks) >= state.active_shards:
            self._say(FindingKind.ROOT_MISMATCH, offset, f"round {number}: {complaint or 'it moves an idle shard'}")
            return None
        terms = RoundTerms(
            checkpoint.timestamp_ms, checkpoint.control_sequence, state.active_shards, checkpoint.assurance
        )
        try:
            plan = plan_round(self._chain, ledger, dict(sorted(blocks.items())), terms)
        except TaskDiverged as error:
            self._say(FindingKind.CUT_INCONSISTENT, offset, f"round {number} is no consistent cut: {one_line(error)}")
            return None
        if plan.proposal != opened.proposal:
            what = f"round {number}: the blocks on the log lead to another ledger root or other heads"
            self._say(FindingKind.ROOT_MISMATCH, offset, what)
            return None
        return signed(plan, opened.first(self._electorate.threshold))

    def _check_roots(self, opened: OpenRound, heights: Mapping[int, int], voted: Electorate) -> None:
        checkpoint = SignedRound(opened.checkpoint.round, opened.proposal.checkpoint, *voted)
        for shard, height in sorted(heights.items()):
            track = self._tracks.get(shard)
            if track is None:
                continue
            head = None if self._ledger is None else self._ledger.shards[shard].head
            if not self._roots[shard].round(checkpoint, Expected(height, head, track.hash_at(height))):
                self._unpublished.append((opened.checkpoint.round, shard, height))

    def _check_seen(self, seen: SeenCheckpoint) -> None:
        found = self._reader.hash_of(seen.round)
        end = self._stream.end
        if found is None:
            last = self._reader.last_round
            what = f"round {seen.round}, seen before, is not on the log: history was cut after round {last}"
            self._say(FindingKind.HISTORY_CUT, end, what)
        elif found != seen.hash:
            what = f"round {seen.round} has another checkpoint than the one seen before: history was replaced"
            self._say(FindingKind.EQUIVOCATION, end, what)

    def _noting(self, report: Report) -> Report:
        def note(finding: Finding) -> None:
            self._wrong = True
            report(finding)

        return note

    def _say(self, kind: FindingKind, offset: int, message: str) -> None:
        self._report(Finding(kind, message, None, None, Topic.CHECKPOINTS, offset))
