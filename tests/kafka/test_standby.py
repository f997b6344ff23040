"""Standbys on a real broker: a worker is killed under a large state, and its heir has a warm copy."""

import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from benchmarks.takeover import SHARDS, Workers, funded, take_over
from pipeline.log.kafka.group import SESSION_TIMEOUT_MS

pytestmark = pytest.mark.kafka

ACCOUNTS = 100_000


def recovered_from(workers: Workers, name: str, shard: int) -> int:
    """The block at which the last recovery of a shard began."""
    said = (workers.root / f"{name}.err").read_text()
    return int(re.findall(rf"shard {shard}: recovering, block (-?\d+)\n", said)[-1])


def recovery_s(said: str) -> float:
    """How long the longest recovery took, by the times of its lines."""
    ends = re.findall(r"^(\S+)Z .*shard (\d): (recovering, block -1|leading, block \d+)$", said, re.M)
    times = {(shard, state.split(",")[0]): datetime.fromisoformat(at) for at, shard, state in ends}
    shards = {shard for shard, _ in times}
    return max((times[shard, "leading"] - times[shard, "recovering"]).total_seconds() for shard in shards)


def test_a_killed_workers_shard_is_served_from_a_warm_copy_and_a_fresh_disk_says_how_far_it_is(
    bootstrap: str, tmp_path: Path
) -> None:
    with funded(bootstrap, tmp_path, ACCOUNTS) as (workers, client):
        workers.await_true(lambda: workers.has_copies("two", "one") and workers.has_copies("one", "two"))
        lost = workers.leads("one")
        blocks = {shard: int(float(height)) for shard, height in workers.heights("two", "standby").items()}
        assert {int(shard) for shard in blocks} == lost
        found = take_over(workers, client, "one", "two")
        # A second, on a machine that does nothing else (`benchmarks.takeover`); here many share it.
        assert found.served_s <= SESSION_TIMEOUT_MS / 1000 + 10
        for shard in lost:
            assert recovered_from(workers, "two", shard) >= blocks[str(shard)] > 0

        # Nobody leads any more; a fresh worker restores everything, and says how far it is.
        workers.kill("two")
        workers.start("fresh")
        workers.await_true(lambda: workers.leads("fresh") == set(range(SHARDS)))
        client.answer(set(range(SHARDS)))
        said = (tmp_path / "fresh.err").read_text()
        assert {recovered_from(workers, "fresh", shard) for shard in range(SHARDS)} == {-1}
        # Told once a second, of what recovers for a second at least.
        told = re.search(r"shard \d: recovering, block \d+ of \d+, \d+ %\n", said)
        assert told or recovery_s(said) < 2.5, said

        command = ("audit", workers.layout.root, "--kafka", bootstrap)
        audit = [sys.executable, "-m", "pipeline.cli.main", *map(str, command)]
        verdict = subprocess.run(audit, capture_output=True, text=True, timeout=300, check=False)
        assert "\nall checks hold" in verdict.stdout, verdict
