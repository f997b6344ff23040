"""Directories that tests of the command line start from; making one takes half a second, copying it none."""

import os
import shutil
from pathlib import Path

import pytest
from command_line import COLUMNS, CommandLine, write_csv

from pipeline.cli.main import run


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests don't count; no test cuts the power, so none waits for the disk."""
    for name in [*os.environ]:
        if name.startswith("HAUPTBUCH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HAUPTBUCH_STORE__DURABILITY", "process")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


@pytest.fixture(scope="session")
def _fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ledgers") / "fresh"
    assert run(["init", str(directory), "--shards", "2", "--seed-demo"]) == 0
    return directory


@pytest.fixture(scope="session")
def _funded(_fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Accounts a to h over both shards (the public seed says where), each with 1000.00 UNIT but for what it pays."""
    directory = tmp_path_factory.mktemp("ledgers") / "funded"
    shutil.copytree(_fresh, directory)
    names = "abcdefgh"
    rows: list[tuple[object, ...]] = [(name, name, "1000.00") for name in names]
    file = write_csv(directory.parent / "start.csv", rows)
    assert run(["load", str(directory), str(file), *COLUMNS, "--decimals", "2"]) == 0
    return directory


@pytest.fixture
def fresh(_fresh: Path, tmp_path: Path) -> Path:
    """A ledger of two shards that nobody ran yet."""
    return Path(shutil.copytree(_fresh, tmp_path / "ledger"))


@pytest.fixture
def funded(_funded: Path, tmp_path: Path) -> Path:
    """Accounts a to h with 1000.00 UNIT each, of nonce 1."""
    return Path(shutil.copytree(_funded, tmp_path / "ledger"))
