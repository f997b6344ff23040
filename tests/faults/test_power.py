"""Power cuts of a whole node at its writes. Disks are in memory and lose a suffix of what was not synced.

With durability "sync" nothing that was acknowledged is lost. With "process" it may be, yet nothing is ever torn: the
log ends earlier, and what knows more than it halts.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fault_bed import HASTY, Bed
from memory_machine import Machine

from pipeline.config import Config
from pipeline.errors import TaskDiverged
from pipeline.kv.rocks import open_rocks
from pipeline.testing.faulty_kv import SimulatedCrash
from pipeline.testing.kills.campaign import running_victim, wait_for_word
from pipeline.testing.kills.judge import Judgement, judge, judge_log
from pipeline.testing.kills.ledger import make_directory
from pipeline.testing.kills.words import Words

SYNCED = Config()
START_MS = 1_700_000_000_000


class SteppingClock:
    """Goes on 2 ms whenever it is read, so that equal runs make equal writes."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        self.now_ms += 2
        return self.now_ms


@dataclass
class Outage(Bed):
    """A bed on a machine whose power fails."""

    machine: Machine = field(default_factory=Machine)
    clock: SteppingClock = field(default_factory=SteppingClock)

    @classmethod
    def make(cls, root: Path) -> "Outage":
        make_directory(root, shards=2, created_ms=START_MS)
        made = cls(root)
        made.open(config=SYNCED).close()  # genesis and topics, as `init` leaves them
        made.machine.writes = 0
        return made

    def open(self, **options: Any) -> Any:
        return super().open(open_kv=self.machine.open, clock_ms=self.clock, **options)

    def play_until_cut(self, seed: int, random: Random, config: Config, batches: int = 3) -> None:
        """Play, with a cut where the machine says so."""
        with suppress(SimulatedCrash):
            self.play(seed, batches, config=config)
        self.machine.cut(random)

    def what_halts(self, seed: int) -> str | None:
        """Why it does not go on; None where it does."""
        try:
            self.play(seed, config=HASTY)
        except TaskDiverged as error:
            return str(error)
        return None

    def judge(self, *, finished: bool = True) -> Judgement:
        reopen = partial(self.machine.log, self.layout.log)
        return judge_log(reopen(), reopen, self.layout.chain(), self.words, finished=finished)


@pytest.fixture
def outage(tmp_path: Path) -> Outage:
    return Outage.make(tmp_path / "ledger")


def cut_and_go_on(root: Path, cut_at: float, seed: int) -> None:
    """Power fails at `cut_at` of the first run, and again somewhere in the recovery."""
    outage, random = Outage.make(root), Random(seed)
    outage.machine.cut_at = cut_at
    outage.play_until_cut(seed=1, random=random, config=SYNCED)
    outage.judge(finished=False)
    outage.machine.cut_at = outage.machine.writes + random.randint(1, 12) + random.choice((0, 0.5))
    outage.play_until_cut(seed=2, random=random, config=SYNCED)
    outage.judge(finished=False)
    outage.play(seed=3, batches=1, config=SYNCED)
    outage.judge()


def writes_of_a_run(root: Path) -> int:
    outage = Outage.make(root)
    outage.play(seed=1, batches=3, config=SYNCED)
    outage.judge()
    return outage.machine.writes


def test_nothing_synced_is_lost(tmp_path: Path) -> None:
    """A cut at some of the writes of a whole run, before and after."""
    writes = writes_of_a_run(tmp_path / "whole")
    assert writes > 30
    for number, write in enumerate(range(1, writes + 1, 5)):
        cut_and_go_on(tmp_path / f"{write}", write + (number % 2) / 2, seed=write)


@pytest.mark.slow
def test_a_cut_before_and_after_every_write(tmp_path: Path) -> None:
    for write in range(1, writes_of_a_run(tmp_path / "whole") + 1):
        for moment in (write, write + 0.5):
            cut_and_go_on(tmp_path / f"{moment}", moment, seed=int(2 * moment))


@pytest.mark.parametrize("seed", range(6))
def test_unsynced_history_may_be_lost_but_never_torn(outage: Outage, seed: int) -> None:
    random = Random(seed)
    outage.play(seed=1, config=HASTY)
    outage.machine.cut_at = outage.machine.writes + random.randint(20, 60)
    outage.play_until_cut(seed=2, random=random, config=HASTY)
    told, outage.words = outage.words, Words()
    outage.judge(finished=False)
    halted = outage.what_halts(seed=3)
    assert halted is None or "restore" in halted
    if halted is None:
        outage.judge()
    assert told.acks


def test_what_outlived_the_log_halts(outage: Outage) -> None:
    """The log lost its tail, stores did not: told, not repaired. The signer's synced memory has the last word."""
    outage.play(seed=1, config=HASTY)
    random = Random(7)
    outage.machine.cut_at = outage.machine.writes + 60
    with pytest.raises(SimulatedCrash):
        outage.play(seed=2, config=HASTY)
    for path, disk in outage.machine.disks.items():
        disk.crash(0 if path.name == "log" else disk.unsynced)
    outage.machine.cut_at = None
    outage.words = Words()
    with pytest.raises(TaskDiverged, match=r"which the log does not hold|the log was cut or replaced"):
        outage.play(seed=3, config=HASTY)
    outage.machine.forget("shards")
    with pytest.raises(TaskDiverged, match=r"the log was cut or replaced|restored from an old backup"):
        outage.play(seed=4, config=HASTY)
    outage.machine.forget("sync")  # the operator's own decision: who saw the lost rounds has proof of it
    outage.play(seed=random.randint(5, 9), config=HASTY)
    outage.judge()


# The real disk: write-ahead logs that end early, in the middle of a record or in garbage


def newest_wal(folder: Path) -> Path:
    return max(folder.glob("*.log"), key=lambda file: int(file.stem))


def killed(bed: Bed, durability: str) -> None:
    said = bed.root.parent / "said"
    with running_victim(bed.root, 5, said, "--durability", durability) as process:
        wait_for_word("ready", said, process)
        time.sleep(0.3)
        process.kill()
        process.wait()
    bed.words.hear(said.read_text())


def test_a_torn_log_ends_at_a_whole_transaction(bed: Bed) -> None:
    killed(bed, "process")
    whole_log, whole, random = bed.judge(finished=False), bed.backup("log"), Random(3)
    for number in range(6):
        bed.restore("log", whole)
        wal = newest_wal(bed.layout.log)
        content = wal.read_bytes()
        cut = random.randrange(len(content))
        wal.write_bytes(content[:cut] + random.randbytes(40 * (number % 2)))
        open_rocks(bed.layout.log).close()  # its owner recovers it; a reader before that may refuse the torn end
        recovered = judge(bed.layout, Words(), finished=False)
        assert recovered.transactions <= whole_log.transactions
    bed.restore("log", whole)
    bed.judge(finished=False)


def test_state_stores_that_lost_their_tail_catch_up(bed: Bed) -> None:
    killed(bed, "sync")
    random = Random(4)
    for shard in range(2):
        wal = newest_wal(bed.layout.shard(shard))
        wal.write_bytes(wal.read_bytes()[: random.randrange(wal.stat().st_size)])
    bed.play(seed=6)
    bed.judge()
