"""One shard as the synchronizer sees it: blocks read, checked, and waiting to be signed."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import BlockHash
from pipeline.errors import TaskDiverged
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.cursor import ShardCursor
from pipeline.log.port import EventLog
from pipeline.shards.block_reader import BlockReader, CommittedBlock
from pipeline.sync.control_feed import ControlFeed
from pipeline.sync.cut import CutBlock, CutShard
from pipeline.sync.execution import Executor, require_end
from pipeline.sync.headers import CheckedHead, HeaderChecker
from pipeline.sync.settings import SyncConfig

OnChecked = Callable[[BlockHeader, ShardCursor], None]
"""Told of a block that holds, and of the shard after it."""

_READ_AHEAD: Final = 64
_CONTROL: Final = TopicPartition(Topic.CONTROL, 0)


class CheckedBlock(NamedTuple):
    """A block that was checked as the assurance says. `next_offset`: where to read on; `cursor`: the shard after it."""

    next_offset: int
    header: BlockHeader
    block_hash: BlockHash
    cursor: ShardCursor
    cut: CutBlock


class ShardTrack:
    """Reads and checks the blocks of one shard above its signed head."""

    def __init__(
        self,
        chain: Chain,
        log: EventLog,
        control: ControlFeed,
        config: SyncConfig,
        signed: CheckedHead,
        next_offset: int,
        executor: Executor | None,
        checked: OnChecked,
    ) -> None:
        """`signed`: the head to go on from; its block stands below `next_offset`. No executor: headers only."""
        cursor = signed.cursor
        self._log = log
        self._control = control
        self._config = config
        self._checker = HeaderChecker(chain, cursor.shard)
        self._executor = executor
        self._on_checked = checked
        self._reader = BlockReader(log, cursor.shard, cursor.height + 1, cursor.block_hash, start_offset=next_offset)
        self._head = signed
        self._signed = cursor
        self._level = executor is None
        self._unchecked: deque[CommittedBlock] = deque()
        self.blocks: deque[CheckedBlock] = deque()

    @property
    def signed_height(self) -> int:
        """Height of the signed head; -1 before block 0."""
        return self._signed.height

    @property
    def checked_height(self) -> int:
        """Height of the newest checked block."""
        return self._head.cursor.height

    @property
    def is_level(self) -> bool:
        """Whether all blocks up to the signed head were executed, where blocks are executed at all."""
        return self._level

    @property
    def is_executed(self) -> bool:
        """Whether all checked blocks were executed too, where blocks are executed at all."""
        return self._level and (self._executor is None or self._executor.is_vouched)

    def poll(self, now_ms: int, is_end: bool) -> bool:
        """Read and check some blocks; whether there were any. `is_end`: all rounds that are signed were adopted.

        A block whose time is too far ahead, or whose inputs are not there yet, waits. Raises `TaskDiverged`.
        """
        if self._executor is not None and self._executor.is_behind(self._signed):
            return self._executor.catch_up(self._signed)
        self._level = True  # and stays so: nothing is signed off that was not checked
        if not self._unchecked:
            self._read(is_end)
        checked = False
        while self._unchecked and self._check(self._unchecked[0], now_ms):
            self._unchecked.popleft()
            checked = True
        return checked

    def _check(self, block: CommittedBlock, now_ms: int) -> bool:
        header = block.header
        if header.timestamp_ms > now_ms + self._config.max_clock_ahead_ms:
            return False
        control = self._control.after(header.inputs[0].next if header.inputs else 0)
        if control is None:
            require_end(self._log, block, _CONTROL, header.inputs[0].next)
            return False
        head = self._checker.check(self._head, header, block.block_hash, control)
        if self._executor is not None and not self._executor.execute(block):
            return False
        self._head = head
        last_sent = {item.peer: item.sequence for item in header.channels_out}
        cut = CutBlock(tuple((item.peer, item.sequence) for item in header.channels_in), tuple(last_sent.items()))
        self.blocks.append(CheckedBlock(block.offset + 1, header, block.block_hash, head.cursor, cut))
        self._on_checked(header, head.cursor)
        return True

    def _read(self, is_end: bool) -> None:
        """Read on, as far as there is room.

        Raises `TaskDiverged` where the block that the executor's store is at can't be reached: blocks were lost.
        """
        room = self._config.max_unsigned - len(self.blocks)
        if room > 0:
            self._unchecked.extend(self._reader.read(min(room, _READ_AHEAD)))
        executor = self._executor
        if executor is None or executor.is_vouched or self._unchecked:
            return
        where = f"shard {self._signed.shard}: the attesting store is at block {executor.height}, "
        if room > 0:
            # What an open transaction hides may be just that block.
            self._log.settle(TopicPartition(Topic.BLOCKS, self._signed.shard))
            self._unchecked.extend(self._reader.read(min(room, _READ_AHEAD)))
            if not self._unchecked:
                raise TaskDiverged(
                    f"{where}which the log does not hold; the blocks topic was truncated or replaced, restore it"
                )
        elif is_end:
            raise TaskDiverged(
                f"{where}further above the signed block {self._signed.height} than {self._config.max_unsigned} blocks, "
                "the most that go unsigned; the checkpoints topic was truncated or replaced, restore it"
            )

    def cut_shard(self) -> CutShard:
        """What the consistent cut needs to know."""
        sent = {peer: head.sequence for peer, head in self._signed.channels_out.items()}
        return CutShard(sent, [block.cut for block in self.blocks])

    def up_to(self, height: int) -> Sequence[CheckedBlock]:
        """The unsigned blocks through `height`, which is checked."""
        count = height - self._signed.height
        assert 0 <= count <= len(self.blocks), f"height {height} is not between signed and checked"
        return [self.blocks[index] for index in range(count)]

    def sign_off(self, height: int) -> None:
        """The head at `height` is under a quorum now."""
        while self._signed.height < height:
            self._signed = self.blocks.popleft().cursor
