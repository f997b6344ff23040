"""When a shard may make its block 0.

The task of an idle partition reads control and makes no block: block 0 reaches at least the shard's own CreateShard.
"""

from collections.abc import Sequence
from contextlib import suppress

from pipeline.codec.topics import LogRecord
from pipeline.crypto.verifier import Verifier
from pipeline.errors import PoisonRecord
from pipeline.ledger.chain import Chain
from pipeline.ledger.control_state import ControlState, admit
from pipeline.ledger.cursor import ShardCursor


class Birth:
    """Watches control for one shard; each record is judged once."""

    def __init__(self, chain: Chain, cursor: ShardCursor, verifier: Verifier) -> None:
        """Nothing is read yet."""
        self._chain = chain
        self._verifier = verifier
        self._shard = cursor.shard
        self._state = ControlState.start(chain)
        self._judged = 1  # genesis stands at offset 0
        self._needed = int(cursor.height < 0)

    @property
    def is_waiting(self) -> bool:
        """Whether no record read so far creates the shard: control must be read on, however much there is."""
        return bool(self._needed) and self._shard >= self._state.active_shards

    def control_records(self, waiting: Sequence[LogRecord]) -> int | None:
        """How many of the waiting control records the next block must take; None where it can't be made yet.

        `waiting` begins where block 0 does and only grows until then. Raises `TaskDiverged` for a protocol that this
        version does not know.
        """
        if not self._needed:
            return 0
        while self._shard >= self._state.active_shards and self._judged < len(waiting):
            with suppress(PoisonRecord):  # a dead letter, once there is a block
                self._state = admit(self._chain, self._state, waiting[self._judged], self._verifier).state
            self._judged += 1
            self._needed = self._judged
        if self._shard >= self._state.active_shards or len(waiting) < self._needed:
            return None
        return self._needed

    def done(self) -> None:
        """Block 0 is made."""
        self._needed = 0
