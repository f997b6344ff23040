"""What tests of faults start from: a small ledger that was played with, and a small disk."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_bed import Bed, SmallDisk, mounts_are_permitted

from pipeline.testing.kills.words import Words


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests don't count."""
    for name in [*os.environ]:
        if name.startswith("HAUPTBUCH_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def _played(tmp_path_factory: pytest.TempPathFactory) -> Bed:
    bed = Bed.make(tmp_path_factory.mktemp("ledgers") / "played")
    bed.play(seed=1)
    return bed


@pytest.fixture
def bed(_played: Bed, tmp_path: Path) -> Bed:
    """A copy of a ledger at rest, and what was told about it."""
    root = Path(shutil.copytree(_played.root, tmp_path / "ledger"))
    return Bed(root, Words([*_played.words.acks], [*_played.words.roots]))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of 12 MiB that exists for this test only."""
    if not mounts_are_permitted():
        pytest.skip("needs unprivileged mounts")
    (tmp_path / "disk").mkdir()
    command = ["unshare", "-rm", "sh", "-c", 'while read -r line; do eval "$line" && echo done || echo failed; done']
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        disk = SmallDisk(shell, tmp_path / "disk")
        disk.tell(f"mount -t tmpfs -o size=12m none '{tmp_path}/disk'")
        yield disk
        assert shell.stdin is not None
        shell.stdin.close()
