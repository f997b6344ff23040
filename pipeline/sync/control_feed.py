"""What the control topic has made of the chain, offset by offset: who may sign, and which shards are active."""

from bisect import bisect_left
from typing import Final

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.crypto.verifier import Verifier
from pipeline.errors import PoisonRecord, TaskDiverged
from pipeline.ledger.chain import Chain
from pipeline.ledger.control_state import ControlState, admit
from pipeline.log.port import EventLog

_CONTROL: Final = TopicPartition(Topic.CONTROL, 0)
_PAGE: Final = 256
_PAGE_BYTES: Final = 8 * 2**20


class ControlFeed:
    """Reads `control` from its start; governance is rare, so every state is kept."""

    def __init__(self, chain: Chain, log: EventLog, verifier: Verifier) -> None:
        """Nothing read yet."""
        self._chain = chain
        self._log = log
        self._verifier = verifier
        self._next = 0
        self._offsets: list[int] = []
        self._states = [ControlState.start(chain)]

    @property
    def newest(self) -> ControlState:
        """After all records read so far."""
        return self._states[-1]

    def poll(self) -> bool:
        """Read on; whether there was anything.

        Raises `TaskDiverged` for another genesis or a protocol that this version does not know.
        """
        records = self._log.read(_CONTROL, self._next, _PAGE, _PAGE_BYTES)
        for record in records:
            if record.offset == 0:
                if record.value != self._chain.genesis.to_record():
                    raise TaskDiverged("control offset 0 holds another genesis than this node was given; check both")
            elif not self._next:
                raise TaskDiverged("control does not begin with genesis at offset 0: restore the topic")
            else:
                self._admit(record)
            self._next = record.offset + 1
        return bool(records)

    def _admit(self, record: LogRecord) -> None:
        try:
            applied = admit(self._chain, self.newest, record, self._verifier)
        except PoisonRecord:
            return  # a dead letter of shard 0; it changes nothing
        self._offsets.append(record.offset)
        self._states.append(applied.state)

    def after(self, next_offset: int) -> ControlState | None:
        """The state after all records below `next_offset`; None while those are not read yet."""
        if next_offset > self._next:
            return None
        return self._states[bisect_left(self._offsets, next_offset)]

    def at_sequence(self, sequence: int) -> ControlState | None:
        """The state after control record `sequence`; None while it is not read yet."""
        return self._states[sequence] if 0 <= sequence < len(self._states) else None
