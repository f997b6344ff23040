"""An attestor: checks each proposal as its assurance says, and signs the first valid one of every round."""

from collections.abc import Callable
from functools import cache

from pipeline.crypto.verifier import Verifier
from pipeline.kv.port import KeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance
from pipeline.log.port import Append, EventLog
from pipeline.shards.progress import Idle, Progress
from pipeline.sync.committer import Committer
from pipeline.sync.ledger_follower import LedgerFollower, StoreFor, Validity
from pipeline.sync.life import SyncState
from pipeline.sync.observer import RoundObserver
from pipeline.sync.round_book import CHECKPOINTS
from pipeline.sync.round_task import RoundTask
from pipeline.sync.rounds import RoundPlan
from pipeline.sync.settings import IDLE_MS, SyncConfig
from pipeline.sync.signer import Signer
from pipeline.sync.signer_guard import SignerGuard


class Attestor(RoundTask):
    """Signs with its own fenced writer. Drive it with `step`."""

    def __init__(
        self,
        chain: Chain,
        log: EventLog,
        kv: KeyValue,
        signer: Signer,
        assurance: Assurance,
        verifier: Verifier,
        config: SyncConfig | None = None,
        store_for: StoreFor | None = None,
        still_owner: Callable[[], bool] | None = None,
        observer: RoundObserver | None = None,
    ) -> None:
        """`kv`: a directory of its own. A proposal of a higher assurance than `assurance` stays unsigned."""
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
        self._signed_round = -1
        self._signing: RoundPlan | None = None

    def _fence(self) -> LedgerFollower:
        self._guard = SignerGuard(self._chain, self._log, self._kv, self._signer, self._verifier)
        self._committer = Committer(self._guard.recover())
        self._signed_round = -1
        return LedgerFollower(
            self._chain,
            self._log,
            self._kv,
            self._assurance,
            self._verifier,
            self._config,
            self._store_for,
            self._observer.checked,
        )

    def _drop(self) -> None:
        if self._committer is not None:
            self._committer.close()
        self._committer, self._guard, self.follower, self._signing = None, None, None, None

    def _recover(self, follower: LedgerFollower, now_ms: int) -> Progress | Idle:
        if follower.poll(now_ms):
            return Progress()
        if not follower.is_settled:
            return Idle(now_ms + IDLE_MS)
        assert self._guard is not None, "fenced before"
        self._guard.open_proposal(follower.ledger.round, follower.ledger.checkpoint_hash)
        self._move(SyncState.RUNNING)
        return Progress()

    def _run(self, follower: LedgerFollower, now_ms: int) -> Progress | Idle:
        committer, guard = self._committer, self._guard
        assert committer is not None, "fenced before"
        assert guard is not None, "fenced before"
        if committer.is_busy:
            return Progress() if committer.poll() else Idle()  # the log wakes who waits for a commit
        worked = False
        if self._signing is None:
            worked = follower.poll(now_ms)
            chosen = self._choose(follower, now_ms)
            if isinstance(chosen, RoundPlan):
                self._signing = chosen
                self._observer.begun()
            elif chosen is not None:
                self._observer.declines(follower.ledger.round + 1, chosen)
        if self._signing is None:
            return Progress() if worked else Idle(now_ms + IDLE_MS)
        plan = self._signing
        signature = guard.sign(plan, follower.book.next_offset)
        if signature is None:
            return Idle(now_ms + 1)

        def done() -> None:
            self._signed_round = plan.round
            self._observer.done(plan.round)

        self._signing = None
        committer.begin([Append(CHECKPOINTS, None, signature.to_record())], done)
        return Progress()

    def _choose(self, follower: LedgerFollower, now_ms: int) -> RoundPlan | str | None:
        """The round to sign: its first proposal that is not invalid, if it is valid and not signed yet.

        Else why it signs none of those that there are.
        """
        governance, candidates = follower.governance, follower.book.candidates
        next_round = follower.ledger.round + 1
        if governance is None or self._signed_round == next_round or not candidates:
            return None
        if self._signer.key_id not in {key.key_id for key in governance.attestors}:
            return "its key is not among the attestors in force"
        if not follower.is_executed:
            return "blocks below it are not executed yet"
        if any(self._signer.key_id in candidate.signatures for candidate in candidates):
            self._signed_round = next_round
            return None
        for candidate in candidates:
            validity, plan, waits_for = follower.judge(candidate, now_ms)
            if validity is Validity.INVALID:
                continue
            stated = candidate.checkpoint.assurance
            if stated > self._assurance:
                return f"the proposal states {stated.name}, this attestor does {self._assurance.name}"
            return plan or f"the proposal is ahead of {waits_for}"
        return "no proposal follows from the blocks on the log"
