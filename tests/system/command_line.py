"""Running `hauptbuch` in this process and in one of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.cli.main import run

HAUPTBUCH = (sys.executable, "-m", "pipeline.cli.main")


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of an error."""
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("hauptbuch: ").rstrip("\n")

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class CommandLine:
    """`cli("accounts", directory)` as a shell would run it; remarks and errors are in `err`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Result:
        self._capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return Result(code, captured.out, captured.err)

    def ok(self, *arguments: object) -> Result:
        result = self(*arguments)
        assert result.code == 0, result
        return result


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A process of its own."""
    command = [*HAUPTBUCH, *[str(argument) for argument in arguments]]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def write_csv(path: Path, rows: list[tuple[object, ...]], header: str = "from,to,amount") -> Path:
    lines = [header, *(",".join(str(cell) for cell in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


COLUMNS = ("--from", "from", "--to", "to", "--amount", "amount")
