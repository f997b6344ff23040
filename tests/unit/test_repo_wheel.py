"""The wheel that is built here holds what the library reads at run time, and works without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from pipeline.data import SAMPLE_COLUMNS, SAMPLE_FILE, SAMPLE_ROWS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(directory), versions=["standard"])))


def test_wheel_holds_schemas_types_sample_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    schemas = {f"pipeline/_schemas/{path.name}" for path in (ROOT / "schemas").glob("*.avsc")}
    assert len(schemas) > 10
    assert schemas <= names
    assert {"pipeline/py.typed", f"pipeline/data/{SAMPLE_FILE}", "pipeline/data/README.md"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]
    assert not [name for name in names if "__pycache__" in name]


def test_wheel_names_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "hauptbuch = pipeline.cli.main:main" in archive.read(entry).decode()


def test_unpacked_wheel_finds_its_schemas_and_sample(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    program = (
        "import csv, gzip, io, pipeline, pipeline.codec.avro, pipeline.ledger.blocks, pipeline.ledger.checkpoints\n"
        "from pipeline.data import sample\n"
        "rows = list(csv.reader(io.StringIO(gzip.decompress(sample().read_bytes()).decode())))\n"
        "print(pipeline.__file__, len(rows), *rows[0], sep='|')\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().split("|") == [
        str(site / "pipeline" / "__init__.py"),
        str(SAMPLE_ROWS + 1),
        *SAMPLE_COLUMNS,
    ]
