"""Kills, one after the other: start, wait a random while, `SIGKILL`, judge what is left, go on.

A seed fixes the records that are published and how long each victim lives; where the machine is by then is chance, so
a run is like another of its seed, not the same.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from pipeline.node.layout import NodeLayout
from pipeline.node.node import Node
from pipeline.testing.kills.finish import finish
from pipeline.testing.kills.judge import Judgement, LedgerBroken, judge
from pipeline.testing.kills.ledger import make_directory
from pipeline.testing.kills.words import Words
from pipeline.testing.suite import TEST_SUITES

KILLS_A_LEDGER: Final = 10
_LIFE_S: Final = 0.4
_YOUTH_S: Final = 0.6
_PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.002


@dataclass(slots=True)
class KillReport:
    """What was survived."""

    kills: int = 0
    young: int = 0
    """Killed before every shard led again."""
    finished: int = 0
    """Times that the ledger was brought to rest and judged as a whole."""
    transactions: int = 0
    blocks: int = 0
    bundles: int = 0
    roots_seen: int = 0
    seconds: float = 0.0

    def add(self, judged: Judgement) -> None:
        """A ledger at rest."""
        self.transactions += judged.transactions
        self.blocks += judged.blocks
        self.bundles += judged.bundles
        self.roots_seen += judged.roots_seen


def run_kills(
    kills: int, seed: int, folder: Path, progress: Callable[[int, Judgement], None] | None = None
) -> KillReport:
    """So many kills in new ledgers under `folder`, `KILLS_A_LEDGER` each. Raises `LedgerBroken`, the ledger stays."""
    report, started, random = KillReport(), time.monotonic(), Random(seed)
    number = 0
    while report.kills < kills:
        ledger = Ledger(folder / f"ledger-{number}", random, report)
        for _ in range(min(KILLS_A_LEDGER, kills - report.kills)):
            judged = ledger.kill()
            if progress is not None:
                progress(report.kills, judged)
        report.add(ledger.finish())
        number += 1
    report.seconds = time.monotonic() - started
    return report


class Ledger:
    """One directory whose processes are killed."""

    def __init__(self, root: Path, random: Random, report: KillReport) -> None:
        """A new ledger in `root`."""
        make_directory(root)
        self.layout = NodeLayout(root)
        self.words = Words()
        self._random = random
        self._report = report
        self._said = root / "said"

    def kill(self) -> Judgement:
        """Start, kill, judge the log as it was left; sometimes finish what was left. Raises `LedgerBroken`."""
        seed, young = self._random.getrandbits(32), self._random.random() < 0.25
        life_s = self._random.random() * (_YOUTH_S if young else _LIFE_S)
        with running_victim(self.layout.root, seed, self._said) as process:
            if not young:
                wait_for_word("ready", self._said, process)
            time.sleep(life_s)
            process.send_signal(signal.SIGKILL)
            process.wait()
        told = self._said.read_text()
        if process.returncode != -signal.SIGKILL:
            raise LedgerBroken(f"{self.layout.root}: the victim ended by itself: {errors_of(self._said)}")
        self.words.hear(told)
        self._report.kills += 1
        self._report.young += "ready" not in told
        judged = self._judged(finished=False)
        return self.finish() if self._random.random() < 0.4 else judged

    def finish(self) -> Judgement:
        """Open it here, bring it to rest, judge the whole. Raises `LedgerBroken`."""
        node = Node.open(self.layout.root, suites=TEST_SUITES)
        try:
            finish(node)
        finally:
            node.close()
        self._report.finished += 1
        return self._judged(finished=True)

    def _judged(self, *, finished: bool) -> Judgement:
        try:
            return judge(self.layout, self.words, finished=finished)
        except LedgerBroken as error:
            raise LedgerBroken(f"{self.layout.root} after kill {self._report.kills}: {error}") from error


@contextmanager
def running_victim(root: Path, seed: int, said: Path, *options: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Start one, and end it at the end; its words go to the file `said`, its errors beside it."""
    command = [sys.executable, "-m", "pipeline.testing.kills.victim", str(root), str(seed), *options]
    with said.open("wb") as out, _errors_file(said).open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors)
    try:
        yield process
    finally:  # whoever was disappointed must not wait for one that does not end by itself
        process.kill()
        process.wait()


def wait_for_word(word: str, said: Path, process: "subprocess.Popen[bytes]") -> None:
    """Until it said so. Raises `LedgerBroken` where it ends, or says nothing for a minute."""
    deadline = time.monotonic() + _PATIENCE_S
    while f"{word}\n" not in said.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise LedgerBroken(f"the victim never said {word!r}, exit code {process.returncode}: {errors_of(said)}")
        time.sleep(_POLL_S)


def errors_of(said: Path) -> str:
    """What it wrote to standard error."""
    return _errors_file(said).read_text().strip()


def _errors_file(said: Path) -> Path:
    return said.with_name(said.name + os.extsep + "errors")
