"""What is told again and again is said when it has lasted for a while, and then once a minute."""

from collections.abc import Callable, Hashable
from typing import Final

_LASTED_S: Final = 10.0
_SAY_AGAIN_S: Final = 60.0
GAP_S: Final = 3.0
"""Tasks try again several times a second; what was not told for so long is over."""


class Lasting:
    """Of one thing at a time."""

    def __init__(self, clock_s: Callable[[], float], gap_s: float | None = None) -> None:
        """What was not told for `gap_s` seconds is over; None: what is told next always goes on."""
        self._clock_s = clock_s
        self._gap_s = gap_s
        self._what: Hashable = None
        self._told_s: float | None = None
        self._say_at_s = 0.0

    def is_due(self, what: Hashable) -> bool:
        """Whether to say it this time."""
        now_s = self._clock_s()
        is_over = self._told_s is None or (self._gap_s is not None and now_s - self._told_s > self._gap_s)
        if is_over or what != self._what:
            self._what, self._say_at_s = what, now_s + _LASTED_S
        self._told_s = now_s
        if now_s < self._say_at_s:
            return False
        self._say_at_s = now_s + _SAY_AGAIN_S
        return True
