"""The states of a proposer or attestor; `pipeline.sync.round_task` draws the ways between them."""

from enum import Enum


class SyncState(Enum):
    """Where a proposer or attestor stands."""

    FENCING = "fencing"
    RECOVERING = "recovering"
    RUNNING = "running"
    FENCED = "fenced"
    HALTED = "halted"
