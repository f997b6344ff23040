"""A shard's life, drawn and enforced.

            assigned            owner proven        caught up
UNASSIGNED ─────────▶ FENCING ─────────▶ RECOVERING ─────────▶ LEADING
     ▲                 │  ▲                  │                   │ │
     │                 │  └──────────────────┴───────────────────┤ └─ outcome unknown or abortable error:
     │                 │     probe says still owner: retry       │    drop everything in memory, FENCING
     └── revoked, or the probe says another owns it ◀────────────┘
 HALTED ◀── any disagreement, from any state that reads the log; only an operator leads out of it
"""

from enum import Enum
from typing import Final


class TaskState(Enum):
    """Where a shard task stands."""

    UNASSIGNED = "unassigned"
    FENCING = "fencing"
    RECOVERING = "recovering"
    LEADING = "leading"
    HALTED = "halted"


TRANSITIONS: Final[dict[TaskState, frozenset[TaskState]]] = {
    TaskState.UNASSIGNED: frozenset({TaskState.FENCING}),
    TaskState.FENCING: frozenset({TaskState.RECOVERING, TaskState.UNASSIGNED, TaskState.HALTED}),
    TaskState.RECOVERING: frozenset({TaskState.LEADING, TaskState.FENCING, TaskState.UNASSIGNED, TaskState.HALTED}),
    TaskState.LEADING: frozenset({TaskState.FENCING, TaskState.UNASSIGNED, TaskState.HALTED}),
    TaskState.HALTED: frozenset(),
}


class Life:
    """The state, and the only way to change it."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        """Unassigned."""
        self.state = TaskState.UNASSIGNED

    def move(self, state: TaskState) -> None:
        """Change the state; a transition that is not drawn above is a bug."""
        assert state in TRANSITIONS[self.state], f"a shard can't go from {self.state.value} to {state.value}"
        self.state = state
