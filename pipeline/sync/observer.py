"""Who is told what a proposer or attestor does: metrics and logs. Steps stay free of both, and of clocks."""

from collections.abc import Collection

from pipeline.codec.types import Hash32
from pipeline.errors import HauptbuchError
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.cursor import ShardCursor
from pipeline.sync.life import SyncState


class RoundObserver:
    """Told by the thread that drives the task, a few times a block or round; this one ignores it all.

    An observer may read clocks, and must neither raise nor wait.
    """

    def moved(self, state: SyncState, error: HauptbuchError | None) -> None:
        """The task's state is another now; `error` is why it ended."""

    def setback(self, error: HauptbuchError) -> None:
        """What was not committed was dropped for this; the task fences anew after a pause."""

    def held_up(self, error: HauptbuchError) -> None:
        """The task can't go on for this and tries again in a moment; nothing was dropped. Told at each try."""

    def checked(self, header: BlockHeader, cursor: ShardCursor) -> None:
        """A shard's next block holds; after a setback some are told again."""

    def begun(self) -> None:
        """The proposer saw the next round's first block; the attestor chose a proposal to sign."""

    def waits(self, number: int, signers: Collection[Hash32]) -> None:
        """A proposed round has no quorum yet; these signed it. Told again at each look."""

    def declines(self, number: int, why: str) -> None:
        """The attestor signs no proposal of this round yet. Told again at each look."""

    def done(self, number: int) -> None:
        """The proposer published the round's state roots; the attestor's signature is on the log."""
