"""Reading `blocks[p]` to its end whatever stands there.

A shard's own reader stops at the first block that does not fit. An audit says what is wrong and goes on, since the
blocks behind may be signed, and whoever repairs the log wants to know about all of it.
"""

from typing import NamedTuple

from pipeline.audit.findings import Finding, FindingKind, Report, one_line
from pipeline.audit.streams import RecordStream
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import BlockHash, Hash32
from pipeline.errors import PoisonRecord
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.log.port import EventLog
from pipeline.shards.block_reader import CommittedBlock


class ScannedBlock(NamedTuple):
    """`intact`: every block from the first to this one is there once and names its predecessor."""

    block: CommittedBlock
    intact: bool


class BlockScan:
    """Yields each height once, ascending; what does not fit is reported."""

    def __init__(self, log: EventLog, chain: Chain, shard: int, report: Report) -> None:
        """Begins at block 0, to the end as of now."""
        self._chain = chain
        self._shard = shard
        self._report = report
        self._stream = RecordStream(log, TopicPartition(Topic.BLOCKS, shard), self._damaged)
        self._height = -1
        self._hash = BlockHash(Hash32(chain.chain_id))
        self.intact = True
        self.hashes: dict[int, BlockHash] = {}

    def next(self) -> ScannedBlock | None:
        """The next block; None at the end."""
        while (record := self._stream.pop()) is not None:
            block = self._decode(record)
            if block is not None and self._fits(block):
                self._height, self._hash = block.header.height, block.block_hash
                self.hashes[self._height] = self._hash
                return ScannedBlock(block, self.intact)
        return None

    def _damaged(self, finding: Finding) -> None:
        self.intact = False
        self._report(finding)

    def _decode(self, record: LogRecord) -> CommittedBlock | None:
        try:
            header, hashed = BlockHeader.from_record(record.value)
        except PoisonRecord as error:
            self.intact = False
            what = f"block {self._height + 1} or what stands in its place can't be read: {one_line(error)}"
            self._say(FindingKind.BLOCK_UNREADABLE, self._height + 1, record.offset, what)
            return None
        assert record.value is not None, "decoded above"
        return CommittedBlock(record.offset, header, record.value[10:], hashed)

    def _fits(self, block: CommittedBlock) -> bool:
        """Whether to go on from this block; says what is wrong with it."""
        header, offset = block.header, block.offset
        if header.shard != self._shard or header.chain_id != self._chain.chain_id:
            what = "a block of another shard" if header.shard != self._shard else "a block of another chain"
            self._say(FindingKind.BLOCK_UNREADABLE, header.height, offset, what)
            return False
        if header.height <= self._height:
            known = self.hashes.get(header.height)
            if known is not None and known != block.block_hash:
                what = f"a second, different block of this height: {block.block_hash.hex()}, before it {known.hex()}"
                self._say(FindingKind.BLOCK_FORK, header.height, offset, what)
            return False
        if self._follows(header):
            return True
        # An inserted block stands before the one that fits; behind an altered or missing one nothing fits.
        if self._next_fits():
            self._say(FindingKind.BLOCK_FORK, header.height, offset, "a block that does not follow from the one before")
            return False
        self.intact = False
        if header.height > self._height + 1:
            missing = (
                f"{self._height + 1} to {header.height - 1}"
                if header.height > self._height + 2
                else str(self._height + 1)
            )
            self._say(
                FindingKind.BLOCK_MISSING, self._height + 1, offset, f"block {missing} is missing before this one"
            )
        else:
            what = f"block {header.height} names another predecessor than block {self._height} on the log"
            self._say(FindingKind.CHAIN_BROKEN, header.height, offset, what)
        return True

    def _follows(self, header: BlockHeader) -> bool:
        return header.height == self._height + 1 and header.previous_hash == self._hash

    def _next_fits(self) -> bool:
        record = self._stream.peek()
        if record is None:
            return False
        try:
            return self._follows(BlockHeader.from_record(record.value)[0])
        except PoisonRecord:
            return False

    def _say(self, kind: FindingKind, height: int, offset: int, message: str) -> None:
        self._report(Finding(kind, message, self._shard, height, Topic.BLOCKS, offset))
