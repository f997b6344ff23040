"""What a step says to its driver."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Something was done; step again at once."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do before `until_ms` (None: before something is appended to the log)."""

    until_ms: int | None = None


def earliest(*times_ms: int | None) -> Idle:
    """Idle until the first of some times, of which None never comes."""
    known = [time_ms for time_ms in times_ms if time_ms is not None]
    return Idle(min(known) if known else None)
