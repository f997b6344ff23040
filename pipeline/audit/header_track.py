"""The headers of one shard for the checks that span shards: rounds, and what was sent to whom."""

from collections import deque

from pipeline.audit.block_scan import BlockScan
from pipeline.audit.findings import ignore
from pipeline.audit.relay_check import SentBundles
from pipeline.codec.types import BlockHash, ShardId
from pipeline.errors import TaskDiverged
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.log.port import EventLog
from pipeline.shards.block_reader import CommittedBlock
from pipeline.sync.control_feed import ControlFeed
from pipeline.sync.cut import CutBlock
from pipeline.sync.headers import CheckedHead, HeaderChecker
from pipeline.sync.shard_track import CheckedBlock


class HeaderTrack:
    """Reads headers on demand. What is wrong with them the replay of the shard has reported."""

    def __init__(
        self, log: EventLog, chain: Chain, shard: int, control: ControlFeed, replayed: int, *, complete: bool
    ) -> None:
        """`replayed`: the last block that was executed again. `complete`: it was the last one on the log then.

        Where it was not, because the next one is false, bundles of later blocks count for nothing.
        """
        self._scan = BlockScan(log, chain, shard, ignore)
        self._checker = HeaderChecker(chain, ShardId(shard))
        self._control = control
        self.replayed = replayed
        self._complete = complete
        self._head: CheckedHead | None = CheckedHead.start(chain, shard)
        self._ready: deque[CheckedBlock] = deque()
        self.sent: dict[int, SentBundles] = {}
        self.read_height = -1

    @property
    def holds(self) -> bool:
        """Whether every header read so far does."""
        return self._head is not None

    def hash_at(self, height: int) -> BlockHash | None:
        """The block on the log, of those read so far."""
        return self._scan.hashes.get(height)

    def up_to(self, height: int) -> list[CheckedBlock] | None:
        """The blocks behind the last round through `height`; None where they are not there or do not hold."""
        while self.read_height < height and self._read():
            pass
        if not self._ready or not self._ready[0].header.height <= height <= self._ready[-1].header.height:
            return None
        return [block for block in self._ready if block.header.height <= height]

    def sign_off(self, height: int) -> None:
        """A round has passed that signs the blocks through `height`."""
        while self._ready and self._ready[0].header.height <= height:
            self._ready.popleft()

    def finish(self) -> None:
        """Read to the end; no more blocks are taken."""
        self._head = None
        self._ready.clear()
        while self._read():
            pass

    def _read(self) -> bool:
        scanned = self._scan.next()
        if scanned is None:
            return False
        block = scanned.block
        self.read_height = block.header.height
        self._gather(block.header)
        if self._head is not None:
            self._head = self._check(self._head, block) if scanned.intact else None
        return True

    def _gather(self, header: BlockHeader) -> None:
        if header.height > self.replayed and not self._complete:
            return
        for item in header.channels_out:
            self.sent.setdefault(item.peer, SentBundles()).add(item.head, header.height)

    def _check(self, head: CheckedHead, block: CommittedBlock) -> CheckedHead | None:
        header = block.header
        control = self._control.after(header.inputs[0].next) if header.inputs else None
        if control is None:
            return None
        try:
            after = self._checker.check(head, header, block.block_hash, control)
        except (TaskDiverged, AssertionError):
            return None
        last_sent = {item.peer: item.sequence for item in header.channels_out}
        cut = CutBlock(tuple((item.peer, item.sequence) for item in header.channels_in), tuple(last_sent.items()))
        self._ready.append(CheckedBlock(block.offset + 1, header, block.block_hash, after.cursor, cut))
        return after
