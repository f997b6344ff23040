"""The synchronizer: gathers checked blocks into rounds, proposes them, and publishes their signed state roots.

With a quorum of one signer, which it holds, a round is one transaction of that signer: proposal, signature, state
roots. Thus the next who signs with this key fences it, be it synchronizer or attestor. Else it proposes as the
proposer, waits for k of n attestors, and publishes the state roots before it proposes again.
"""

from collections.abc import Callable
from functools import cache

from pipeline.crypto.verifier import Verifier
from pipeline.errors import TaskDiverged
from pipeline.kv.port import KeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import (
    Assurance,
    Checkpoint,
    CheckpointProposal,
    checkpoint_hash,
    key_signatures,
)
from pipeline.ledger.writers import proposer_writer
from pipeline.log.port import Append, EventLog
from pipeline.shards.progress import Idle, Progress
from pipeline.sync.committer import Committer
from pipeline.sync.ledger_follower import LedgerFollower, StoreFor, Validity
from pipeline.sync.life import SyncState
from pipeline.sync.observer import RoundObserver
from pipeline.sync.published import newest_published, state_roots_stand
from pipeline.sync.round_book import CHECKPOINTS, Candidate
from pipeline.sync.round_task import RoundTask
from pipeline.sync.rounds import RoundPlan, signed, state_root_appends
from pipeline.sync.settings import IDLE_MS, SyncConfig
from pipeline.sync.signer import Signer
from pipeline.sync.signer_guard import SignerGuard


class Synchronizer(RoundTask):
    """The proposer, and the signer where one suffices. Drive it with `step`."""

    def __init__(
        self,
        chain: Chain,
        log: EventLog,
        kv: KeyValue,
        signer: Signer | None,
        assurance: Assurance,
        verifier: Verifier,
        config: SyncConfig | None = None,
        store_for: StoreFor | None = None,
        still_owner: Callable[[], bool] | None = None,
        observer: RoundObserver | None = None,
    ) -> None:
        """`kv`: the directory `sync/`. `store_for` opens the attesting state stores that EXECUTION needs."""
        super().__init__(still_owner, observer)
        self._chain = chain
        self._log = log
        self._kv = kv
        self._signer = signer
        self._assurance = assurance
        self._verifier = verifier
        self._config = config or SyncConfig()
        # A store stays open while its task is fenced again.
        self._store_for = None if store_for is None else cache(store_for)
        self._guard: SignerGuard | None = None
        self._committer: Committer | None = None
        self._signer_committer: Committer | None = None
        self._opened_ms: int | None = None
        self._signing: RoundPlan | None = None
        self._published = self._stands = -1
        self._newest: int | None = None
        self._proposed = -1

    def _fence(self) -> LedgerFollower:
        self._committer = Committer(self._log.writer(proposer_writer(self._chain.chain_id)))
        follower = LedgerFollower(
            self._chain,
            self._log,
            self._kv,
            self._assurance,
            self._verifier,
            self._config,
            self._store_for,
            self._observer.checked,
        )
        if self._signer is not None:
            self._guard = SignerGuard(self._chain, self._log, self._kv, self._signer, self._verifier)
            self._signer_committer = Committer(self._guard.recover())
        return follower

    def _drop(self) -> None:
        for committer in (self._committer, self._signer_committer):
            if committer is not None:
                committer.close()
        self._committer, self._signer_committer, self._guard, self.follower = None, None, None, None
        self._opened_ms, self._signing = None, None
        self._stands, self._newest = -1, None

    def _recover(self, follower: LedgerFollower, now_ms: int) -> Progress | Idle:
        committer = self._open_committer()
        if committer.is_busy:
            return Progress() if committer.poll() else Idle()
        if follower.ledger.round > self._stands:
            if self._newest is None:
                self._newest = newest_published(self._log, self._chain.genesis.partitions)
            if follower.ledger.round >= self._newest and not state_roots_stand(self._log, follower.ledger):
                self._publish(follower)
                return Progress()
            self._stands = follower.ledger.round
        if follower.poll(now_ms, most_rounds=1):
            return Progress()
        if not follower.is_settled:
            return Idle(now_ms + IDLE_MS)
        if self._guard is not None:
            self._guard.open_proposal(follower.ledger.round, follower.ledger.checkpoint_hash)
        self._published = self._proposed = follower.ledger.round
        self._move(SyncState.RUNNING)
        return Progress()

    def _run(self, follower: LedgerFollower, now_ms: int) -> Progress | Idle:
        for committer in (self._signer_committer, self._committer):
            if committer is not None and committer.is_busy:
                return self._await_commit(follower, committer, now_ms)
        if follower.ledger.round > self._published:
            self._publish(follower)
            return Progress()
        if self._signing is not None:
            return self._sign(follower, self._signing, now_ms)
        worked = follower.poll(now_ms, most_rounds=1)  # each is published before the next one is read
        if follower.ledger.round > self._published:
            return Progress()
        answer = self._next_round(follower, now_ms)
        return Progress() if worked else answer

    def _await_commit(self, follower: LedgerFollower, committer: Committer, now_ms: int) -> Progress | Idle:
        """Check the next round's blocks meanwhile, and no more: this very round must not be read before its commit is
        known. The log wakes who waits for a commit."""
        if committer.poll():
            return Progress()
        if not follower.follow_blocks(now_ms):
            return Idle()
        self._open_round(now_ms)
        return Progress()

    def _next_round(self, follower: LedgerFollower, now_ms: int) -> Progress | Idle:
        governance = follower.governance
        if governance is None or not follower.is_executed:
            return Idle(now_ms + IDLE_MS)
        listed = {key.key_id for key in governance.attestors}
        guard = self._guard
        if guard is not None and governance.attestor_threshold == 1 and guard.signer.key_id in listed:
            return self._sign_round(follower, guard, now_ms)
        return self._propose_round(follower, now_ms)

    def _sign_round(self, follower: LedgerFollower, guard: SignerGuard, now_ms: int) -> Progress | Idle:
        ledger = follower.ledger
        begun = guard.open_proposal(ledger.round, ledger.checkpoint_hash)
        if begun is not None:
            plan = self._begun(follower, begun, now_ms)
        else:
            plan = self._proposed_round(follower, now_ms) or self._close_round(follower, now_ms)
        if not isinstance(plan, RoundPlan):
            return plan
        return self._sign(follower, plan, now_ms)

    def _sign(self, follower: LedgerFollower, plan: RoundPlan, now_ms: int) -> Progress | Idle:
        """Sign the round and commit it whole. While the signature is being made, nothing else happens."""
        assert self._guard is not None, "a round of one signer has its guard"
        assert self._signer_committer is not None, "fenced with the guard"
        self._signing = plan
        signature = self._guard.sign(plan, follower.book.next_offset)
        if signature is None:
            return Idle(now_ms + 1)
        self._signing = None
        signatures = key_signatures([signature])

        def done() -> None:
            follower.adopt(plan, signatures)
            self._published = plan.round
            self._observer.done(plan.round)

        appends = [
            Append(CHECKPOINTS, None, plan.proposal.to_record()),
            Append(CHECKPOINTS, None, signature.to_record()),
            *state_root_appends(signed(plan, signatures)),
        ]
        self._opened_ms = None  # blocks that come meanwhile open the next round
        self._signer_committer.begin(appends, done)
        return Progress()

    def _proposed_round(self, follower: LedgerFollower, now_ms: int) -> RoundPlan | None:
        """The first valid proposal on the log: a prefix of a transaction of an older instance whose directory was lost.

        Or somebody else's, which says the same as ours would. One that can't be judged yet, or states more or less
        than this process checks, is passed over: nobody is bound by what nobody signed. None: there is none.
        """
        for candidate in follower.book.candidates:
            if candidate.checkpoint.assurance is not self._assurance:
                continue
            validity, plan, _ = follower.judge(candidate, now_ms)
            if validity is Validity.VALID:
                return plan
        return None

    def _begun(self, follower: LedgerFollower, proposal: CheckpointProposal, now_ms: int) -> RoundPlan | Idle:
        """A round that was perhaps signed before a crash: the same bytes, or none."""
        checkpoint = Checkpoint.from_bytes(proposal.checkpoint)
        candidate = Candidate(proposal, checkpoint, checkpoint_hash(proposal.checkpoint))
        validity, plan, _ = follower.judge(candidate, now_ms)
        if validity is Validity.INVALID:
            raise TaskDiverged(
                f"round {checkpoint.round} was signed before a restart and does not follow from the blocks on the log: "
                "the topics were replaced, restore them"
            )
        return plan or Idle(now_ms + IDLE_MS)

    def _propose_round(self, follower: LedgerFollower, now_ms: int) -> Progress | Idle:
        next_round = follower.ledger.round + 1
        if self._proposed == next_round:
            return self._await_quorum(follower, next_round, now_ms)
        for candidate in follower.book.candidates:
            validity = follower.judge(candidate, now_ms).validity
            if validity is Validity.VALID:
                self._proposed = next_round
            if validity is not Validity.INVALID:
                return self._await_quorum(follower, next_round, now_ms)
        plan = self._close_round(follower, now_ms)
        if not isinstance(plan, RoundPlan):
            return plan

        def done() -> None:
            self._proposed = next_round

        self._opened_ms = None
        self._open_committer().begin([Append(CHECKPOINTS, None, plan.proposal.to_record())], done)
        return Progress()

    def _await_quorum(self, follower: LedgerFollower, number: int, now_ms: int) -> Idle:
        most = max((candidate.signatures for candidate in follower.book.candidates), key=len, default={})
        self._observer.waits(number, most.keys())
        return Idle(now_ms + IDLE_MS)

    def _close_round(self, follower: LedgerFollower, now_ms: int) -> RoundPlan | Idle:
        """The next round if it is time and the cut moves."""
        if not follower.unsigned_blocks:
            return Idle(now_ms + IDLE_MS)
        closes_ms = self._open_round(now_ms) + self._config.round_linger_ms
        if now_ms < closes_ms:
            return Idle(closes_ms)
        heights = follower.next_cut()
        return follower.plan(heights, now_ms, self._assurance) if heights else Idle(now_ms + IDLE_MS)

    def _open_round(self, now_ms: int) -> int:
        """When the round that is not proposed yet saw its first block."""
        if self._opened_ms is None:
            self._opened_ms = now_ms
            self._observer.begun()
        return self._opened_ms

    def _open_committer(self) -> Committer:
        assert self._committer is not None, "fenced before"
        return self._committer

    def _publish(self, follower: LedgerFollower) -> None:
        published = follower.ledger.round

        def done() -> None:
            self._published = self._stands = published
            self._observer.done(published)

        self._open_committer().begin([*state_root_appends(follower.ledger)], done)
