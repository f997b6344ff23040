"""What moved into and out of an account, from the transactions on the log and their receipts.

A scan of all transaction records; those that don't hold the address's bytes are passed over undecoded.
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from pipeline.cli.outcome import Outcome, outcome_of
from pipeline.client.receipts import ReceiptWatcher
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import Address, AssetId, TxId
from pipeline.errors import PoisonRecord
from pipeline.ledger.codes import Code
from pipeline.ledger.packing import unpack_transfers
from pipeline.ledger.transactions import Burn, Mint, SignedTransaction, TransactionBody, Transfer
from pipeline.node.reader import LedgerView
from pipeline.shards.block_reader import BlockReader

_PAGE: Final = 1_024
_PAGE_BYTES: Final = 64 << 20
_BLOCKS: Final = 256


class Moment(NamedTuple):
    """When and where a transaction was executed: its block's time, its shard, its record's offset."""

    timestamp_ms: int
    shard: int
    offset: int


class Movement(NamedTuple):
    """One amount (minor units) that came in, or went out if `is_out`; `peer` is None for fees and burns.

    `state`: `settled`, `refunded` (by the receiver's shard), or `on its way` to another shard.
    """

    moment: Moment
    kind: str
    is_out: bool
    peer: Address | None
    asset: AssetId
    amount: int
    reference: bytes
    tx_id: TxId
    state: str


class _Times:
    """Block times of one shard by the offset of a transaction record."""

    def __init__(self, reader: LedgerView, shard: int) -> None:
        self._ends: list[int] = []
        self._times_ms: list[int] = []
        blocks = BlockReader(reader.log, shard, 0, reader.chain.chain_id)
        while page := blocks.read(_BLOCKS):
            for block in page:
                self._ends.append(block.header.input(Topic.TRANSACTIONS).next)
                self._times_ms.append(block.header.timestamp_ms)

    def of(self, offset: int) -> int:
        """The time of the block that consumed the record."""
        return self._times_ms[bisect_right(self._ends, offset)]


def movements(reader: LedgerView, watcher: ReceiptWatcher, address: Address) -> list[Movement]:
    """All movements of an account that the watcher has receipts for, by block time, shard and offset.

    Fees that operators collect are no transactions, and so not among them.
    """
    found: list[Movement] = []
    for shard in range(len(reader.stores)):
        times: _Times | None = None
        for record in _records_with(reader, shard, address):
            receipt = watcher.receipt(shard, record.offset)
            if receipt is None or not receipt.nonce_consumed:
                continue
            times = times or _Times(reader, shard)
            moment = Moment(times.of(record.offset), shard, record.offset)
            found += _of_record(reader, record, outcome_of(reader.log, watcher, receipt), address, moment)
    return sorted(found, key=lambda movement: movement.moment)


def _records_with(reader: LedgerView, shard: int, address: Address) -> Iterator[LogRecord]:
    source, position, needle = TopicPartition(Topic.TRANSACTIONS, shard), 0, bytes(address)
    while records := reader.log.read(source, position, _PAGE, _PAGE_BYTES):
        yield from (record for record in records if record.value is not None and needle in record.value)
        position = records[-1].offset + 1


def _of_record(
    reader: LedgerView, record: LogRecord, outcome: Outcome, address: Address, moment: Moment
) -> Iterator[Movement]:
    try:
        body = TransactionBody.from_bytes(SignedTransaction.from_record(record.value).body)
    except PoisonRecord:
        return  # bytes that happen to hold the address
    receipt = outcome.receipt
    tx_id = receipt.tx_id
    if receipt.fee and body.sender == address:
        fee_asset = reader.chain.genesis.fee_asset
        yield Movement(moment, "fee", True, None, fee_asset, receipt.fee, b"", tx_id, "settled")
    if receipt.code not in (Code.OK, Code.PARTIAL):
        return
    failed = {failure.entry for failure in receipt.failures}
    refused = {failure.entry for failure in outcome.refused}
    owner_of, entry = reader.chain.shard_map.owner_of, -1
    for operation in body.operations:
        match operation:
            case Transfer(asset, entries, reference) | Mint(asset, entries, reference):
                kind = "transfer" if isinstance(operation, Transfer) else "mint"
                for to, amount in unpack_transfers(entries):
                    entry += 1
                    is_out = body.sender == address and kind == "transfer"
                    if entry in failed or not (is_out or to == address) or (entry in refused and not is_out):
                        continue
                    state = "settled" if outcome.is_settled or owner_of(to) == receipt.partition else "on its way"
                    state = "refunded" if entry in refused else state
                    if is_out:
                        yield Movement(moment, kind, True, Address(to), asset, amount, reference, tx_id, state)
                    if to == address:
                        yield Movement(moment, kind, False, body.sender, asset, amount, reference, tx_id, state)
            case Burn(asset, amount):
                entry += 1
                if entry not in failed and body.sender == address:
                    yield Movement(moment, "burn", True, None, asset, amount, b"", tx_id, "settled")
            case _:
                entry += 1
