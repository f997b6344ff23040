"""Disks that are full or read-only: one clear line, nothing half-written, and on it goes once there is space."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fault_bed import Bed, SmallDisk

from pipeline.errors import ConfigError, Fatal
from pipeline.testing.kills.campaign import errors_of, running_victim, wait_for_word

PATIENCE_S = 120
FULL = re.compile(r"disk full under \S+: free space and start again|the store \S+ can't write: disk full or failing .*")


def run_out_of_space(bed: Bed, disk: SmallDisk, said: Path, seed: int) -> None:
    """A node under load until its disk is full."""
    with running_victim(bed.root, seed, said) as process:
        wait_for_word("ready", said, process)
        disk.fill()
        code = process.wait(PATIENCE_S)
    assert code == 2, errors_of(said)
    assert FULL.fullmatch(errors_of(said)), errors_of(said)
    bed.words.hear(said.read_text())


def test_a_full_disk_stops_the_node_until_there_is_space(small_disk: SmallDisk, tmp_path: Path) -> None:
    bed, said = Bed.make(small_disk.path / "ledger"), tmp_path / "said"
    bed.play(seed=1)
    run_out_of_space(bed, small_disk, said, seed=2)
    bed.judge(finished=False)  # as it is: full
    with pytest.raises(Fatal, match=FULL):
        bed.play(seed=3)
    small_disk.make_space()
    bed.play(seed=4)
    bed.judge()


def test_a_limit_on_the_size_of_files_is_a_full_disk(bed: Bed) -> None:
    """A quota of a kind that needs no mount. The limit is on the write-ahead log."""
    command = (
        f"ulimit -f 256; exec {sys.executable} -m pipeline.testing.kills.victim '{bed.root}' 2 --durability process"
    )
    # The limit would hit the file of a coverage measurement too, and its complaint is not the node's.
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    limited = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=unmeasured
    )
    assert limited.returncode == 2, limited.stderr
    assert FULL.fullmatch(limited.stderr.rstrip("\n")), limited.stderr
    bed.words.hear(limited.stdout)
    bed.judge(finished=False)
    bed.play(seed=3)
    bed.judge()


def test_a_read_only_disk_is_told_and_can_be_read(small_disk: SmallDisk) -> None:
    bed = Bed.make(small_disk.path / "ledger")
    bed.play(seed=1)
    small_disk.read_only(on=True)
    with pytest.raises(ConfigError, match=r"can't be locked: Read-only file system$"):
        bed.play(seed=2)
    before = bed.judge()
    small_disk.read_only(on=False)
    bed.play(seed=2)
    assert bed.judge().transactions > before.transactions


@pytest.mark.slow
def test_the_command_line_on_a_full_and_on_a_read_only_disk(small_disk: SmallDisk, tmp_path: Path) -> None:
    root, file = tmp_path / "disk" / "ledger", tmp_path / "p.csv"
    file.write_text("from,to,amount\n" + "".join(f"n{n % 40},n{n * 7 % 40},1\n" for n in range(20_000)))
    columns = ("--from", "from", "--to", "to", "--amount", "amount", "--rejects", tmp_path / "rejects")

    def hauptbuch(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return small_disk.run(sys.executable, "-m", "pipeline.cli.main", *arguments)

    made = hauptbuch("init", root, "--shards", 2)
    assert made.returncode == 0, made.stderr
    full = hauptbuch("load", root, file, *columns)
    assert (full.returncode, full.stdout) == (2, "")
    assert FULL.fullmatch(full.stderr.removeprefix("hauptbuch: ").rstrip("\n")), full.stderr
    small_disk.tell(f"mount -o remount,size=64m '{tmp_path}/disk'")
    resumed = hauptbuch("load", root, file, *columns, "--limit", 20)
    assert resumed.returncode == 0, resumed.stderr
    small_disk.read_only(on=True)
    refused = hauptbuch("load", root, file, *columns)
    assert refused.stderr == f"hauptbuch: {root} can't be locked: Read-only file system\n"
    for command in (("accounts", root), ("status", root), ("roots", root), ("audit", root)):
        shown = hauptbuch(*command)
        assert shown.returncode == 0, shown.stderr
    assert "\nall checks hold" in shown.stdout
