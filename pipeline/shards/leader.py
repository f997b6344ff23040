"""The leader: decides where a block's inputs end, executes it, commits it, then writes the store.

At most one block is committing and one executing. What is not committed lives in overlays of those two blocks and is
dropped with this object whenever an outcome is unknown.
"""

from bisect import bisect_left
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.crypto.verifier import FEW_JOBS, Verifier
from pipeline.errors import PoisonRecord, Retryable, TaskDiverged
from pipeline.ledger.admission import begin_verifying
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.composer import Awaited, compose
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.engine import BlockInputs, ExecutedBlock, InputBatch, execute
from pipeline.ledger.prepared import PreparedTransaction
from pipeline.ledger.reading import InputReader
from pipeline.log.port import Append, EventLog, TransactionalWriter
from pipeline.shards.backlog import Backlog
from pipeline.shards.birth import Birth
from pipeline.shards.consumed import CONSUMED, Consumed
from pipeline.shards.observer import ShardObserver
from pipeline.shards.outputs import block_appends, encode_appends
from pipeline.shards.progress import Idle, Progress, earliest
from pipeline.shards.tail import last_record
from pipeline.state.store import StateStore, StateView

_offset_of = attrgetter("offset")
CURSOR: Final = b"cursor"
OUTPUTS: Final = b"outputs"
_SILENT_MS: Final = 200
"""An input that gave no answer is asked again after so long, or when anything else happens."""
BLOCK_TRANSACTIONS: Final = 1_024
"""A block takes no more, whatever genesis allows: while it executes, the next one's signatures are verified. Whoever
takes all that waits first waits for all its signatures, and verifies none beside execution."""


class ClockSkew(TaskDiverged):
    """This machine's clock is further ahead of the last block than genesis allows."""


class _Committing(NamedTuple):
    """A block and what of it is being committed."""

    block: ExecutedBlock
    appends: list[Append]


@dataclass(slots=True)
class LeaderStats:
    """What a leader has done since it leads. `awaited`: what relay waits for now."""

    blocks: int = 0
    records: int = 0
    awaited: Awaited | None = None


class Leader:
    """Leads one shard from a cursor that equals the log's end. `accept_time`: an operator vouches for the clock.

    `consumed`: the last records of the inputs that the cursor is behind.
    """

    def __init__(
        self,
        chain: Chain,
        cursor: ShardCursor,
        consumed: Consumed,
        log: EventLog,
        store: StateStore,
        writer: TransactionalWriter,
        verifier: Verifier,
        *,
        linger_ms: int,
        accept_time: bool,
        observer: ShardObserver | None = None,
    ) -> None:
        """Nothing is read yet."""
        self._chain = chain
        self._log = log
        self._store = store
        self._writer = writer
        self._verifier = verifier
        self._linger_ms = linger_ms
        self._accept_time = accept_time
        self._observer = observer or ShardObserver()
        self._reader = InputReader(chain, cursor.shard)
        self.backlog = Backlog(log, cursor)
        self._birth = Birth(chain, cursor, verifier)
        self.committed = cursor
        self._consumed = consumed
        self._cursor = cursor
        self._looked_at = 0
        self._view: StateView = store.view()
        self._committing: _Committing | None = None
        self._ready: ExecutedBlock | None = None
        self.stats = LeaderStats()

    def step(self, now_ms: int) -> Progress | Idle:
        """Commit what is done, execute what waits. Raises as the log's writer and the engine do."""
        progressed = self._finish_commit()
        if self._ready is None:
            progressed |= self.backlog.fill(now_ms, all_control=self._birth.is_waiting)
            if self.backlog.silent is not None:
                self._observer.held_up(self.backlog.silent)
            self._look_ahead()
            self._ready = self._execute_next(now_ms)
        if self._ready is not None and self._committing is None:
            self._observer.committing()
            appends = block_appends(self._ready)
            self._writer.begin_commit(appends)
            self._committing, self._ready = _Committing(self._ready, appends), None
            self._finish_commit()
            return Progress()
        return Progress() if progressed else self._idle(now_ms)

    def drain(self) -> bool:
        """Whether a block is still being committed, for one who is about to give the shard up. Raises as `step`."""
        self._finish_commit()
        return self._committing is not None

    def _finish_commit(self) -> bool:
        if self._committing is None or self._writer.poll_commit() is None:
            return False
        self._observer.committed()
        block, outputs = self._committing.block, encode_appends(self._committing.appends)
        consumed = self._consumed.after(block.inputs)
        meta = {CURSOR: block.cursor.to_bytes(), CONSUMED: consumed.to_bytes(), OUTPUTS: outputs}
        self._store.commit(block.prepared, meta)
        self._committing = None
        self.committed, self._consumed = block.cursor, consumed
        self.stats.blocks += 1
        self.stats.records += sum(item.count for item in block.header.inputs)
        self._observer.stored(block)
        return True

    def _execute_next(self, now_ms: int) -> ExecutedBlock | None:
        cursor, backlog = self._cursor, self.backlog
        taken, inputs = (0, 0, 0), None
        waiting = backlog.waiting
        waiting = waiting._replace(transactions=waiting.transactions[:BLOCK_TRANSACTIONS])
        control = self._birth.control_records(waiting.control) if self._is_due(now_ms) else None
        if control is not None:
            composition = compose(self._chain, cursor, waiting, self._reader, control_at_least=control)
            taken, inputs = composition.taken, composition.inputs
            self.stats.awaited = composition.awaited
            if composition.awaited is not None and not waiting.control:
                self._require_written(composition.awaited)
        if not any(taken):
            if cursor.height < 0 or now_ms < cursor.timestamp_ms + self._chain.genesis.heartbeat_ms:
                return None
            inputs = BlockInputs(*[InputBatch(position) for position in cursor.positions])
        assert inputs is not None, "composed or a heartbeat"
        block_time_ms = self._block_time(now_ms)
        self._observer.executing()
        block = execute(self._chain, cursor, self._view, inputs, block_time_ms, self._verifier, self._reader)
        self._observer.executed()
        backlog.take(taken, now_ms)
        self._birth.done()
        self._reader.forget(inputs.relay.next, inputs.transactions.next)
        self._cursor = block.cursor
        self._view = self._store.stacked(block.prepared)
        return block

    def _look_ahead(self) -> None:
        """Have signatures verified while their transactions linger, and while the block before theirs executes."""
        records = self.backlog.waiting.transactions[: 2 * BLOCK_TRANSACTIONS]
        if not records or records[-1].offset < self._looked_at:
            return
        ahead = records[bisect_left(records, self._looked_at, key=_offset_of) :]
        if len(ahead) < FEW_JOBS:
            return  # whoever executes them checks them
        read = [self._reader.transaction(record) for record in ahead]
        decodable = [item for item in read if isinstance(item, PreparedTransaction)]
        begun = begin_verifying(self._chain, self._cursor.shard, self._view, self._verifier, decodable)
        if begun is not None:
            self._looked_at = ahead[-1].offset + 1
            self._reader.begun.update(begun)

    def _require_written(self, awaited: Awaited) -> None:
        """Halt where the control record that a bundle names was not written before the bundle.

        A source commits its bundle after it read that record; so control, settled after the bundle was read, holds it.
        """
        control = self._cursor.source(Topic.CONTROL)
        try:
            self._log.settle(control)
            is_there = bool(self._log.read(control, self.backlog.next_control, 1, 1))
        except Retryable:
            return  # an open transaction may hide it, or nobody answers
        if not is_there:
            raise TaskDiverged(
                f"shard {self._cursor.shard}: relay offset {awaited.offset}: bundle {awaited.sequence} of shard "
                f"{awaited.source} is under control record {awaited.control_sequence}, but control ends at record "
                f"{self._cursor.control.sequence}: restore control if it was cut, else audit shard {awaited.source}; "
                "operators can quarantine a record that it never sent"
            )

    def _is_due(self, now_ms: int) -> bool:
        """Whether the waiting input has lingered, or surely fills a block. Less than that is not worth composing."""
        since, limits = self.backlog.waiting_since_ms, self._chain.genesis.limits
        if since is None:
            return False
        enough = min(limits.block_records, BLOCK_TRANSACTIONS)
        if now_ms >= since + self._linger_ms or self.backlog.record_count >= enough:
            return True
        return self.backlog.size_bytes >= limits.block_bytes

    def _block_time(self, now_ms: int) -> int:
        last_ms, step_ms = self._last_known_ms(), self._chain.genesis.max_clock_step_ms
        if now_ms > last_ms + step_ms and not self._accept_time:
            raise ClockSkew(
                f"shard {self._cursor.shard}: this clock is {(now_ms - last_ms) // 1000} s ahead of the last block, "
                f"more than {step_ms // 1000} s; set the clock, or start once with --accept-time if it is right"
            )
        return max(now_ms, self._cursor.timestamp_ms)

    def _last_known_ms(self) -> int:
        """The last block's time. A shard that was created later has none: then that of shard 0."""
        last_ms = self._cursor.timestamp_ms
        if self._cursor.height < 0 and self._cursor.shard >= self._chain.genesis.shards:
            record = last_record(self._log, TopicPartition(Topic.BLOCKS, 0))
            try:
                return last_ms if record is None else BlockHeader.from_record(record.value)[0].timestamp_ms
            except PoisonRecord as error:
                raise TaskDiverged(f"shard 0 offset {record.offset if record else 0}: {error}; audit the log") from None
        return last_ms

    def _idle(self, now_ms: int) -> Idle:
        """What is due by now and was not done waits for the log, not for the clock."""
        if self._committing is not None:
            return Idle()
        since = self.backlog.waiting_since_ms
        heartbeat = None if self._cursor.height < 0 else self._cursor.timestamp_ms + self._chain.genesis.heartbeat_ms
        again = None if self.backlog.silent is None else now_ms + _SILENT_MS
        times = (heartbeat, again, None if since is None else since + self._linger_ms)
        return earliest(*[time_ms for time_ms in times if time_ms is not None and time_ms > now_ms])
