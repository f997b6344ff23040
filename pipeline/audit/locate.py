"""Which input record was altered: the receipts of a block tell, and its header vouches for them.

A header holds one root over each range of inputs, so alone it says only that something in the range is different. The
receipts name offset and transaction id of every record that was executed, and `receipts_root` commits to them.
"""

from collections.abc import Mapping, Sequence

from pipeline.audit.findings import Finding, FindingKind, ignore
from pipeline.audit.streams import RecordStream
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.errors import PoisonRecord
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.engine import BlockInputs
from pipeline.ledger.receipts import BundleReceipt, Receipt, ReceiptChunk, TransactionReceipt, decode_receipt
from pipeline.ledger.relay import RelayBundle
from pipeline.ledger.transactions import SignedTransaction, TransactionBody
from pipeline.log.port import EventLog
from pipeline.tree.rfc6962 import merkle_root


def altered_inputs(log: EventLog, header: BlockHeader, inputs: BlockInputs, receipts_from: int) -> list[Finding]:
    """The transactions and bundles that are not those which the block executed; [] where its receipts do not tell.

    `receipts_from`: an offset of the shard's receipts at or before those of this block.
    """
    receipts = committed_receipts(log, header, receipts_from)
    if receipts is None:
        return []
    transactions = {item.offset: item for item in receipts if isinstance(item, TransactionReceipt)}
    bundles = {item.offset: item for item in receipts if isinstance(item, BundleReceipt)}
    return _compare(
        header, Topic.RELAY, inputs.relay.records, {at: _bundle_name(item) for at, item in bundles.items()}
    ) + (
        _compare(
            header,
            Topic.TRANSACTIONS,
            inputs.transactions.records,
            {at: f"transaction {item.tx_id.hex()}" for at, item in transactions.items()},
        )
    )


def committed_receipts(log: EventLog, header: BlockHeader, start: int) -> list[Receipt] | None:
    """The block's receipts as the log has them, if they are those that its header commits to."""
    stream = RecordStream(log, TopicPartition(Topic.RECEIPTS, header.shard), ignore, start=start)
    chunks: dict[int, tuple[bytes, ...]] = {}
    while (record := stream.pop()) is not None:
        try:
            chunk = ReceiptChunk.from_record(record.value)
        except PoisonRecord:
            continue
        if chunk.height > header.height:
            break
        if chunk.height == header.height:
            chunks.setdefault(chunk.first_index, chunk.receipts)
    datums = [datum for index in sorted(chunks) for datum in chunks[index]]
    if merkle_root(datums) != header.receipts_root:
        return None
    return [decode_receipt(datum) for datum in datums]


def _compare(
    header: BlockHeader, topic: Topic, records: Sequence[LogRecord], executed: Mapping[int, str]
) -> list[Finding]:
    found: list[Finding] = []

    def say(kind: FindingKind, offset: int, message: str) -> None:
        found.append(Finding(kind, message, header.shard, header.height, topic, offset))

    name = topic.topic_name
    for record in records:
        now, then = _name(topic, record), executed.get(record.offset)
        if now == then:
            continue
        if then is None:
            say(FindingKind.INPUT_INSERTED, record.offset, f"{now} on {name} is not among what the block executed")
        else:
            stands = now or "a record that can't be read"
            say(FindingKind.INPUT_ALTERED, record.offset, f"the block executed {then} here, now {name} holds {stands}")
    offsets = {record.offset for record in records}
    for offset in sorted(executed.keys() - offsets):
        say(
            FindingKind.INPUT_MISSING,
            offset,
            f"the block executed {executed[offset]} here, which {name} no longer holds",
        )
    return found


def _name(topic: Topic, record: LogRecord) -> str | None:
    """How a receipt would call this record; None where it has none, being a dead letter."""
    try:
        if topic is Topic.RELAY:
            bundle = RelayBundle.from_record(record.value)
            return f"bundle {bundle.sequence} of shard {bundle.source}"
        signed = SignedTransaction.from_record(record.value)
        TransactionBody.from_bytes(signed.body)
    except PoisonRecord:
        return None
    return f"transaction {signed.tx_id.hex()}"


def _bundle_name(receipt: BundleReceipt) -> str:
    return f"bundle {receipt.sequence} of shard {receipt.source}"
