"""Follows a chain as its signers see it: control, blocks of every shard, and rounds that reached their quorum.

Proposer and attestors are this follower and what they add to the log.
"""

from collections.abc import Callable
from enum import Enum
from itertools import pairwise
from typing import Final, NamedTuple

from pipeline.crypto.verifier import Verifier
from pipeline.errors import TaskDiverged
from pipeline.kv.port import KeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance
from pipeline.ledger.control import KeySignature
from pipeline.ledger.control_state import ControlState
from pipeline.log.port import EventLog
from pipeline.state.store import StateStore
from pipeline.sync import kept
from pipeline.sync.control_feed import ControlFeed
from pipeline.sync.cut import greatest_cut, is_consistent
from pipeline.sync.execution import Executor
from pipeline.sync.round_book import Candidate, RoundBook
from pipeline.sync.rounds import RoundPlan, RoundTerms, Taken, plan_round, signed
from pipeline.sync.settings import SyncConfig
from pipeline.sync.shard_track import OnChecked, ShardTrack

StoreFor = Callable[[int], StateStore]
"""Opens the attesting state store of a shard."""


class Validity(Enum):
    """What became of judging a proposal."""

    VALID = "valid"
    INVALID = "invalid"
    WAIT = "wait"


class Judgement(NamedTuple):
    """`plan` is the round that a valid proposal leads to; `waits_for`, what one that has to wait is ahead of."""

    validity: Validity
    plan: RoundPlan | None = None
    waits_for: str = ""


_ROUNDS_A_POLL: Final = 32
_INVALID: Final = Judgement(Validity.INVALID)
_WAIT_CONTROL: Final = Judgement(Validity.WAIT, None, "control records")
_WAIT_CLOCK: Final = Judgement(Validity.WAIT, None, "this machine's clock")
_WAIT_BLOCKS: Final = Judgement(Validity.WAIT, None, "the blocks that this process checked")


class LedgerFollower:
    """The signed ledger, the checked blocks above it, and the proposals for the next round."""

    def __init__(
        self,
        chain: Chain,
        log: EventLog,
        kv: KeyValue,
        assurance: Assurance,
        verifier: Verifier,
        config: SyncConfig,
        store_for: StoreFor | None,
        checked: OnChecked,
    ) -> None:
        """`kv` holds the signed ledger between runs; `store_for` is needed for EXECUTION. `checked` hears of
        every block that holds.

        Raises `TaskDiverged` where what `kv` holds was not signed.
        """
        assert assurance is Assurance.HEADERS or store_for is not None, "EXECUTION needs state stores"
        self._chain = chain
        self._log = log
        self._kv = kv
        self._config = config
        self._verifier = verifier
        self._checked = checked
        self._store_for = store_for if assurance is Assurance.EXECUTION else None
        self.ledger, next_offset = kept.load(kv, chain)
        self.control = ControlFeed(chain, log, verifier)
        self.book = RoundBook(chain, log, verifier, next_offset)
        self.tracks: list[ShardTrack] = []
        self._valid: tuple[Candidate, Judgement] | None = None  # one: a plan holds a whole round

    def poll(self, now_ms: int, most_rounds: int = _ROUNDS_A_POLL) -> bool:
        """Read what is new; whether there was anything. Raises `TaskDiverged` on any disagreement."""
        worked = self.follow_blocks(now_ms)
        for _ in range(most_rounds):
            if not self._adopt_decided(now_ms):
                break
            worked = True
        return worked

    def follow_blocks(self, now_ms: int) -> bool:
        """Read and check blocks, but no rounds; whether there were any. Raises as `poll`."""
        worked = self.control.poll()
        while len(self.tracks) < self.control.newest.active_shards:
            self.tracks.append(self._track(len(self.tracks)))
        for track in self.tracks:
            worked = track.poll(now_ms, self.book.at_end) or worked
        return worked

    def _track(self, shard: int) -> ShardTrack:
        head = self.ledger.checked_head(self._chain, shard)
        executor = None
        if self._store_for is not None:
            executor = Executor(self._chain, self._log, shard, self._store_for(shard), self._verifier)
        next_offset = self.ledger.shard(self._chain, shard).next_offset
        return ShardTrack(
            self._chain, self._log, self.control, self._config, head, next_offset, executor, self._checked
        )

    @property
    def governance(self) -> ControlState | None:
        """What was in force at the signed round: its attestors sign the next one. None while not read yet."""
        return self.control.at_sequence(self.ledger.control_sequence)

    @property
    def is_settled(self) -> bool:
        """Whether `checkpoints` is read to its end and no round that has its quorum is still to be adopted."""
        governance = self.governance
        return governance is not None and self.book.at_end

    @property
    def is_executed(self) -> bool:
        """Whether every block of the signed heads and above them that was checked was executed too, as the assurance
        says. Before that nothing is proposed or signed: heads that stay are under the signature like those that move.
        """
        return all(track.is_executed for track in self.tracks)

    def _adopt_decided(self, now_ms: int) -> bool:
        governance = self.governance
        if governance is None:
            return False
        decided = self.book.poll(self.ledger, governance.attestors, governance.attestor_threshold)
        if not decided:
            return False
        judged = [(candidate, self.judge(candidate, now_ms)) for candidate in decided]
        for candidate, (validity, plan, _) in judged:
            if validity is Validity.VALID:
                assert plan is not None, "a valid proposal has its plan"
                self.adopt(plan, candidate.first(governance.attestor_threshold))
                return True
        if all(judgement.validity is Validity.INVALID for _, judgement in judged):
            raise TaskDiverged(
                f"round {self.ledger.round + 1} offset {self.book.next_offset - 1} of checkpoints: a quorum signed a "
                "checkpoint that the blocks do not lead to; audit the chain"
            )
        return False

    def adopt(self, plan: RoundPlan, signatures: tuple[KeySignature, ...]) -> None:
        """The round is under its quorum: it becomes the ledger, in memory and on disk."""
        after = signed(plan, signatures)
        kept.save(self._kv, self.ledger, after, plan.slots, self.book.next_offset)
        self.ledger = after
        for shard in after.advanced:
            self.tracks[shard].sign_off(after.shards[shard].head.height)
        self.book.turn()
        self._valid = None

    def next_cut(self) -> dict[int, int]:
        """Shard -> height of the greatest consistent cut, for the shards that it moves."""
        if not any(track.blocks for track in self.tracks):
            return {}
        counts = greatest_cut([track.cut_shard() for track in self.tracks])
        return {
            shard: track.signed_height + count
            for shard, (track, count) in enumerate(zip(self.tracks, counts, strict=True))
            if count
        }

    def plan(self, heights: dict[int, int], timestamp_ms: int, assurance: Assurance) -> RoundPlan:
        """The next round over a consistent cut, under the newest control record that its blocks consumed."""
        taken = self._taken(heights)
        consumed = max(blocks[-1].cursor.control.sequence for blocks in taken.values())
        sequence = max(consumed, self.ledger.control_sequence)
        state = self.control.at_sequence(sequence)
        assert state is not None, "blocks are checked after the control records that they consumed"
        terms = RoundTerms(max(timestamp_ms, self.ledger.timestamp_ms), sequence, state.active_shards, assurance)
        return plan_round(self._chain, self.ledger, taken, terms)

    def judge(self, candidate: Candidate, now_ms: int) -> Judgement:
        """Whether the proposal is what the blocks lead to. What is not read or executed yet, or ahead of the clock,
        waits. Who signs asks `is_executed` too: a quorum's round is adopted on the way to where the store is.

        What does not wait is judged once: whoever may write `checkpoints` must not buy work at every step.
        Raises `TaskDiverged` where it names a block that executed a forged bundle.
        """
        if candidate.is_invalid:
            return _INVALID
        if self._valid is not None and self._valid[0] is candidate:
            return self._valid[1]
        judgement = self._judge(candidate, now_ms)
        if judgement.validity is Validity.INVALID:
            candidate.is_invalid = True
        elif judgement.validity is Validity.VALID:
            self._valid = candidate, judgement
        return judgement

    def _judge(self, candidate: Candidate, now_ms: int) -> Judgement:
        checkpoint, advanced = candidate.checkpoint, candidate.proposal.advanced
        shards = [shard for shard, _ in advanced]
        if not shards or any(a >= b for a, b in pairwise(shards)):
            return _INVALID
        if checkpoint.timestamp_ms < self.ledger.timestamp_ms:
            return _INVALID
        if checkpoint.control_sequence < self.ledger.control_sequence:
            return _INVALID
        state = self.control.at_sequence(checkpoint.control_sequence)
        if state is None:
            return _WAIT_CONTROL
        if checkpoint.timestamp_ms > now_ms + self._config.max_clock_ahead_ms:
            return _WAIT_CLOCK
        if shards[-1] >= state.active_shards:
            return _INVALID
        tracks = self.tracks
        if any(height <= tracks[shard].signed_height for shard, height in advanced):
            return _INVALID
        if any(height > tracks[shard].checked_height for shard, height in advanced):
            return _WAIT_BLOCKS
        if not all(track.is_level for track in tracks):  # of the heads that stay, too
            return _WAIT_BLOCKS
        return self._judge_cut(candidate, state)

    def _judge_cut(self, candidate: Candidate, state: ControlState) -> Judgement:
        checkpoint, heights = candidate.checkpoint, dict(candidate.proposal.advanced)
        counts = [
            heights.get(shard, track.signed_height) - track.signed_height for shard, track in enumerate(self.tracks)
        ]
        if not is_consistent([track.cut_shard() for track in self.tracks], counts):
            return _INVALID
        taken = self._taken(heights)
        if max(blocks[-1].cursor.control.sequence for blocks in taken.values()) > checkpoint.control_sequence:
            return _INVALID
        terms = RoundTerms(
            checkpoint.timestamp_ms, checkpoint.control_sequence, state.active_shards, checkpoint.assurance
        )
        plan = plan_round(self._chain, self.ledger, taken, terms)
        return Judgement(Validity.VALID, plan) if plan.proposal == candidate.proposal else _INVALID

    def _taken(self, heights: dict[int, int]) -> Taken:
        return {shard: self.tracks[shard].up_to(height) for shard, height in sorted(heights.items())}

    @property
    def unsigned_blocks(self) -> int:
        """Checked blocks above the signed heads."""
        return sum(len(track.blocks) for track in self.tracks)
