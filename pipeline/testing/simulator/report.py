"""What a simulation tells: figures of a run that held, a readable trace of one that did not."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_TRACE_SHOWN: Final = 80


@dataclass(slots=True)
class Trace:
    """What happened, one line each, and how often each kind of thing did."""

    lines: list[str] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    now_ms: int = 0
    decided: int = -1
    """Number of the last decision that was carried out whole."""

    def event(self, kind: str, what: str = "") -> None:
        """Something of a kind that is counted."""
        self.events[kind] += 1
        self.lines.append(f"{self.now_ms:>7} {kind}{': ' if what else ''}{what}")

    def note(self, what: str) -> None:
        """Something that is only told."""
        self.lines.append(f"{self.now_ms:>7} {what}")


@dataclass(frozen=True, slots=True)
class Report:
    """A run that held. `digest`: SHA-256 over the trace and every record of the log; equal for equal seeds."""

    seed: int
    shards: int
    records: int
    blocks: int
    rounds: int
    events: dict[str, int]
    trace: tuple[str, ...]
    digest: str


class SimulationFailed(AssertionError):  # noqa: N818 - says what became of the run
    """Something that must hold did not. The message names the seed, what it is, and how it came to it."""

    def __init__(self, seed: int, what: str, trace: Trace) -> None:
        """`what` in one line."""
        self.seed = seed
        self.what = what
        self.decided = trace.decided
        self.trace = tuple(trace.lines)
        shown = "\n".join(trace.lines[-_TRACE_SHOWN:])
        left = len(trace.lines) - _TRACE_SHOWN
        above = f"... {left} lines before\n" if left > 0 else ""
        command = "python -m pipeline.testing.simulator"
        super().__init__(
            f"seed {seed}: {what}\n{above}{shown}\nreplay: {command} --trace {seed}\nshorten: {command} --shrink {seed}"
        )

    @property
    def kind(self) -> str:
        """What failed without its numbers: the same for the same failure in a shorter run."""
        words = re.split(r"[\[({]", self.what)[0]
        return re.sub(r"\b[0-9a-f]*[0-9][0-9a-f]*\b", "#", words).strip()
