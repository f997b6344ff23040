"""docs/operations.md agrees with the code: its tables of settings, metrics and halts."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.config import Config
from pipeline.watch.names import METRICS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()
HALTING = {"TaskDiverged", "ClockSkew", "_diverged", "ShardAllocationFailed"}
ERRORS = HALTING | {"Fatal", "ConfigError", "LogStalled"}
HOLE = "\N{HORIZONTAL ELLIPSIS}"


def table(header: str) -> list[list[str]]:
    """Cells of the table whose first column is named so."""
    lines = TEXT[TEXT.index(f"\n| {header} |") + 1 :].splitlines()
    rows = lines[: next(i for i, line in enumerate(lines) if line[:1] != "|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def template(node: ast.AST) -> str:
    """The text of a message, with a hole for what is filled in."""
    match node:
        case ast.Constant(value=value):
            return str(value)
        case ast.JoinedStr(values=values):
            return "".join(template(value) for value in values)
        case _:
            return HOLE


def messages(names: set[str]) -> Iterator[str]:
    """Of every error of these kinds that a running process can meet."""
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        if {"testing", "audit", "cli", "data"} & set(path.relative_to(ROOT).parts):
            continue
        assigned: dict[str, str] = {}
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.JoinedStr() as value):
                    assigned[name] = template(value)
                case ast.Call(func=ast.Name(id=name), args=[*_, ast.Name(id=variable)]) if name in names:
                    yield assigned.get(variable, HOLE)
                case ast.Call(func=ast.Name(id=name), args=[*_, last]) if name in names:
                    yield template(last)


def pattern(phrase: str) -> re.Pattern[str]:
    """A phrase of the table, whose capitals stand for what is filled in."""
    return re.compile(re.sub(r"\b[A-Z]+\b", ".+?", re.escape(phrase)))


PHRASES = [phrase.strip("` ") for row in table("message says") for phrase in row[0].split(";")]


def test_every_metric_stands_in_the_table_with_its_labels_and_no_other() -> None:
    documented = {row[0].strip("`"): tuple(filter(None, row[1].split(", "))) for row in table("metric")}
    assert documented == {name: kind.labels for name, kind in METRICS.items()}


def test_names_of_metrics_are_prometheus_ones() -> None:
    for name, (kind, _, text) in METRICS.items():
        assert re.fullmatch(r"hauptbuch_[a-z_]+", name)
        assert name.endswith("_total") == (kind == "counter")
        assert name.endswith("_seconds") or kind != "histogram"
        assert text[-1] == "."


def test_every_setting_stands_in_the_table() -> None:
    def leaves(group: type[BaseModel], prefix: str = "") -> Iterator[str]:
        for name, field in group.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from leaves(field.annotation, f"{prefix}{name}.")
            else:
                yield prefix + name

    known = set(leaves(Config))
    named = {name for row in table("setting") for name in re.findall(r"`([a-z_.*]+)`", row[0])}
    covered = {name for name in known if name in named or f"{name.rpartition('.')[0]}.*" in named}
    assert covered == known
    assert {name for name in named if not name.endswith("*")} <= known


@pytest.mark.parametrize("message", sorted(set(messages(HALTING)) - {HOLE}))
def test_every_halt_stands_in_the_table(message: str) -> None:
    assert any(pattern(phrase).search(message) for phrase in PHRASES), f"docs/operations.md does not explain: {message}"


@pytest.mark.parametrize("phrase", PHRASES)
def test_the_table_names_no_halt_that_is_not_there(phrase: str) -> None:
    assert any(pattern(phrase).search(message) for message in messages(ERRORS))


def test_messages_are_found() -> None:
    found = list(messages(HALTING))
    assert len(found) > 45
    assert found.count(HOLE) == 0, "a message that is not written where it is raised can't be looked up"
