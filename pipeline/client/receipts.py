"""Reading receipts: what became of each record, and whether the effects that it sent have settled.

A receipt belongs to a record (partition, offset). Of all records with one tx_id at most one consumed the nonce; its
receipt is *the* result, the others are attempts. Receipts are kept as bytes and decoded when asked for: a watcher of
10^5 receipts spends about 2 µs on each.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ChainId, TxId
from pipeline.errors import InvalidTransactionResult, PoisonRecord
from pipeline.ledger.receipts import (
    BundleReceipt,
    ChannelUse,
    ReceiptChunk,
    TransactionReceipt,
    decode_receipt,
)
from pipeline.log.port import EventLog

_TRANSACTION: Final = 0
"""First byte of a receipt's datum: the branch of its union as a zigzag varint."""
_BUNDLE: Final = 2
_PAGE: Final = 512
_PAGE_BYTES: Final = 32 * 2**20

Place = tuple[int, int]
"""Partition and offset of a record of `transactions`."""


@dataclass(slots=True)
class _Partition:
    """How far one shard's receipts are read: the next expected (height, index), and bundles executed by source."""

    next_offset: int = 0
    height: int = -1
    next_index: int = 0
    executed: dict[int, int] = field(default_factory=dict)


class ReceiptWatcher:
    """Follows `receipts` of some shards. Not for several threads."""

    def __init__(
        self, log: EventLog, chain_id: ChainId, partitions: Iterable[int], start: Mapping[int, int] | None = None
    ) -> None:
        """Reads from the start, or partition -> offset as `start` says.

        Whoever publishes only after that needs no earlier receipt: the effects of a new transaction are executed later
        than where every partition ended before it was published (`ends_of`).
        """
        self._log = log
        self._chain_id = chain_id
        self._shards: dict[int, _Partition] = {
            partition: _Partition((start or {}).get(partition, 0)) for partition in partitions
        }
        self._transactions: dict[Place, bytes] = {}
        self._attempts: dict[bytes, list[Place]] = {}
        self._notable: dict[tuple[int, int, int], BundleReceipt] = {}

    def poll(self) -> int:
        """Read what is new; how many receipts that were.

        Raises `InvalidTransactionResult` for a record that is no chunk of these receipts, naming partition and offset.
        """
        return sum(self._poll(partition, shard) for partition, shard in self._shards.items())

    def _poll(self, partition: int, shard: _Partition) -> int:
        count = 0
        while records := self._log.read(
            TopicPartition(Topic.RECEIPTS, partition), shard.next_offset, _PAGE, _PAGE_BYTES
        ):
            for record in records:
                try:
                    chunk = ReceiptChunk.from_record(record.value)
                    count += self._take(partition, chunk, shard)
                except PoisonRecord as error:
                    raise InvalidTransactionResult(
                        f"receipts partition {partition} offset {record.offset}: {error}; audit the shard"
                    ) from None
                shard.next_offset = record.offset + 1
        return count

    def _take(self, partition: int, chunk: ReceiptChunk, shard: _Partition) -> int:
        """Keep a chunk's receipts, unless a recovered leader published them before."""
        if chunk.chain_id != self._chain_id or chunk.shard != partition:
            raise PoisonRecord("a chunk of another chain or shard")
        if chunk.height < shard.height or (chunk.height == shard.height and chunk.first_index < shard.next_index):
            return 0
        transactions, attempts = self._transactions, self._attempts
        for datum in chunk.receipts:
            kind = datum[0] if datum else -1
            if kind == _TRANSACTION:
                place, tx_id = _place_and_id(datum)
                if place[0] != partition:
                    raise PoisonRecord("a receipt of another shard's record")
                transactions[place] = datum
                if tx_id in attempts:
                    attempts[tx_id].append(place)
                else:
                    attempts[tx_id] = [place]
            elif kind == _BUNDLE:
                self._take_bundle(partition, datum, shard)
        shard.height, shard.next_index = chunk.height, chunk.first_index + len(chunk.receipts)
        return len(chunk.receipts)

    def _take_bundle(self, destination: int, datum: bytes, shard: _Partition) -> None:
        receipt = decode_receipt(datum)
        assert isinstance(receipt, BundleReceipt), "the union's branch says so"
        shard.executed[receipt.source] = receipt.sequence  # bundles of a channel are executed in order
        if receipt.failures or receipt.channels:
            self._notable[receipt.source, destination, receipt.sequence] = receipt

    def forget(self) -> None:
        """Drop every receipt kept so far, which else stay for good. What is published from now on needs none of them.

        Which bundles are executed stays known.
        """
        self._transactions.clear()
        self._attempts.clear()
        self._notable.clear()

    def receipt(self, partition: int, offset: int) -> TransactionReceipt | None:
        """The receipt of one record of `transactions`; None while there is none. Raises `InvalidTransactionResult`."""
        datum = self._transactions.get((partition, offset))
        return None if datum is None else _decode(datum)

    def has_receipt(self, partition: int, offset: int) -> bool:
        """Whether the record has its receipt; cheaper than to decode it."""
        return (partition, offset) in self._transactions

    def attempts(self, tx_id: TxId) -> list[TransactionReceipt]:
        """All receipts of records with this tx_id, in the order read."""
        return [_decode(self._transactions[place]) for place in self._attempts.get(tx_id, [])]

    def result(self, tx_id: TxId) -> TransactionReceipt | None:
        """The one receipt that consumed the nonce, if there is one yet."""
        return next((receipt for receipt in self.attempts(tx_id) if receipt.nonce_consumed), None)

    def transactions(self) -> Iterator[TransactionReceipt]:
        """All transaction receipts, decoded one by one."""
        return (_decode(datum) for datum in self._transactions.values())

    def bundle(self, source: int, destination: int, sequence: int) -> BundleReceipt | None:
        """The receipt of a bundle that had failures or caused refunds; None for any other."""
        return self._notable.get((source, destination, sequence))

    def is_executed(self, source: int, use: ChannelUse) -> bool:
        """Whether the destination has executed this bundle of `source`."""
        shard = self._shards.get(use.destination)
        return shard is not None and shard.executed.get(source, 0) >= use.sequence

    def unsettled(self, receipt: TransactionReceipt) -> list[tuple[int, ChannelUse]]:
        """(source, bundle) still to be executed before all effects of the receipt, refunds included, are done.

        A bundle carries effects of many transactions, so this also waits for refunds that another one's effects caused.
        """
        missing: list[tuple[int, ChannelUse]] = []
        waiting = [(receipt.partition, use) for use in receipt.channels]
        while waiting:
            source, use = waiting.pop()
            if not self.is_executed(source, use):
                missing.append((source, use))
                continue
            executed = self.bundle(source, use.destination, use.sequence)
            if executed is not None:
                waiting += [(use.destination, refund) for refund in executed.channels]
        return missing

    def is_settled(self, receipt: TransactionReceipt) -> bool:
        """Whether every effect that the receipt names is executed, with the refunds those caused."""
        return not receipt.channels or not self.unsettled(receipt)


def ends_of(log: EventLog, partitions: Iterable[int]) -> dict[int, int]:
    """Where `receipts` end now: a `start` for one who is yet to publish."""
    return {partition: log.end_offset(TopicPartition(Topic.RECEIPTS, partition)) for partition in partitions}


def _decode(datum: bytes) -> TransactionReceipt:
    try:
        receipt = decode_receipt(datum)
    except PoisonRecord as error:
        raise InvalidTransactionResult(f"{error}; audit the shard that wrote it") from None
    assert isinstance(receipt, TransactionReceipt), "the union's branch says so"
    return receipt


def _place_and_id(datum: bytes) -> tuple[Place, bytes]:
    """Partition, offset and tx_id at the head of a transaction receipt: two zigzag varints, then 32 bytes.

    Decoding the whole receipt costs ten times as much. Raises `PoisonRecord` where it is too short.
    """
    position, values = 1, []
    for _ in range(2):
        value = shift = 0
        while True:
            byte = datum[position] if position < len(datum) else 0xFF
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise PoisonRecord("a receipt whose head is not a number")
        values.append(value >> 1)
    tx_id = datum[position : position + 32]
    if len(tx_id) != 32:
        raise PoisonRecord("a receipt that is cut short")
    return (values[0], values[1]), tx_id
