"""Lies about blocks, transactions, receipts and bundles."""

from dataclasses import replace

from pipeline.audit.log_editor import LogEditor
from pipeline.audit.tamper_targets import (
    Damage,
    blocks,
    bundles,
    damage_at,
    middle_block,
    nothing_to,
    transfers,
    two_transactions,
    value_of,
)
from pipeline.codec.topics import Topic
from pipeline.codec.types import Hash32
from pipeline.ledger.blocks import frame_header
from pipeline.ledger.packing import RELAY_ENTRY, TRANSFER_ENTRY
from pipeline.ledger.receipts import ReceiptChunk, TransactionReceipt, decode_receipt, encode_receipt
from pipeline.ledger.relay import EffectKind, RelayBundle, bundle_head, decode_groups, encode_groups
from pipeline.ledger.transactions import Operation, TransactionBody, Transfer


def flip_block_byte(editor: LogEditor) -> Damage:
    """One bit of a block's state root."""
    source, record, header = middle_block(editor)
    value = value_of(record)
    at = value.index(header.state_root)
    editor.put(source, record.offset, value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])
    return damage_at("a byte of a block flipped", source, record, header.height)


def remove_block(editor: LogEditor) -> Damage:
    """A block from the middle."""
    source, record, header = middle_block(editor)
    editor.remove(source, record.offset)
    return damage_at("a block removed", source, record, header.height)


def second_block(editor: LogEditor) -> Damage:
    """Another block under the height of the last one."""
    source, _, header = blocks(editor)[-1]
    other = replace(header, timestamp_ms=header.timestamp_ms + 1)
    offset = editor.end(source)
    editor.put(source, offset, frame_header(other.to_bytes()))
    return Damage("a second block of one height", Topic.BLOCKS, source.partition, header.height, offset)


def raise_transaction_amount(editor: LogEditor) -> Damage:
    """One unit more in a signed transfer."""
    source, record, signed = transfers(editor)[0]
    body = TransactionBody.from_bytes(signed.body)
    raised = body._replace(operations=tuple(_raised(item) for item in body.operations))
    editor.put(source, record.offset, signed._replace(body=raised.to_bytes()).to_record())
    return damage_at("an amount raised in a transaction", source, record, None)


def hide_transaction(editor: LogEditor) -> Damage:
    """An executed transaction taken from its topic."""
    source, record, _ = transfers(editor)[0]
    editor.remove(source, record.offset)
    return damage_at("a transaction hidden", source, record, None)


def reorder_transactions(editor: LogEditor) -> Damage:
    """Two transactions of one partition in each other's place."""
    source, first, second = two_transactions(editor)
    editor.put(source, first.offset, value_of(second), second.key)
    editor.put(source, second.offset, value_of(first), first.key)
    return damage_at("two transactions exchanged", source, first, None)


def duplicate_transaction(editor: LogEditor) -> Damage:
    """A transaction in the place of the next one."""
    source, first, second = two_transactions(editor)
    editor.put(source, second.offset, value_of(first), first.key)
    return damage_at("a transaction doubled in the place of another", source, second, None)


def alter_receipt(editor: LogEditor) -> Damage:
    """A fee of a receipt raised by one."""
    for source in editor.partitions(Topic.RECEIPTS):
        for record in editor.records(source):
            chunk = ReceiptChunk.from_record(record.value)
            for index, datum in enumerate(chunk.receipts):
                receipt = decode_receipt(datum)
                if isinstance(receipt, TransactionReceipt):
                    other = encode_receipt(receipt._replace(fee=receipt.fee + 1))
                    receipts = (*chunk.receipts[:index], other, *chunk.receipts[index + 1 :])
                    editor.put(source, record.offset, replace(chunk, receipts=receipts).to_record())
                    return damage_at("a receipt altered", source, record, chunk.height)
    raise nothing_to("receipt of a transaction")


def remove_receipts(editor: LogEditor) -> Damage:
    """The receipts of a block."""
    for source in editor.partitions(Topic.RECEIPTS):
        for record in editor.records(source):
            editor.remove(source, record.offset)
            return damage_at("receipts removed", source, record, ReceiptChunk.from_record(record.value).height)
    raise nothing_to("receipts")


def remove_bundle(editor: LogEditor) -> Damage:
    """A bundle on its way, or executed."""
    source, record, bundle = bundles(editor)[0]
    editor.remove(source, record.offset)
    return damage_at("a bundle removed", source, record, bundle.source_height)


def raise_bundle_amount(editor: LogEditor) -> Damage:
    """One unit more in a bundle."""
    source, record, bundle = bundles(editor)[0]
    groups = list(decode_groups(bundle.groups))
    index, to, amount = RELAY_ENTRY.unpack_from(groups[0].entries)
    raised = RELAY_ENTRY.pack(index, to, _plus_one(amount))
    groups[0] = replace(groups[0], entries=raised + groups[0].entries[RELAY_ENTRY.size :])
    editor.put(source, record.offset, replace(bundle, groups=encode_groups(groups)).to_record())
    return damage_at("an amount raised in a bundle", source, record, bundle.source_height)


def forge_bundle(editor: LogEditor) -> Damage:
    """A bundle that no block sent, chained to the last one of its channel."""
    source, _, last = bundles(editor)[-1]
    groups = encode_groups([replace(decode_groups(last.groups)[0], kind=EffectKind.CREDIT)])
    forged = replace(last, sequence=last.sequence + 1, previous_head=_head(last), groups=groups)
    offset = editor.end(source)
    editor.put(source, offset, forged.to_record())
    return Damage("a bundle forged", Topic.RELAY, source.partition, None, offset)


def _raised(operation: Operation) -> Operation:
    if not isinstance(operation, Transfer):
        return operation
    to, amount = TRANSFER_ENTRY.unpack_from(operation.entries)
    rest = operation.entries[TRANSFER_ENTRY.size :]
    return replace(operation, entries=TRANSFER_ENTRY.pack(to, _plus_one(amount)) + rest)


def _plus_one(amount: bytes) -> bytes:
    return (int.from_bytes(amount, "big") + 1).to_bytes(len(amount), "big")


def _head(bundle: RelayBundle) -> Hash32:
    return bundle_head(bundle.to_bytes())
