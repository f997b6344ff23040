"""docs/security.md names a test for every attack; each of them is there, and no row is there twice."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
CLASSES = {"shard", "cross-shard", "state", "load", "governance", "storage", "clients"}
HEAD = ["attack", "class", "who", "caught by", "test"]


class Row(NamedTuple):
    attack: str
    kind: str
    who: str
    caught_by: str
    test: str


def rows() -> list[Row]:
    lines = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    start = cells.index(HEAD) + 2
    table = []
    for line, row in zip(lines[start:], cells[start:], strict=True):
        if not line.startswith("|"):
            break
        table.append(Row(*row))
    return table


def test_the_table_is_whole_and_each_row_is_another_attack() -> None:
    table = rows()
    assert len(table) >= 40
    assert all(all(row) for row in table)
    assert [text for text, count in Counter(row.attack for row in table).items() if count > 1] == []
    assert [name for name, count in Counter(row.test for row in table).items() if count > 1] == []
    assert {row.kind for row in table} == CLASSES


def test_every_class_is_attacked_more_than_once() -> None:
    counts = Counter(row.kind for row in rows())
    assert min(counts.values()) >= 5, counts


def test_every_named_test_is_written() -> None:
    missing = []
    for row in rows():
        path, _, name = row.test.partition("::")
        assert re.fullmatch(r"tests/[a-z]+/test_\w+\.py", path), path
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        found = [item for item in tree.body if isinstance(item, ast.FunctionDef) and item.name == name]
        if len(found) != 1 or not name.startswith("test_"):
            missing.append(row.test)
    assert missing == []


def test_every_attack_module_is_in_the_table() -> None:
    named = {row.test.partition("::")[0] for row in rows()}
    modules = {str(path.relative_to(ROOT)) for path in Path(__file__).parent.glob("test_*.py")}
    assert modules - named == {"tests/attacks/test_security_table.py"}


@pytest.mark.slow
def test_pytest_collects_every_named_test() -> None:
    names = {row.test for row in rows()}
    paths = sorted({name.partition("::")[0] for name in names})
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        *paths,
    ]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    collected = {line.partition("[")[0] for line in listed.splitlines()}
    assert names <= collected, sorted(names - collected)
