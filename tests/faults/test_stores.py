"""Stores that were lost, that came back from a backup, or that know more than the log."""

import shutil
from collections import Counter

import pytest
from fault_bed import Bed

from pipeline.audit.tools import open_directory
from pipeline.errors import PoisonRecord, TaskDiverged
from pipeline.ledger.checkpoints import CheckpointSignature
from pipeline.sync.round_book import CHECKPOINTS
from pipeline.testing.kills.finish import finish
from pipeline.testing.kills.judge import LedgerBroken


def signatures(bed: Bed) -> Counter[int]:
    """How often each round was signed."""
    log = open_directory(bed.layout.log)
    counted: Counter[int] = Counter()
    for record in log.read(CHECKPOINTS, 0, 100_000, 1 << 30):
        try:
            counted[CheckpointSignature.from_record(record.value).round] += 1
        except PoisonRecord:
            continue
    log.close()
    return counted


def test_a_lost_state_store_is_rebuilt_from_the_log(bed: Bed) -> None:
    shutil.rmtree(bed.layout.shard(1))
    bed.play(seed=2)
    assert bed.judge().blocks > 4


def test_all_stores_are_rebuilt_from_the_log(bed: Bed) -> None:
    before = bed.judge()
    for part in ("shards", "sync"):
        shutil.rmtree(bed.root / part)
    node = bed.open()
    finish(node)
    node.close()
    after = bed.judge()
    assert (after.transactions, after.bundles) == (before.transactions, before.bundles), "only repeats were added"
    bed.play(seed=2)
    assert bed.judge().transactions > before.transactions


def test_a_store_from_an_old_backup_catches_up(bed: Bed) -> None:
    kept = bed.backup("shards")
    bed.play(seed=2)
    before = bed.judge()
    bed.restore("shards", kept)
    bed.play(seed=3)
    assert bed.judge().transactions > before.transactions


def test_a_store_ahead_of_the_log_halts_until_the_log_is_back(bed: Bed) -> None:
    old = bed.backup("log")
    bed.play(seed=2)
    new = bed.backup("log")
    bed.restore("log", old)
    stores = {path: path.read_bytes() for path in (bed.root / "shards").rglob("*.sst")}
    for _ in range(2):  # it halts again, whatever was done before
        with pytest.raises(TaskDiverged, match=r"state store is at block \d+, which the log does not hold; .*restore"):
            bed.play(seed=3)
    assert all(path.read_bytes() == content for path, content in stores.items()), "nothing is repaired by deleting"
    bed.restore("log", new)
    bed.play(seed=4)
    bed.judge()


def test_old_log_and_old_stores_are_seen_by_the_signer(bed: Bed) -> None:
    log, shards = bed.backup("log"), bed.backup("shards")
    bed.play(seed=2)
    newer = {part: bed.backup(part) for part in ("log", "shards")}
    bed.restore("log", log)
    bed.restore("shards", shards)
    with pytest.raises(TaskDiverged, match=r"the log was cut or replaced; restore it"):
        bed.play(seed=3)
    for part, kept in newer.items():
        bed.restore(part, kept)
    bed.play(seed=4)
    bed.judge()


def test_when_all_of_the_operator_forgot_the_subscriber_remembers(bed: Bed) -> None:
    kept = {part: bed.backup(part) for part in ("log", "shards", "sync")}
    told = len(bed.words.roots)
    bed.play(seed=2)
    for part, copy in kept.items():
        bed.restore(part, copy)
    remembered = bed.words.roots[told:]
    assert remembered
    bed.play(seed=3)
    with pytest.raises(LedgerBroken, match=r"acknowledged|verified"):
        bed.judge()
    bed.words.acks.clear()
    with pytest.raises(LedgerBroken, match=r"verified"):
        bed.judge()


@pytest.mark.parametrize("lost", ["deleted", "old"])
def test_the_synchronizer_without_its_memory_never_signs_twice(bed: Bed, lost: str) -> None:
    kept = bed.backup("sync")
    bed.play(seed=2)
    before = signatures(bed)
    if lost == "old":
        bed.restore("sync", kept)
    else:
        shutil.rmtree(bed.layout.sync)
    bed.play(seed=3)
    after = signatures(bed)
    assert set(after.values()) == {1}
    assert all(after[number] == 1 for number in before)
    assert max(after) > max(before)
    bed.judge()
