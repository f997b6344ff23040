"""A worker that lies in a well-formed block: hidden, reordered, invented or doubled inputs; false results and times."""

from dataclasses import replace

import pytest
from lying import LIAR, Lie, address

from pipeline.audit.findings import FindingKind
from pipeline.codec.topics import LogRecord, Topic
from pipeline.codec.types import Hash32
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.engine import BlockInputs, InputBatch
from pipeline.ledger.receipts import ReceiptChunk, TransactionReceipt, decode_receipt
from pipeline.ledger.transactions import SignedTransaction
from pipeline.log.port import Append
from pipeline.tree.shard_tree import ShardTree


def transactions(inputs: BlockInputs, records: tuple[LogRecord, ...]) -> BlockInputs:
    return replace(inputs, transactions=InputBatch(inputs.transactions.next, records))


def test_the_honest_block_is_signed_by_all() -> None:
    lie = Lie()
    lie.publish()
    verdict = lie.verdict()
    assert (verdict.follower, verdict.headers, verdict.execution) == ("", "", "")
    assert verdict.signed_by_headers
    assert verdict.signed_by_execution
    assert verdict.audit.ok, verdict.audit.render()


def expose(lie: Lie, kind: FindingKind) -> None:
    """Followers and re-execution halt naming the place, the audit finds it; only HEADERS may be fooled."""
    verdict = lie.verdict()
    height = lie.cursor.height + 1
    for error in (verdict.follower, verdict.execution):
        assert f"shard {LIAR}" in error
        assert str(height) in error
    assert not verdict.signed_by_execution
    assert any(item.kind is kind and item.shard == LIAR for item in verdict.audit.findings), verdict.audit.render()


def test_a_record_hidden_inside_the_range_of_offsets() -> None:
    lie = Lie()
    inputs = lie.inputs()
    lie.publish(transactions(inputs, inputs.transactions.records[1:]))
    expose(lie, FindingKind.INPUT_INSERTED)


def test_records_executed_in_another_order() -> None:
    lie = Lie()
    inputs = lie.inputs()
    first, second, *rest = inputs.transactions.records
    swapped = (first._replace(value=second.value), second._replace(value=first.value), *rest)
    lie.publish(transactions(inputs, swapped))
    expose(lie, FindingKind.INPUT_ALTERED)


def test_a_record_that_nobody_published() -> None:
    lie = Lie()
    inputs = lie.inputs()
    *rest, last = inputs.transactions.records
    lie.publish(transactions(inputs, (*rest, last._replace(value=rest[0].value))))
    expose(lie, FindingKind.INPUT_ALTERED)


def test_a_balance_out_of_nothing_that_passes_all_header_checks() -> None:
    lie = Lie()

    def alter(header: BlockHeader) -> BlockHeader:
        touched = header.slots[0]
        roots = lie.net.stores[LIAR].shard_tree.slot_roots()
        false = touched._replace(root=Hash32(b"\x01" * 32))
        slots = (false, *header.slots[1:])
        tree = ShardTree(roots).update({item.slot: item.root for item in slots})
        return replace(header, slots=slots, state_root=tree.root)

    lie.publish(alter=alter)
    assert lie.verdict().signed_by_headers, "a header alone does not show it: this is what EXECUTION is for"
    expose(lie, FindingKind.BLOCK_DIVERGED)


@pytest.mark.parametrize("field", ["receipts_root", "gas_used"])
def test_false_results_in_a_header(field: str) -> None:
    lie = Lie()

    def alter(header: BlockHeader) -> BlockHeader:
        false = Hash32(bytes(32)) if field == "receipts_root" else getattr(header, field) + 1
        return replace(header, **{field: false})

    lie.publish(alter=alter)
    expose(lie, FindingKind.BLOCK_DIVERGED)


def test_bundles_that_are_not_sent_hold_back_who_would_rely_on_them() -> None:
    lie = Lie()
    height = lie.cursor.height + 1
    lie.publish(alter=lambda header: replace(header, channels_out=()))
    verdict = lie.verdict()
    assert f"shard {LIAR} height {height}" in verdict.headers, "cursors_root does not follow"
    assert verdict.execution
    assert verdict.follower
    assert {item.kind for item in verdict.audit.findings} & {FindingKind.BLOCK_DIVERGED, FindingKind.BUNDLE_FORGED}


def test_a_clock_of_2099_is_under_no_signature() -> None:
    """It would expire every bounded transaction for ever; signers wait until their own clock is there."""
    lie = Lie()
    lie.publish(now_ms=4_070_908_800_000)
    verdict = lie.verdict()
    assert (verdict.headers, verdict.execution) == ("", "")
    assert not verdict.signed_by_headers
    assert not verdict.signed_by_execution


def test_payments_of_others_need_their_signatures() -> None:
    """A worker can't make up a payment: an inserted record with a broken signature moves nothing."""
    lie = Lie()
    victim = lie.here[1]
    genuine = SignedTransaction.from_record(lie.inputs().transactions.records[1].value)
    target = lie.cursor.source(Topic.TRANSACTIONS)
    forged = genuine._replace(signature=bytes(len(genuine.signature)))
    lie.net.log.append([Append(target, None, forged.to_record())])
    lie.net.run()
    assert lie.net.tasks[LIAR].error is None
    chunk = lie.net.read(Topic.RECEIPTS, LIAR)[-1]
    receipts = [decode_receipt(datum) for datum in ReceiptChunk.from_record(chunk.value).receipts]
    mine = [item for item in receipts if isinstance(item, TransactionReceipt) and item.sender == address(victim)]
    assert [item.nonce_consumed for item in mine] == [True, False]
