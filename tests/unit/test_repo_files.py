"""House rules over the files of the repository: no machine's paths, pinned versions, small modules with a docstring."""

import ast
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for top in ("pipeline", "topologies") for path in (ROOT / top).rglob("*.py"))


def tracked_texts() -> dict[str, str]:
    """Text of every tracked file; test vectors are other projects' and stay as they are."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = {}
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if name.startswith("tests/vectors/") or not path.is_file():
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            texts[name] = data.decode()
    return texts


# Built from parts so that this file does not match.
MACHINE = re.compile("|".join(["/" + name + "/" for name in ("root", "work", "home", "Users", "opt/wheels")]))
REGISTRY = re.compile(
    "|".join(["py" + r"pi\.", "python" + "hosted", "artifact" + "ory", "index" + "-url", "find" + "-links"])
)


def test_no_paths_of_a_machine_and_no_registry_in_any_tracked_file() -> None:
    texts = tracked_texts()
    assert len(texts) > 50
    found = [
        f"{name}: {match.group()}"
        for name, text in texts.items()
        for match in (*MACHINE.finditer(text), *REGISTRY.finditer(text))
    ]
    assert found == []


def test_tracked_text_ends_lines_as_unix_does() -> None:
    assert [name for name, text in tracked_texts().items() if "\r" in text or (text and not text.endswith("\n"))] == []


def pins() -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    parts = [line.split("==") for line in lines if line]
    assert all(len(part) == 2 for part in parts), "every constraint is name==version"
    return {canonicalize_name(name): version for name, version in parts}


def test_every_dependency_is_pinned_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(one for group in project["project"]["optional-dependencies"].values() for one in group),
    ]
    requirements = [Requirement(one) for one in named if not one.startswith("hauptbuch[")]
    assert len(requirements) > 12
    pinned = pins()
    assert [str(r) for r in requirements if not r.specifier.contains(pinned.get(canonicalize_name(r.name), "0"))] == []


def test_each_dependency_says_why_it_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:dependencies|faust|test|dev) = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert len(lists) == 4
    lines = [line for part in lists for line in part.splitlines() if "hauptbuch[" not in line]
    assert [line for line in lines if not re.search(r'",\s+# \w', line)] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_with_code_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body


def test_modules_are_small() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: size for name, size in sizes.items() if size > 600} == {}
    large = [name for name, size in sizes.items() if size >= 400]
    assert len(large) <= len(sizes) // 20, large


def run_ci(tmp_path: Path, *, test_output: str, test_status: int = 0) -> subprocess.CompletedProcess[str]:
    """`.ci/run` of a copy, with a `make` that prints what the case says instead of working."""
    copy = tmp_path / "clone"
    (copy / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", copy / ".ci" / "run")
    make = tmp_path / "bin" / "make"
    make.parent.mkdir()
    make.write_text(
        "#!/bin/sh\n"
        'for target; do :; done\necho "$target" >> "$0.calls"\n'
        'case "$target" in test) cat "$0.test"; exit '
        + str(test_status)
        + ";; test-slow) echo '7 passed in 1.00s';; test-kafka) echo '5 passed in 1.00s';; esac\n"
    )
    make.chmod(0o755)
    Path(f"{make}.test").write_text(test_output)
    environ = {**os.environ, "PATH": f"{make.parent}:{os.environ['PATH']}"}
    return subprocess.run([copy / ".ci" / "run"], env=environ, capture_output=True, text=True, check=False)


def test_ci_runs_all_stages_and_shows_the_closing_lines(tmp_path: Path) -> None:
    done = run_ci(tmp_path, test_output="....\n512 passed, 3 skipped in 9.87s\n")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bin" / "make.calls").read_text().split() == ["check", "test", "test-slow", "test-kafka", "demo"]
    assert done.stdout.endswith(
        "make test: 512 passed, 3 skipped in 9.87s\nmake test-slow: 7 passed in 1.00s\n"
        "make test-kafka: 5 passed in 1.00s\n"
    )


@pytest.mark.parametrize(
    ("output", "status"),
    [("no tests ran in 0.01s\n", 0), ("9 skipped in 0.1s\n", 0), ("1 failed, 8 passed in 1s\n", 2)],
)
def test_ci_fails_where_a_test_failed_or_none_ran(tmp_path: Path, output: str, status: int) -> None:
    done = run_ci(tmp_path, test_output=output, test_status=status)
    assert done.returncode != 0
    assert "demo" not in (tmp_path / "bin" / "make.calls").read_text()


def test_make_lists_its_targets() -> None:
    if shutil.which("make") is None:
        pytest.skip("no make")
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[0] for line in listed.splitlines() if line}
    assert {"setup", "demo", "test", "test-slow", "test-kafka", "check", "bench", "clean", "help"} <= targets
