"""The engine against the naive reference model, and against itself."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import engine_programs
import pytest
from engine_programs import Twin, hash_of, run_program
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.ledger.codes import Code
from pipeline.ledger.receipts import BundleReceipt, TransactionReceipt

SEEDS = [str(seed) for seed in range(4)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64))
def test_engine_and_reference_agree(seed: int) -> None:
    """After every block: receipts, bundles, all leaves, conservation."""
    assert run_program(Random(seed).randint, steps=60).imbalances() == {}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_engine_and_reference_agree_on_small_numbers(data: st.DataObject) -> None:
    """The same, with choices that can be shrunk to the smallest program that shows a difference."""
    assert run_program(lambda low, high: data.draw(st.integers(low, high)), steps=20).imbalances() == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_engine_and_reference_agree_at_length(seed: int) -> None:
    assert run_program(Random(seed).randint, steps=150).imbalances() == {}


def test_programs_reach_what_they_should() -> None:
    """The property above is worth something: random programs meet nearly every code, refunds and fees in flight."""
    codes: set[Code] = set()
    kinds: set[int] = set()
    for seed in range(40):
        twin = run_program(Random(seed).randint, steps=60)
        for block in [block for blocks in twin.world.blocks for block in blocks]:
            for receipt in block.receipts:
                if isinstance(receipt, TransactionReceipt):
                    codes |= {receipt.code, *(failure.code for failure in receipt.failures)}
                elif isinstance(receipt, BundleReceipt):
                    codes |= {failure.code for failure in receipt.failures}
            for bundle in block.executed.bundles:
                kinds |= {effect.kind for effect in engine_programs.effects_of(bundle)[0]}
    never = {
        Code.WRONG_CHAIN, Code.KEY_REQUIRED, Code.SLOT_NOT_OWNED,
        Code.NO_IDLE_PARTITION, Code.REFUSED_IN_PROTOCOL, Code.NOT_APPLICABLE,
    }  # fmt: skip
    assert set(Code) - codes <= never
    assert kinds == {0, 1, 2, 3, 4}


def test_the_same_program_gives_the_same_bytes() -> None:
    assert hash_of(run_program(Random(7).randint)) == hash_of(run_program(Random(7).randint))


def test_another_process_with_another_hash_seed_gives_the_same_bytes() -> None:
    expected = [hash_of(run_program(Random(int(seed)).randint)) for seed in SEEDS]
    root = Path(__file__).resolve().parent.parent.parent
    for hash_seed in ("1", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root), "TZ": "Asia/Kathmandu"}
        command = [sys.executable, engine_programs.__file__, *SEEDS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == expected


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 5), max_size=12))
def test_where_blocks_end_does_not_matter(seed: int, sizes: list[int]) -> None:
    """The same records in one block or in many: the same state, fates and effects (but not bundles)."""

    def final(limits: list[int | None]) -> tuple[object, ...]:
        twin = Twin(2)
        random = Random(seed)
        for shard in twin.world.shards:
            twin.run_block(shard)
        opening = twin.world.signed(
            twin.world.treasury,
            engine_programs.CreateAsset(b"UNIT"),
            engine_programs.mint(twin.world.asset, *[(actor, 600) for actor in twin.actors[:-1]]),
            nonce=0,
        )
        (offset,) = twin.world.submit(opening)
        twin.published[0, offset] = opening
        twin.settle()
        for _ in range(25):
            twin.publish(random.randint)
        blocks = [twin.run_block(0, limit) for limit in [*limits, None]]
        receipts = [receipt for block in blocks for receipt in block.receipts]
        bundles = [bundle for block in blocks for bundle in block.executed.bundles]
        effects = [effect for bundle in bundles for effect in engine_programs.effects_of(bundle)[0]]
        fates = [(receipt.tx_id, receipt.code, receipt.fee, receipt.failures) for receipt in receipts]  # type: ignore[union-attr]
        return blocks[-1].executed.header.state_root, fates, effects

    assert final([]) == final(list(sizes))
