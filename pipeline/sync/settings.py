"""Settings of the synchronizer."""

from dataclasses import dataclass
from typing import Final

IDLE_MS: Final = 1_000
"""How long to sleep without news, in ms: the log wakes its readers, this only bounds the wait."""


@dataclass(frozen=True, slots=True)
class SyncConfig:
    """How rounds are made, in ms and blocks.

    A round closes `round_linger_ms` after its first block was seen. A header or checkpoint more than
    `max_clock_ahead_ms` ahead of the own clock waits. At most `max_unsigned` checked blocks a shard are held in memory.
    """

    round_linger_ms: int = 5
    max_clock_ahead_ms: int = 10_000
    max_unsigned: int = 1_024
