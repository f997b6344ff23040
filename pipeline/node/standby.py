"""Standbys: warm copies of shards that other workers lead.

A copy is a follower and nothing more: it never fences and never writes the log. When its shard comes here, its open
store becomes the leader's, and only what was committed since is still to be executed.
"""

from collections.abc import Callable
from typing import Final

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.crypto.verifier import Verifier
from pipeline.errors import HauptbuchError, Retryable
from pipeline.ledger.chain import Chain
from pipeline.log.port import EventLog
from pipeline.shards.observer import CopyObserver
from pipeline.shards.recovery import Following
from pipeline.state.store import StateStore

_RETRY_MS: Final = 200
_TELL_MS: Final = 1_000
_ONE_BLOCK: Final = 1


class _Copy:
    """One of them, from when it is wanted until it is not."""

    def __init__(self, shard: ShardId, observer: CopyObserver) -> None:
        """Nothing is open yet."""
        self.shard = shard
        self.observer = observer
        self.store: StateStore | None = None
        self.following: Following | None = None
        self.failed = False
        self.is_warm = False
        self.retry_at_ms = 0
        self.tell_at_ms: int | None = None


class Standbys:
    """The copies of one worker; driven by its thread."""

    def __init__(
        self,
        chain: Chain,
        log: EventLog,
        verifier: Verifier,
        open_store: Callable[[ShardId], StateStore],
        close_store: Callable[[ShardId], None],
        observe: Callable[[ShardId], CopyObserver],
    ) -> None:
        """None yet."""
        self._chain = chain
        self._log = log
        self._verifier = verifier
        self._open_store = open_store
        self._close_store = close_store
        self._observe = observe
        self._copies: dict[ShardId, _Copy] = {}

    @property
    def warm(self) -> frozenset[ShardId]:
        """Copies that had every block when they were last stepped."""
        return frozenset(shard for shard, copy in self._copies.items() if copy.is_warm)

    def keep(self, shards: frozenset[ShardId]) -> None:
        """Keep copies of these from now on, and of no others."""
        if shards == self._copies.keys():
            return
        for shard in self._copies.keys() - shards:
            if self.take(shard) is not None:
                self._close_store(shard)
        for shard in sorted(shards - self._copies.keys()):
            self._copies[shard] = _Copy(shard, self._observe(shard))

    def take(self, shard: ShardId) -> StateStore | None:
        """The shard leaves standby; its store stays open and is the caller's. None where it has none open."""
        copy = self._copies.pop(shard, None)
        if copy is None:
            return None
        copy.observer.gone()
        return copy.store

    def step(self, now_ms: int, *, briefly: bool) -> bool:
        """Execute blocks of each copy, `briefly` at most one; whether there were any.

        A copy that can't go on is left where it is: its error is told, and is nothing to those who lead.
        """
        progressed = False
        for copy in self._copies.values():
            # A clock that was set back must not prolong the pause.
            copy.retry_at_ms = min(copy.retry_at_ms, now_ms + _RETRY_MS)
            if copy.failed or now_ms < copy.retry_at_ms:
                continue
            try:
                progressed = self._follow(copy, now_ms, briefly=briefly) or progressed
            except Retryable:
                copy.retry_at_ms = now_ms + _RETRY_MS
            except HauptbuchError as error:
                self._fail(copy, error)
        return progressed

    def close(self) -> None:
        """Forget them all; their stores are closed. Idempotent."""
        self.keep(frozenset())

    def _follow(self, copy: _Copy, now_ms: int, *, briefly: bool) -> bool:
        if copy.store is None:
            copy.store = self._open_store(copy.shard)
        if copy.following is None:
            # This process may have led the shard a moment ago and hear of its own last block later than of its end.
            self._log.settle(TopicPartition(Topic.BLOCKS, copy.shard))
            copy.following = Following(self._chain, copy.shard, self._log, copy.store, self._verifier)
        following = copy.following
        if following.step(_ONE_BLOCK) if briefly else following.step():
            if copy.is_warm:
                copy.tell_at_ms = None
                copy.observer.follows(following.committed.height)
            else:
                self._is_behind(copy, following, now_ms)
            return True
        if following.blocked is not None:
            # Inputs mostly come a moment after the block that names them.
            if self._is_behind(copy, following, now_ms):
                copy.is_warm = False
            return False
        copy.tell_at_ms = None
        if not copy.is_warm:
            copy.is_warm = True
            copy.observer.follows(following.committed.height)
        return False

    def _is_behind(self, copy: _Copy, following: Following, now_ms: int) -> bool:
        """Whether the copy has been without some block for a while; tells how far it is once in that time."""
        latest_ms = now_ms + _TELL_MS  # a clock that was set back must not prolong it
        copy.tell_at_ms = latest_ms if copy.tell_at_ms is None else min(copy.tell_at_ms, latest_ms)
        if now_ms < copy.tell_at_ms:
            return False
        copy.tell_at_ms = latest_ms
        copy.observer.catching_up(*following.progress())
        return True

    def _fail(self, copy: _Copy, error: HauptbuchError) -> None:
        copy.failed, copy.is_warm, copy.following = True, False, None
        if copy.store is not None:
            copy.store = None
            self._close_store(copy.shard)
        copy.observer.failed(error)
