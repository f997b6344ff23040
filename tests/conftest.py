"""What holds for every test."""

import pytest
from hypothesis import settings

# How long an example takes says something about the machine, not about the code: speed is measured in benchmarks/.
settings.register_profile("hauptbuch", deadline=None)
settings.load_profile("hauptbuch")


@pytest.fixture
def uncovered_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts are not measured by coverage.

    For tests that interrupt a process by an exception from its signal handler: coverage takes a lock at many calls of
    the process, in Python, and one that is interrupted there never gives it back. One in eleven hung.
    """
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(name, raising=False)
