"""Reading `blocks[p]`: each height once, in order, linked."""

from typing import Final, NamedTuple

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import BlockHash
from pipeline.errors import PoisonRecord, TaskDiverged
from pipeline.ledger.blocks import BlockHeader
from pipeline.log.port import EventLog

_MAX_BYTES: Final = 8 << 20
_REMEDY: Final = "restore the blocks topic, or audit who wrote to it"


class CommittedBlock(NamedTuple):
    """A header on the log."""

    offset: int
    header: BlockHeader
    datum: bytes
    block_hash: BlockHash


class BlockReader:
    """Yields blocks from `next_height` on.

    A recovered leader republishes its last block byte for byte, so a header that was seen is skipped if it is the same
    and is a fork if it is not. Blocks below `next_height` are skipped until the first that is expected.
    """

    def __init__(
        self, log: EventLog, shard: int, next_height: int, previous_hash: bytes, *, start_offset: int = 0
    ) -> None:
        """`previous_hash`: of the block before `next_height` (the chain id for height 0)."""
        self._log = log
        self._source = TopicPartition(Topic.BLOCKS, shard)
        self._next_height = next_height
        self._previous_hash = bytes(previous_hash)
        self.offset = start_offset

    def read(self, limit: int) -> list[CommittedBlock]:
        """The next blocks, up to `limit`; [] at the end of the log.

        Raises `TaskDiverged`, naming shard, height and offset, for a fork, a gap, a broken link, a foreign or
        undecodable record.
        """
        blocks: list[CommittedBlock] = []
        while not blocks:
            records = self._log.read(self._source, self.offset, limit, _MAX_BYTES)
            if not records:
                break
            for offset, _, value in records:
                block = self._next(offset, value)
                self.offset = offset + 1
                if block is not None:
                    blocks.append(block)
        return blocks

    def _next(self, offset: int, value: bytes | None) -> CommittedBlock | None:
        shard = self._source.partition
        try:
            header, hashed = BlockHeader.from_record(value)
        except PoisonRecord as error:
            raise TaskDiverged(
                f"shard {shard} offset {offset}: {error}; blocks are written by workers only, {_REMEDY}"
            ) from None
        where = f"shard {shard} height {header.height} offset {offset}"
        if header.shard != shard:
            raise TaskDiverged(f"{where}: a block of shard {header.shard}; {_REMEDY}")
        if header.height == self._next_height - 1 and hashed != self._previous_hash:
            raise TaskDiverged(f"{where}: a second, different block of this height (fork); {_REMEDY}")
        if header.height < self._next_height:
            return None
        if header.height > self._next_height:
            raise TaskDiverged(f"{where}: block {self._next_height} is missing before it; {_REMEDY}")
        if header.previous_hash != self._previous_hash:
            raise TaskDiverged(f"{where}: does not name its predecessor's hash; {_REMEDY}")
        self._next_height += 1
        self._previous_hash = bytes(hashed)
        assert value is not None, "decoded above"
        return CommittedBlock(offset, header, value[10:], hashed)
