"""The README as a reader would follow it: every block is run, in order, in one empty directory."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.cli import main

ROOT = Path(__file__).parents[2]
BROKERS = "localhost:9092"
README = (ROOT / "README.md").read_text(encoding="utf-8")


class Block(NamedTuple):
    line: int
    language: str
    text: str

    @property
    def is_make(self) -> bool:
        """Whether all its commands are targets: those are not run inside the tests that one of them runs."""
        commands = [line for line in self.text.splitlines() if line.strip()]
        return self.language == "bash" and all(line.startswith("make ") for line in commands)

    @property
    def needs_cluster(self) -> bool:
        """Whether it is run by tests/kafka/test_readme_on_kafka.py."""
        return BROKERS in self.text


def blocks() -> list[Block]:
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
    return [Block(README[: match.start()].count("\n") + 1, match[1], match[2]) for match in found]


def run_block(block: Block, folder: Path, environment: dict[str, str]) -> str:
    if block.language == "python":
        command = [sys.executable, "-c", block.text]
    else:
        command = ["bash", "-euo", "pipefail", "-c", block.text]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"README.md line {block.line}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def clean_environment() -> dict[str, str]:
    """With the command on its path, and no settings of ours."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HAUPTBUCH_")}
    environment["PATH"] = f"{sysconfig.get_path('scripts')}{os.pathsep}{environment['PATH']}"
    return environment


def test_every_block_runs(tmp_path: Path) -> None:
    environment = clean_environment()
    told = [run_block(block, tmp_path, environment) for block in blocks() if is_run(block)]
    ledger, keys, producer, proof, subscriber, audit = told
    assert '"balances": {"UNIT": "1275"}' in ledger
    assert "erin" in keys
    assert producer.rstrip().endswith(" OK")
    assert "balance of hb1" in proof
    assert ": 775 minor units" in proof
    assert subscriber.startswith("775 minor units as of round ")
    assert subscriber.rstrip().endswith("\n0 refused")
    assert "\nall checks hold" in audit
    assert "that was seen before" in audit
    assert "\nUNIT: balances 32.75 + fees 0.00 + in flight 0.00 = issued 32.75 - burned 0.00\n" in audit
    assert (tmp_path / "report.json").is_file()


def is_run(block: Block) -> bool:
    return block.language in ("bash", "python") and not block.is_make and not block.needs_cluster


def test_every_block_has_a_language_that_is_known() -> None:
    assert {block.language for block in blocks()} == {"bash", "python", "text"}


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M))
    assert {"demo", "test"} <= named <= targets


def test_commands_that_are_named_exist() -> None:
    named = set(re.findall(r"hauptbuch ([a-z]+)", README))
    assert {"init", "load", "send", "prove", "verify", "audit", "roots"} <= named <= set(main.COMMANDS)


def test_the_screen_is_what_the_demo_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["demo", "--rows", "60"]) == 0
    printed = capsys.readouterr().out
    (screen,) = [block.text for block in blocks() if block.language == "text"]
    assert shape(screen) == shape(printed)
    assert re.findall(r"^ {12}((?:a|an) \w.*?)  ", screen, re.M) == re.findall(
        r"^ {12}((?:a|an) \w.*?)  ", printed, re.M
    )


def shape(text: str) -> list[str]:
    """The labels at the beginnings of lines, and the first word beside each."""
    return [
        " ".join(re.sub(r"[\d,.]+|hb1\w+", "#", line).split()[:3]) for line in text.splitlines() if line[:1].strip()
    ]
