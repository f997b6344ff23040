"""The loop around anything that is driven step by step and sleeps on the log."""

import gc
import sys
from collections.abc import Callable
from typing import Final

from pipeline.log.port import EventLog
from pipeline.shards.progress import Idle, Progress

LONGEST_SLEEP_MS: Final = 50
"""Of one whom more than the log may want: a rebalance, a condition that somebody waits for."""
LOG_ONLY_SLEEP_MS: Final = 500
"""Of one whom the log alone wakes; signals wait for as long."""
_SWITCH_S: Final = 500e-6
_COLLECT_AFTER: Final = (50_000, 20, 20)


def _tune_interpreter() -> None:
    """For as long as this process lives; what was set finer before stays.

    Threads that verify or commit need the interpreter for microseconds at a time, and at the default of 5 ms wait so
    long for every one of them beside a thread that executes a block: signatures fell from 10,000 to 455 a second.

    What a node makes by the thousand (records, leaves, receipts) is in no cycle and goes by itself; looking for cycles
    among it every 700 objects took an eighth of the time.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_S))
    if 0 < gc.get_threshold()[0] < _COLLECT_AFTER[0]:
        gc.set_threshold(*_COLLECT_AFTER)


def drive(
    step: Callable[[int], Progress | Idle],
    log: EventLog,
    clock_ms: Callable[[], int],
    is_done: Callable[[], bool],
    timeout_ms: int | None = None,
    longest_sleep_ms: int = LONGEST_SLEEP_MS,
) -> bool:
    """Step until `is_done`, asked before each step; False where `timeout_ms` passed first. Raises as `step` does.

    Lets threads of this process take turns more often, and the garbage collector look less often, for good.
    """
    _tune_interpreter()
    deadline_ms = None if timeout_ms is None else clock_ms() + timeout_ms
    while not is_done():
        outcome = step(clock_ms())
        now_ms = clock_ms()
        if deadline_ms is not None and now_ms >= deadline_ms:
            return is_done()
        if isinstance(outcome, Idle):
            wake_ms = outcome.until_ms if outcome.until_ms is not None else now_ms + longest_sleep_ms
            log.wait(max(0, min(wake_ms - now_ms, longest_sleep_ms)))
    return True
