"""Seeded simulations of the whole system; and proof that they would see what they are there to see."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from pipeline.ledger import admission
from pipeline.ledger.codes import Code
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.inbound import EffectRun
from pipeline.ledger.relay import RelayGroup
from pipeline.shards import leader as leader_module
from pipeline.shards import task as task_module
from pipeline.shards.leader import Leader
from pipeline.shards.progress import Idle, Progress
from pipeline.shards.recovery import Recovery
from pipeline.shards.task import ShardTask
from pipeline.state.store import StateStore
from pipeline.sync.signer import SignerGuard
from pipeline.sync.synchronizer import Synchronizer
from pipeline.testing.simulator import Report, SimulationFailed, simulate
from pipeline.testing.simulator.__main__ import main

SEEDS = 100
_BATCH = 10


report_of = cache(simulate)


def hold(seeds: range) -> list[Report]:
    return [report_of(seed) for seed in seeds]


@pytest.mark.parametrize("first", range(0, SEEDS, _BATCH))
def test_seeds_hold(first: int) -> None:
    reports = hold(range(first, first + _BATCH))
    assert all(report.blocks and report.rounds for report in reports)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(SEEDS, SEEDS + 1_000, 50))
def test_many_more_seeds_hold(first: int) -> None:
    reports = hold(range(first, first + 50))
    assert all(report.blocks and report.rounds for report in reports)


def test_the_mixture_has_everything_in_it() -> None:
    """The default seeds together meet every kind of fault, lie and control record that there is."""
    events: Counter[str] = Counter()
    shards = set()
    for report in hold(range(SEEDS)):
        events.update(report.events)
        shards.add(report.shards)
    assert {
        "commit prefix", "commit committed", "commit lost", "commit late", "commit fenced", "commit aborted",
        "commit retry", "commit slow", "crash", "disk crash", "lost store", "take over", "replaced", "power cut",
        "lie replay", "lie misrouted", "lie forged", "lie gap", "lie cut", "lie bytes", "lie null", "lie control",
        "control CollectFees", "control CreateShard",
    } <= set(events)  # fmt: skip
    assert shards >= {1, 2, 3, 4}


def test_a_seed_replays_exactly() -> None:
    first, again = report_of(7), simulate(7)
    assert first == again
    assert first.digest != report_of(8).digest


# What it would see. Each fault of the product is found within this many seeds from its first.
WITHIN = 30


def found(first: int = 0) -> SimulationFailed | None:
    """The first failure of these seeds."""
    for seed in range(first, first + WITHIN):
        try:
            simulate(seed)
        except SimulationFailed as failure:
            return failure
    return None


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
        block = self.leader and (self.leader._committing or self.leader._ready)
        if isinstance(error, task_module.OutcomeUnknown) and block:
            assert self.leader is not None
            self.leader._committing, self.leader._ready = block, None
            self.leader._writer = _Content()  # type: ignore[assignment]
            self.leader._finish_commit()
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
    patch.setattr(Synchronizer, "_state_roots_stand", lambda self, follower: True)


def signer_forgets(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SignerGuard, "open_proposal", lambda self, signed_round, signed_hash: None)
    patch.setattr(Synchronizer, "_proposed_round", lambda self, follower, now_ms: None)
    patch.setattr(SignerGuard, "_read_local", lambda self: None)


def backlog_loses_a_record(patch: pytest.MonkeyPatch) -> None:
    """The composer says one more than it takes."""

    def compose(chain, cursor, waiting, reader, **least):  # type: ignore[no-untyped-def]
        composition = real(chain, cursor, waiting, reader, **least)
        control, relay, transactions = composition.taken
        more = transactions + (transactions < len(waiting.transactions))
        return composition._replace(taken=(control, relay, more))

    real = leader_module.compose
    patch.setattr(leader_module, "compose", compose)


@pytest.mark.parametrize(
    ("broken", "first"),
    [
        (no_republishing, 0),
        (store_before_log, 0),
        (nonce_stays_after_a_failure, 0),
        (tail_is_not_read, 0),
        (unknown_means_committed, 0),
        (tail_read_before_fencing, 0),
        (repeats_are_executed_again, 0),
        (refunds_are_forgotten, 0),
        (signatures_are_not_checked, 0),
        (positions_are_not_kept, 0),
        (signer_forgets, 0),
        (backlog_loses_a_record, 0),
        (last_round_is_not_finished, 15),
    ],
)
def test_a_fault_of_the_product_is_seen(broken: Break, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    failure = found(first)
    assert failure is not None, f"{broken.__name__} was not seen in {WITHIN} seeds"
    assert f"seed {failure.seed}: " in str(failure)
    assert f"python -m pipeline.testing.simulator --trace {failure.seed}" in str(failure)


def test_the_command_replays_and_says_what_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["3", "--trace"]) == 0
    held = capsys.readouterr()
    assert "calm from here on" in held.out
    assert "seed 3: " in held.out
    nonce_stays_after_a_failure(monkeypatch)
    failure = found()
    assert failure is not None
    assert main([str(failure.seed)]) == 1
    told = capsys.readouterr()
    assert f"seed {failure.seed} failed: {failure.what}" in told.err
    assert "published transactions" in told.out
