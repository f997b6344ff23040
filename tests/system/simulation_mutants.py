"""Mutants: the product with one rule taken out, each to be found by the simulator within a stated number of seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import pytest

from pipeline.codec.topics import Topic
from pipeline.codec.types import ZERO32
from pipeline.errors import PoisonRecord
from pipeline.ledger import admission, control_state
from pipeline.ledger import engine as engine_module
from pipeline.ledger.codes import Code, DeadLetterReason
from pipeline.ledger.control import SignedControl
from pipeline.ledger.control_state import ControlState
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.inbound import EffectRun
from pipeline.ledger.relay import RelayGroup
from pipeline.shards import leader as leader_module
from pipeline.shards import recovery as recovery_module
from pipeline.shards import task as task_module
from pipeline.shards.leader import Leader
from pipeline.shards.progress import Idle, Progress
from pipeline.shards.recovery import Recovery
from pipeline.shards.task import ShardTask, SoleOwner
from pipeline.state.store import StateStore
from pipeline.sync import ledger_follower, synchronizer
from pipeline.sync.attestor import Attestor
from pipeline.sync.cut import CutShard
from pipeline.sync.ledger_follower import LedgerFollower, Validity
from pipeline.sync.round_book import RoundBook
from pipeline.sync.round_task import RoundTask
from pipeline.sync.rounds import RoundPlan
from pipeline.sync.signer_guard import SignerGuard
from pipeline.sync.signer_memory import SignerMemory
from pipeline.sync.synchronizer import Synchronizer
from pipeline.tree import shard_tree
from pipeline.tree.shard_tree import ShardTree

Break = Callable[[pytest.MonkeyPatch], None]


def no_republishing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recovery, "outputs", lambda self: [])


def store_before_log(patch: pytest.MonkeyPatch) -> None:
    def execute_next(self: Leader, now_ms: int) -> object:
        block = real(self, now_ms)
        if block is not None:
            outputs = leader_module.encode_appends(leader_module.block_appends(block))
            meta = {leader_module.CURSOR: block.cursor.to_bytes(), leader_module.OUTPUTS: outputs}
            self._store._kv.write({b"m" + name: value for name, value in meta.items()}, sync=False)
        return block

    real = Leader._execute_next
    patch.setattr(Leader, "_execute_next", execute_next)


def nonce_stays_after_a_failure(patch: pytest.MonkeyPatch) -> None:
    def take(chain, overlay, prepared, timestamp_ms):  # type: ignore[no-untyped-def]
        before = overlay.get(admission.account_key(prepared.body.sender))
        code, fee = real(chain, overlay, prepared, timestamp_ms)
        if code is not Code.OK:
            overlay.set(admission.account_key(prepared.body.sender), before)
        return code, fee

    real = admission.take_nonce_and_fee
    patch.setattr(admission, "take_nonce_and_fee", take)


def tail_is_not_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recovery, "step", lambda self: False)


def unknown_means_committed(patch: pytest.MonkeyPatch) -> None:
    def handle(self: ShardTask, error: Exception, now_ms: int) -> Progress | Idle:
        leader = self.leader
        if isinstance(error, task_module.OutcomeUnknown) and leader is not None:
            if leader._committing is None and leader._ready is not None:
                leader._committing = leader_module._Committing(
                    leader._ready, leader_module.block_appends(leader._ready)
                )
            leader._ready, leader._writer = None, _Content()  # type: ignore[assignment]
            leader._finish_commit()
        return real(self, error, now_ms)  # type: ignore[arg-type]

    real = ShardTask._handle
    patch.setattr(ShardTask, "_handle", handle)


class _Content:
    def poll_commit(self) -> bool:
        return True


def tail_read_before_fencing(patch: pytest.MonkeyPatch) -> None:
    def fence(self: ShardTask, now_ms: int) -> Progress | Idle:
        before = Recovery(self._chain, self.shard, self._log, self.store, self._verifier)
        while before.step():
            pass
        answer = real(self, now_ms)
        if self._recovery is not None:
            self._recovery = before
            patch_step(before)
        return answer

    def patch_step(recovery: Recovery) -> None:
        recovery.step = lambda: False  # type: ignore[method-assign]

    real = ShardTask._fence
    patch.setattr(ShardTask, "_fence", fence)


def repeats_are_executed_again(patch: pytest.MonkeyPatch) -> None:
    def follows(chain, shard, last, read):  # type: ignore[no-untyped-def]
        return True

    patch.setattr("pipeline.ledger.engine.follows", follows)


def refunds_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    def bundle(self: EffectRun, groups: tuple[RelayGroup, ...], owner: int) -> object:
        add, self._outbox.add = self._outbox.add, lambda *fields: None  # type: ignore[method-assign]
        try:
            return real(self, groups, owner)
        finally:
            self._outbox.add = add  # type: ignore[method-assign]

    real = EffectRun.bundle
    patch.setattr(EffectRun, "bundle", bundle)


def signatures_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    def stage_two(chain, shard, overlay, verifier, prepared):  # type: ignore[no-untyped-def]
        code = real(chain, shard, overlay, verifier, prepared)
        return Code.OK if code is Code.BAD_SIGNATURE else code

    real = admission.stage_two
    patch.setattr(admission, "stage_two", stage_two)


def positions_are_not_kept(patch: pytest.MonkeyPatch) -> None:
    """The cursor in the store says that transactions were consumed to where the block before had them."""

    def commit(self, prepared, meta):  # type: ignore[no-untyped-def]
        cursor = ShardCursor.from_bytes(meta[leader_module.CURSOR])
        before = self.meta(leader_module.CURSOR)
        if before is not None:
            old = ShardCursor.from_bytes(before).positions
            positions = (*cursor.positions[:2], old[2])
            cursor = replace(cursor, positions=positions)
        real(self, prepared, {**meta, leader_module.CURSOR: cursor.to_bytes()})

    real = StateStore.commit
    patch.setattr(StateStore, "commit", commit)


def last_round_is_not_finished(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(synchronizer, "state_roots_stand", lambda log, ledger: True)


def signer_forgets(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SignerGuard, "open_proposal", lambda self, signed_round, signed_hash: None)
    patch.setattr(Synchronizer, "_proposed_round", lambda self, follower, now_ms: None)
    patch.setattr(SignerMemory, "last", lambda self: None)


def backlog_loses_a_record(patch: pytest.MonkeyPatch) -> None:
    """The composer says one more than it takes."""

    def compose(chain, cursor, waiting, reader, **least):  # type: ignore[no-untyped-def]
        composition = real(chain, cursor, waiting, reader, **least)
        control, relay, transactions = composition.taken
        more = transactions + (transactions < len(waiting.transactions))
        return composition._replace(taken=(control, relay, more))

    real = leader_module.compose
    patch.setattr(leader_module, "compose", compose)


def header_comes_last(patch: pytest.MonkeyPatch) -> None:
    def appends(executed):  # type: ignore[no-untyped-def]
        header, *others = real(executed)
        return [*others, header]

    real = leader_module.block_appends
    for module in (leader_module, recovery_module):
        patch.setattr(module, "block_appends", appends)


def bad_signatures_take_the_nonce(patch: pytest.MonkeyPatch) -> None:
    bad: set[bytes] = set()

    def stage_two(chain, shard, overlay, verifier, prepared):  # type: ignore[no-untyped-def]
        code = real(chain, shard, overlay, verifier, prepared)
        if code is not Code.BAD_SIGNATURE:
            return code
        bad.add(prepared.signed.signature)
        return Code.OK

    def take(chain, overlay, prepared, timestamp_ms):  # type: ignore[no-untyped-def]
        code, fee = real_take(chain, overlay, prepared, timestamp_ms)
        return Code.BAD_SIGNATURE if prepared.signed.signature in bad else code, fee

    real, real_take = admission.stage_two, admission.take_nonce_and_fee
    patch.setattr(admission, "stage_two", stage_two)
    patch.setattr(admission, "take_nonce_and_fee", take)


def every_block_is_in_the_cut(patch: pytest.MonkeyPatch) -> None:
    def greatest_cut(shards: Sequence[CutShard]) -> list[int]:
        return [len(shard.blocks) for shard in shards]

    patch.setattr(ledger_follower, "greatest_cut", greatest_cut)
    patch.setattr(ledger_follower, "is_consistent", lambda shards, taken: True)


def unowned_slots_are_empty(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shard_tree, "_without_leaves", lambda owned: ShardTree([ZERO32] * 4096))
    patch.setattr("pipeline.tree.proofs.UNOWNED_SLOT", b"")


def workers_fence_without_asking(patch: pytest.MonkeyPatch) -> None:
    def fence(self: ShardTask, now_ms: int) -> Progress | Idle:
        asked, self._ownership = self._ownership, SoleOwner()
        try:
            return real(self, now_ms)
        finally:
            self._ownership = asked

    real = ShardTask._fence
    patch.setattr(ShardTask, "_fence", fence)


def signers_fence_without_asking(patch: pytest.MonkeyPatch) -> None:
    def step(self: RoundTask, now_ms: int) -> Progress | Idle:
        self._still_owner = lambda: True
        return real(self, now_ms)

    real = RoundTask.step
    patch.setattr(RoundTask, "step", step)


class _Keeping:
    """An overlay that deletes nothing."""

    def __init__(self, overlay: Any) -> None:
        self._overlay = overlay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._overlay, name)

    def set(self, key: bytes, value: bytes | None) -> None:
        if value is not None:
            self._overlay.set(key, value)


def value_is_not_conserved(patch: pytest.MonkeyPatch) -> None:
    """Collected fees stay where they were, and nobody counts."""

    def collect(chain, shard, overlay, *others):  # type: ignore[no-untyped-def]
        real(chain, shard, _Keeping(overlay), *others)

    real = engine_module.collect_fees
    patch.setattr(engine_module, "collect_fees", collect)
    patch.setattr(engine_module, "imbalance", lambda *fields: {})


def control_comes_last(patch: pytest.MonkeyPatch) -> None:
    waiting: dict[int, Any] = {}

    def control(self, batch):  # type: ignore[no-untyped-def]
        if batch.records and batch.records[0].offset == 0:
            real_control(self, batch)
        else:
            waiting[id(self)] = batch

    def transactions(self, batch):  # type: ignore[no-untyped-def]
        real_transactions(self, batch)
        if id(self) in waiting:
            real_control(self, waiting.pop(id(self)))

    run = engine_module._BlockRun
    real_control, real_transactions = run.control, run.transactions
    patch.setattr(run, "control", control)
    patch.setattr(run, "transactions", transactions)


def control_may_come_in_any_order(patch: pytest.MonkeyPatch) -> None:
    def admit(chain, state, record, verifier):  # type: ignore[no-untyped-def]
        try:
            signed, _ = SignedControl.from_record(record.value)
        except PoisonRecord:
            return real(chain, state, record, verifier)
        before = replace(state, sequence=signed.sequence - 1, previous_hash=signed.previous_hash)
        return real(chain, before, record, verifier)

    real = control_state.admit
    for user in ("ledger.engine", "sync.control_feed", "shards.birth"):
        patch.setattr(f"pipeline.{user}.admit", admit)


def one_operator_is_enough(patch: pytest.MonkeyPatch) -> None:
    def check(keys, threshold, signed, verifier):  # type: ignore[no-untyped-def]
        real(keys, min(threshold, 1), signed, verifier)

    real = control_state._check_quorum
    patch.setattr(control_state, "_check_quorum", check)


def old_attestors_are_not_asked(patch: pytest.MonkeyPatch) -> None:
    def check(keys, threshold, signed, verifier):  # type: ignore[no-untyped-def]
        if len(keys) == 3 and threshold == 2:  # the operators of every simulation
            real(keys, threshold, signed, verifier)

    real = control_state._check_quorum
    patch.setattr(control_state, "_check_quorum", check)


def quarantine_is_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ControlState, "is_quarantined", lambda self, source, record: False)


def quarantine_takes_any_bundle(patch: pytest.MonkeyPatch) -> None:
    def set_aside(self, record, read):  # type: ignore[no-untyped-def]
        self._bury(Topic.RELAY, record, DeadLetterReason.QUARANTINED)

    patch.setattr(engine_module._BlockRun, "_quarantined_bundle", set_aside)


def attestors_sign_what_they_like(patch: pytest.MonkeyPatch) -> None:
    def choose(self: Attestor, follower: LedgerFollower, now_ms: int) -> object:
        chosen = real(self, follower, now_ms)
        if not isinstance(chosen, RoundPlan):
            return chosen
        judged = [follower.judge(candidate, now_ms) for candidate in follower.book.candidates]
        valid = [plan for validity, plan, _ in judged if validity is Validity.VALID and plan is not None]
        return min(valid, key=lambda plan: sha256(self._signer.key_id + plan.after.checkpoint_hash).digest())

    real = Attestor._choose
    patch.setattr(Attestor, "_choose", choose)


def new_attestors_sign_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LedgerFollower, "governance", property(lambda self: self.control.newest))


def one_attestor_is_enough(patch: pytest.MonkeyPatch) -> None:
    def poll(self, ledger, attestors, threshold):  # type: ignore[no-untyped-def]
        return real(self, ledger, attestors, 1)

    real = RoundBook.poll
    patch.setattr(RoundBook, "poll", poll)


@dataclass(frozen=True)
class Mutant:
    """`rule`: what is taken out. `within`: it is found by one of the seeds 0 to `within` - 1."""

    apply: Break
    rule: str
    within: int

    @property
    def name(self) -> str:
        return self.apply.__name__.replace("_", " ")


MUTANTS = [
    Mutant(no_republishing, "the last block's outputs are published again after a recovery", 40),
    Mutant(header_comes_last, "the header is the first record of a block's transaction", 40),
    Mutant(store_before_log, "the store is written only after the commit", 15),
    Mutant(unknown_means_committed, "a commit of unknown outcome is read from the log", 40),
    Mutant(tail_is_not_read, "a recovery follows the log to its end", 15),
    Mutant(tail_read_before_fencing, "the tail is read only after fencing", 15),
    Mutant(workers_fence_without_asking, "a worker asks whether it owns the shard before it fences", 40),
    Mutant(signers_fence_without_asking, "a signer asks whether it has the role before it fences", 15),
    Mutant(positions_are_not_kept, "state and positions change together", 15),
    Mutant(backlog_loses_a_record, "every record is in exactly one block", 15),
    Mutant(signatures_are_not_checked, "a transaction's signature is checked", 40),
    Mutant(bad_signatures_take_the_nonce, "the signature is checked before the nonce advances", 40),
    Mutant(nonce_stays_after_a_failure, "the nonce advances once the signature held", 15),
    Mutant(repeats_are_executed_again, "bundles follow by sequence and head", 15),
    Mutant(refunds_are_forgotten, "a refused credit is refunded", 15),
    Mutant(value_is_not_conserved, "value is conserved", 15),
    Mutant(control_comes_last, "control applies before the rest of its block", 15),
    Mutant(control_may_come_in_any_order, "control records are numbered and chained", 15),
    Mutant(one_operator_is_enough, "k of n operators sign a control record", 15),
    Mutant(old_attestors_are_not_asked, "the old attestors sign a change of attestors", 15),
    Mutant(quarantine_is_ignored, "a quarantined record becomes a dead letter", 15),
    Mutant(quarantine_takes_any_bundle, "a bundle that can be executed is, quarantined or not", 15),
    Mutant(unowned_slots_are_empty, "a slot of another shard has the constant for it", 15),
    Mutant(every_block_is_in_the_cut, "a round is a consistent cut", 60),
    Mutant(signer_forgets, "the guard remembers what was signed", 40),
    Mutant(last_round_is_not_finished, "a recovery publishes the state roots that are missing", 15),
    Mutant(attestors_sign_what_they_like, "attestors sign the first valid proposal", 40),
    Mutant(new_attestors_sign_at_once, "new attestors sign from the next round on", 40),
    Mutant(one_attestor_is_enough, "k of n attestors sign a round", 15),
]
