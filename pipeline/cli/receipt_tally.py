"""Counting what became of many transactions, without keeping them."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.errors import InvalidTransactionResult, PoisonRecord
from pipeline.ledger.codes import Code
from pipeline.ledger.receipts import BundleReceipt, ReceiptChunk, TransactionReceipt, decode_receipt
from pipeline.log.port import EventLog

_PAGE: Final = 256
_PAGE_BYTES: Final = 32 << 20
_KEPT: Final = 20


@dataclass(slots=True)
class _Position:
    offset: int
    height: int
    index: int = 0


@dataclass(slots=True)
class ReceiptTally:
    """Receipts of all shards from when it was made on: numbers by code, and the first that are not OK.

    `refused` counts entries that their receiver's shard refused, each of which was refunded.
    """

    log: EventLog
    positions: list[_Position]
    codes: Counter[Code] = field(default_factory=Counter)
    refused: int = 0
    failed: list[TransactionReceipt] = field(default_factory=list)

    @classmethod
    def from_now(cls, log: EventLog, heights: list[int]) -> "ReceiptTally":
        """`heights[shard]`: the last block that is not to be counted."""
        ends = [log.end_offset(TopicPartition(Topic.RECEIPTS, shard)) for shard in range(len(heights))]
        return cls(log, [_Position(end, height + 1) for end, height in zip(ends, heights, strict=True)])

    @property
    def transactions(self) -> int:
        """How many transaction records have a receipt."""
        return self.codes.total()

    @property
    def all_ok(self) -> bool:
        """Whether all of them did all that they were to do."""
        return not self.refused and not self.failed

    def poll(self) -> None:
        """Read what is new. Raises `InvalidTransactionResult` for a record that is no receipts."""
        for shard, position in enumerate(self.positions):
            source = TopicPartition(Topic.RECEIPTS, shard)
            while records := self.log.read(source, position.offset, _PAGE, _PAGE_BYTES):
                for record in records:
                    try:
                        self._take(position, ReceiptChunk.from_record(record.value))
                    except PoisonRecord as error:
                        raise InvalidTransactionResult(
                            f"receipts partition {shard} offset {record.offset}: {error}; audit the log"
                        ) from None
                    position.offset = record.offset + 1

    def _take(self, position: _Position, chunk: ReceiptChunk) -> None:
        """Count a chunk, unless a recovered leader published it before."""
        if (chunk.height, chunk.first_index) < (position.height, position.index):
            return
        for datum in chunk.receipts:
            match decode_receipt(datum):
                case TransactionReceipt() as receipt:
                    self.codes[receipt.code] += 1
                    if receipt.code is not Code.OK and len(self.failed) < _KEPT:
                        self.failed.append(receipt)
                case BundleReceipt() as receipt:
                    self.refused += len(receipt.failures)
                case _:
                    pass
        position.height, position.index = chunk.height, chunk.first_index + len(chunk.receipts)
