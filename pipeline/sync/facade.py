"""State synchronization as one sees it from outside: start, watch, and look up what is signed.

No rule lives here: the synchronizer checks, cuts and signs. This adds the view over it.
"""

from dataclasses import dataclass

from pipeline.codec.types import Hash32, ShardId
from pipeline.errors import HauptbuchError, InvalidShard, StateSynchronizationFailed
from pipeline.shards.progress import Idle, Progress
from pipeline.sync.ledger_follower import LedgerFollower
from pipeline.sync.life import SyncState
from pipeline.sync.round_task import RoundTask


@dataclass(frozen=True, slots=True)
class SynchronizedState:
    """A shard's head: signed through `height` (-1: nothing yet), checked through `checked_height`.

    `lag_ms`: how much older the signed block is than the newest checked one, by their own times.
    """

    shard: ShardId
    height: int
    state_root: Hash32
    timestamp_ms: int
    checked_height: int
    lag_ms: int


@dataclass(frozen=True, slots=True)
class SyncReport:
    """A moment: the last round (-1: none yet), its time in ms, blocks checked and not signed, and every shard."""

    state: SyncState
    round: int
    timestamp_ms: int
    control_sequence: int
    unsigned_blocks: int
    shards: tuple[SynchronizedState, ...]
    error: HauptbuchError | None


class StateSynchronizer:
    """Holds a proposer or an attestor and delegates to it."""

    def __init__(self, task: RoundTask) -> None:
        """Does not own `task`: whoever made it closes it."""
        self.task = task

    def start_synchronization(self, now_ms: int, max_steps: int = 100_000) -> SyncReport:
        """Step until what is on the log is followed and the task runs, or can't yet.

        Raises `StateSynchronizationFailed` where it halted or was fenced.
        """
        for _ in range(max_steps):
            outcome = self.step(now_ms)
            if self.task.state is SyncState.RUNNING or isinstance(outcome, Idle):
                break
        if self.task.state in (SyncState.HALTED, SyncState.FENCED):
            raise StateSynchronizationFailed(f"the synchronizer is {self.task.state.value}: {self.task.error}")
        return self.monitor()

    def step(self, now_ms: int) -> Progress | Idle:
        """One step of the task."""
        return self.task.step(now_ms)

    def state_of(self, shard: int) -> SynchronizedState:
        """One shard. Raises `InvalidShard` where it is not active, or not followed yet."""
        follower = self.task.follower
        if follower is None or not 0 <= shard < len(follower.tracks):
            raise InvalidShard(f"shard {shard} is not synchronized: it is not active, or the synchronizer not started")
        return _state_of(follower, shard)

    def monitor(self) -> SyncReport:
        """Where it stands."""
        task, follower = self.task, self.task.follower
        if follower is None:
            return SyncReport(task.state, -1, 0, 0, 0, (), task.error)
        ledger = follower.ledger
        shards = tuple(_state_of(follower, shard) for shard in range(len(follower.tracks)))
        unsigned = follower.unsigned_blocks
        return SyncReport(
            task.state, ledger.round, ledger.timestamp_ms, ledger.control_sequence, unsigned, shards, task.error
        )


def _state_of(follower: LedgerFollower, shard: int) -> SynchronizedState:
    track = follower.tracks[shard]
    heads = follower.ledger.heads
    newest_ms = track.blocks[-1].header.timestamp_ms if track.blocks else None
    if shard >= len(heads):
        return SynchronizedState(ShardId(shard), -1, Hash32(bytes(32)), 0, track.checked_height, 0)
    head = heads[shard]
    lag_ms = 0 if newest_ms is None else newest_ms - head.timestamp_ms
    return SynchronizedState(
        ShardId(shard), head.height, head.state_root, head.timestamp_ms, track.checked_height, lag_ms
    )
