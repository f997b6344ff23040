"""The checker of histories: it accepts what an honest ledger says, and sees each rule that is taken away."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_bed import Bed

from pipeline.testing.cluster.history import Proved, SawRoot, Settled
from pipeline.testing.cluster.mutants import MUTANTS, mutated


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path)
    made.payer.resume()
    yield made
    made.close()


def takeovers(bed: Bed) -> None:
    """The shards go to a worker with an empty disk, twice, under load."""
    for number in range(3):
        worker, deal = bed.worker(f"worker {number}")
        bed.lead(worker)
        bed.drive(worker, rounds=6)
        if number < 2:
            deal.give(frozenset())
            worker.step(bed.now_ms)
    bed.rest(worker)


def zombie(bed: Bed) -> None:
    """A worker that stood still goes on while another one leads."""
    first, _ = bed.worker("first")
    bed.lead(first)
    bed.drive(first, rounds=4)
    second, _ = bed.worker("second")
    bed.lead(second)
    for _ in range(4):
        bed.drive(first, second, rounds=2)
    bed.rest(second)


def delayed_end(bed: Bed) -> None:
    """The end of a transaction comes so late that it commits the beginning of the next one."""
    worker, _ = bed.worker("worker")
    bed.lead(worker)
    bed.drive(worker, rounds=3)
    for shard in (0, 1, 0):
        bed.prefix_for = f"{bed.chain.chain_id.hex()[:16]}-shard-{shard}"
        bed.drive(worker, rounds=3)
    bed.now_ms += 3_000
    bed.lead(worker)
    bed.rest(worker)


FAULTS: dict[str, Callable[[Bed], None]] = {
    "unfenced": zombie,
    "forgetful": delayed_end,
    "amnesiac": takeovers,
    "replayable": takeovers,
    "doubling": takeovers,
    "grasping": takeovers,
    "wandering": takeovers,
    "boastful": takeovers,
}


@pytest.mark.parametrize("fault", [takeovers, zombie, delayed_end])
def test_an_honest_ledger_contradicts_nobody(bed: Bed, fault: Callable[[Bed], None]) -> None:
    fault(bed)
    history = bed.history()
    assert bed.contradictions() == []
    assert sum(isinstance(event, Settled) for event in history) > 20
    assert sum(isinstance(event, SawRoot) for event in history) > 4
    assert sum(isinstance(event, Proved) for event in history) > 4


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_that_is_gone_is_seen(bed: Bed, name: str) -> None:
    with mutated(name):
        FAULTS[name](bed)
    found = {contradiction.rule for contradiction in bed.contradictions()}
    assert found & MUTANTS[name].seen_as, found
