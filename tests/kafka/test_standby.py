"""Standbys on a real broker: a worker is killed under a large state, and its heir has a warm copy."""

import re
import subprocess
import sys
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


def test_a_killed_workers_shard_is_served_from_a_warm_copy_and_a_fresh_disk_says_how_far_it_is(
    bootstrap: str, tmp_path: Path
) -> None:
    with funded(bootstrap, tmp_path, ACCOUNTS) as (workers, client):
        workers.await_true(lambda: workers.has_copies("two", "one") and workers.has_copies("one", "two"))
        lost = workers.leads("one")
        blocks = {shard: int(float(height)) for shard, height in workers.heights("two", "standby").items()}
        assert {int(shard) for shard in blocks} == lost
        found = take_over(workers, client, "one", "two")
        # A second, on a machine that does nothing else; here other tests and processes share it.
        assert found.served_s <= SESSION_TIMEOUT_MS / 1000 + 4
        for shard in lost:
            assert recovered_from(workers, "two", shard) >= blocks[str(shard)] > 0

        # Nobody leads any more; a fresh worker restores everything, and says how far it is.
        workers.kill("two")
        workers.start("fresh")
        workers.await_true(lambda: workers.leads("fresh") == set(range(SHARDS)))
        client.answer(set(range(SHARDS)))
        said = (tmp_path / "fresh.err").read_text()
        assert {recovered_from(workers, "fresh", shard) for shard in range(SHARDS)} == {-1}
        assert re.search(r"shard \d: recovering, block \d+ of \d+, \d+ %\n", said), said

        command = ("audit", workers.layout.root, "--kafka", bootstrap)
        audit = [sys.executable, "-m", "pipeline.cli.main", *map(str, command)]
        verdict = subprocess.run(audit, capture_output=True, text=True, timeout=300, check=False)
        assert "\nall checks hold" in verdict.stdout, verdict
