"""One transaction on its way, and what to do when it is there."""

from collections.abc import Callable, Sequence

from pipeline.log.port import Append, TransactionalWriter


class Committer:
    """Wraps a writer: at most one commit at a time, each with what follows from its success."""

    def __init__(self, writer: TransactionalWriter) -> None:
        """Owns `writer`."""
        self._writer = writer
        self._then: Callable[[], None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a commit is on its way."""
        return self._then is not None

    def begin(self, appends: Sequence[Append], then: Callable[[], None]) -> None:
        """Hand a transaction over. Raises as `TransactionalWriter.begin_commit`."""
        assert self._then is None, "a commit is on its way"
        self._writer.begin_commit(appends)
        self._then = then

    def poll(self) -> bool:
        """Whether the commit is there now; then its consequence was drawn. Raises as the writer."""
        assert self._then is not None, "no commit is on its way"
        if self._writer.poll_commit() is None:
            return False
        then, self._then = self._then, None
        then()
        return True

    def close(self) -> None:
        """Give the writer up."""
        self._writer.close()
