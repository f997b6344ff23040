"""A ledger to do harm to: played with in this process, and judged after every harm."""

import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from pipeline.config import Config, Durability
from pipeline.config.groups import StoreConfig
from pipeline.node.layout import NodeLayout
from pipeline.node.node import Node
from pipeline.testing.kills.judge import Judgement, judge
from pipeline.testing.kills.ledger import make_directory
from pipeline.testing.kills.victim import Victim
from pipeline.testing.kills.words import Words
from pipeline.testing.suite import TEST_SUITES

HASTY = Config(store=StoreConfig(durability=Durability.PROCESS))
"""No test here cuts the power of the real disk, so none waits for it."""


@dataclass
class Bed:
    """A directory, and what was told to be durable about it."""

    root: Path
    words: Words = field(default_factory=Words)

    @classmethod
    def make(cls, root: Path) -> "Bed":
        make_directory(root, shards=2)
        return cls(root)

    @property
    def layout(self) -> NodeLayout:
        return NodeLayout(self.root)

    def open(self, **options: Any) -> Node:
        return Node.open(self.root, **{"suites": TEST_SUITES, "config": HASTY, **options})

    def play(self, seed: int, batches: int = 8, **options: Any) -> None:
        """Publish, execute, sign, to the end."""
        node = self.open(**options)
        try:
            self.play_in(node, seed, batches)
        finally:
            node.close()

    def play_in(self, node: Node, seed: int, batches: int = 8, patience_ms: int = 60_000) -> None:
        victim = Victim(node, Random(seed), self.words.hear)
        victim.lead()
        for _ in range(batches):
            victim.play()
        victim.finish(patience_ms)

    def judge(self, *, finished: bool = True) -> Judgement:
        return judge(self.layout, self.words, finished=finished)

    def backup(self, part: str) -> Path:
        """A copy of `log`, `shards` or `sync` as it is now."""
        kept = self.root.parent / f"backup-{part}-{len(list(self.root.parent.iterdir()))}"
        shutil.copytree(self.root / part, kept)
        return kept

    def restore(self, part: str, kept: Path) -> None:
        shutil.rmtree(self.root / part)
        shutil.copytree(kept, self.root / part)


class SmallDisk:
    """A mount in a name space of its own, reached through the process that holds it."""

    def __init__(self, shell: "subprocess.Popen[str]", mount: Path) -> None:
        self._shell = shell
        self._mount = mount
        self.path = Path(f"/proc/{shell.pid}/root{mount}")

    def tell(self, command: str) -> None:
        """Run a command in there."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(command + "\n")
        self._shell.stdin.flush()
        assert self._shell.stdout.readline() == "done\n", command

    def run(self, *command: object) -> "subprocess.CompletedProcess[str]":
        """Run a program that sees the disk where it is mounted: SQLite does not take the way through the process."""
        enter = ["nsenter", "-t", str(self._shell.pid), "-U", "-m", "--preserve-credentials", f"--wd={Path.cwd()}"]
        return subprocess.run([*enter, *map(str, command)], capture_output=True, text=True, check=False, timeout=120)

    def fill(self) -> None:
        """Leave not a byte."""
        with (self.path / "ballast").open("ab", buffering=0) as ballast, suppress(OSError):
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):
                    while ballast.write(bytes(size)) == size:
                        pass

    def make_space(self) -> None:
        (self.path / "ballast").unlink()

    def read_only(self, *, on: bool) -> None:
        self.tell(f"mount -o remount,{'ro' if on else 'rw'} '{self._mount}'")


def mounts_are_permitted() -> bool:
    return (
        shutil.which("unshare") is not None and subprocess.run(["unshare", "-rm", "true"], check=False).returncode == 0
    )
