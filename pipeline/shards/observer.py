"""Who is told what happens to a shard: metrics and logs. Steps stay free of both, and of clocks."""

from pipeline.errors import HauptbuchError
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.engine import ExecutedBlock
from pipeline.shards.life import TaskState


class ShardObserver:
    """Told by the thread that drives the shard, a few times a block; this one ignores it all.

    An observer may read clocks, and must neither raise nor wait.
    """

    def moved(self, state: TaskState, error: HauptbuchError | None) -> None:
        """The task's state is another now; `error` is why it halted."""

    def setback(self, error: HauptbuchError) -> None:
        """What was not committed was dropped for this; the shard is fenced anew after a pause."""

    def held_up(self, error: HauptbuchError) -> None:
        """The leader can't go on for this and tries again in a moment. Told at each try."""

    def stands(self, cursor: ShardCursor) -> None:
        """Where the store stands, as recovery or leading begins."""

    def catching_up(self, height: int, end: int) -> None:
        """Once a second while recovery lasts: the store is at block `height`, the log ends at `end`."""

    def executing(self) -> None:
        """A block is about to be executed."""

    def executed(self) -> None:
        """It was."""

    def committing(self) -> None:
        """A block is handed to the log."""

    def committed(self) -> None:
        """The log has it; the store is about to be written."""

    def stored(self, block: ExecutedBlock) -> None:
        """The store has it too."""

    def gone(self) -> None:
        """The shard is no longer this process's."""


class CopyObserver:
    """Told by the same thread of a warm copy; this one ignores it all. May neither raise nor wait."""

    def catching_up(self, height: int, end: int) -> None:
        """Once a second while the copy is behind, and so not warm: it is at block `height`, the log ended at `end`."""

    def follows(self, height: int) -> None:
        """The copy has all blocks that there are, up to `height`: told when it first has, and after each step since."""

    def failed(self, error: HauptbuchError) -> None:
        """The copy can't be kept, and is left as it is."""

    def gone(self) -> None:
        """It is no longer kept here: another worker does, or this one leads the shard."""
