"""What the ledger says came of everything: headers and receipts as the log holds them, repeats compared."""

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import BlockHash
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.receipts import Receipt, ReceiptChunk, decode_receipt
from pipeline.log.port import EventLog
from pipeline.shards.block_reader import BlockReader

_PAGE = 4_096
_PAGE_BYTES = 64 << 20


def all_records(log: EventLog, source: TopicPartition) -> list[LogRecord]:
    """Every committed record of a partition."""
    found: list[LogRecord] = []
    position = 0
    while records := log.read(source, position, _PAGE, _PAGE_BYTES):
        found += records
        position = records[-1].offset + 1
    return found


class Outcomes:
    """Headers by shard and height; receipts by shard and block."""

    def __init__(self, chain: Chain, log: EventLog) -> None:
        """Reads the log. Asserts that what stands there twice is the same bytes."""
        self.headers: list[list[BlockHeader]] = []
        self.hashes: list[list[BlockHash]] = []
        self._chunks: dict[tuple[int, int], dict[int, ReceiptChunk]] = {}
        for shard in range(chain.genesis.partitions):
            reader = BlockReader(log, shard, 0, chain.chain_id)
            headers: list[BlockHeader] = []
            hashes: list[BlockHash] = []
            while blocks := reader.read(_PAGE):
                headers += [block.header for block in blocks]
                hashes += [block.block_hash for block in blocks]
            self.headers.append(headers)
            self.hashes.append(hashes)
            for record in all_records(log, TopicPartition(Topic.RECEIPTS, shard)):
                chunk = ReceiptChunk.from_record(record.value)
                of_block = self._chunks.setdefault((shard, chunk.height), {})
                same = of_block.setdefault(chunk.first_index, chunk) == chunk
                assert same, f"shard {shard} block {chunk.height}: two different receipts of the same records"

    @property
    def blocks(self) -> int:
        """Of all shards."""
        return sum(len(headers) for headers in self.headers)

    def receipts(self, shard: int, height: int) -> list[Receipt]:
        """Of one block, in order."""
        of_block = self._chunks.get((shard, height), {})
        return [decode_receipt(datum) for _, chunk in sorted(of_block.items()) for datum in chunk.receipts]
