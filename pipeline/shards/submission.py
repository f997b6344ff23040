"""What can be said about a transaction before it is published, and whether a receipt fits it afterwards.

No rule of its own: form and limits are `prepare_transaction`'s, key, nonce and signature are `stage_two`'s, asked
about the committed state. The engine asks again in its turn, and only its receipt counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.codec.topics import LogRecord
from pipeline.codec.types import ShardId, TxId
from pipeline.crypto.verifier import Verifier
from pipeline.errors import (
    Fatal,
    InvalidTransaction,
    InvalidTransactionResult,
    PoisonRecord,
    SecurityValidationFailed,
    ShardingLimitsExceeded,
    StateManagementFailed,
    TransactionDoesNotBelongToShard,
)
from pipeline.ledger.admission import prefetch, stage_two
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import Code, DeadLetterReason
from pipeline.ledger.leaves import Account, account_key
from pipeline.ledger.overlay import Overlay, StateView
from pipeline.ledger.prepared import PreparedTransaction, prepare_transaction
from pipeline.ledger.receipts import TransactionReceipt
from pipeline.ledger.transactions import SignedTransaction, TransactionBody

_REFUSED: Final = {
    Code.KEY_REQUIRED: "its sender has no recorded key; sign it with the public key attached",
    Code.BAD_KEY: "its key is not the sender's; sign it with the key that the account records",
    Code.DUPLICATE_NONCE: "its nonce was used; look up what became of it, or sign it with the next one",
    Code.BAD_SIGNATURE: "its signature does not hold; sign it again",
}
"""What can't succeed. A gap or an unknown sender may be filled before the transaction's turn."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A well-formed transaction: its framed record, the shard of its sender, and what reading it gave."""

    tx_id: TxId
    shard: ShardId
    record: bytes
    prepared: PreparedTransaction


def check_form(chain: Chain, transaction: SignedTransaction) -> Submission:
    """Chain, form and static limits. Raises `InvalidTransaction`, `ShardingLimitsExceeded`."""
    try:
        record = transaction.to_record()
    except ValueError as error:
        raise InvalidTransaction(f"the transaction can't be encoded: {error}") from None
    if len(record) > (limit := chain.genesis.limits.record_bytes):
        raise ShardingLimitsExceeded(f"the transaction has {len(record)} bytes, over {limit}: split it")
    try:
        # Gas depends on the shard that reads, so the sender must be known first.
        shard = chain.shard_map.owner_of(TransactionBody.from_bytes(transaction.body).sender)
        read = prepare_transaction(chain, shard, LogRecord(0, None, record))
    except PoisonRecord as error:
        raise InvalidTransaction(f"the transaction's body can't be read: {error}; build and sign it again") from None
    if isinstance(read, DeadLetterReason):
        raise InvalidTransaction("the transaction's suite is no number of 32 bits; sign it again")
    body, name = read.body, f"transaction {read.tx_id.hex()[:16]}"
    if body.chain_id != chain.chain_id or body.protocol != chain.genesis.protocol:
        raise InvalidTransaction(f"{name} is of another chain or protocol; build it for {chain.chain_id.hex()[:16]}")
    if not read.within_limits:
        raise ShardingLimitsExceeded(
            f"{name} exceeds a static limit of genesis (entries, amounts, sizes, gas price or gas): change or split it"
        )
    return Submission(read.tx_id, shard, record, read)


def check_shard(submission: Submission, shard: ShardId) -> None:
    """Raises `TransactionDoesNotBelongToShard` unless the sender's slot is this shard's."""
    if submission.shard != shard:
        raise TransactionDoesNotBelongToShard(
            f"transaction {submission.tx_id.hex()[:16]} belongs to shard {submission.shard}, not {shard}; send it there"
        )


def check_security(
    chain: Chain, view: StateView, verifier: Verifier, submissions: Sequence[Submission]
) -> list[SecurityValidationFailed | None]:
    """Key, nonce and signature of one shard's submissions against its committed state; None where nothing is wrong.

    Signatures are verified in parallel, and the shard finds the answers in the same verifier. An error is for what
    can't succeed any more. Raises `StateManagementFailed` for an unreadable store.
    """
    overlay = Overlay(view)
    shard = submissions[0].shard
    try:
        prefetch(chain, shard, overlay, verifier, [item.prepared for item in submissions])
        return [_refusal(chain, overlay, verifier, item) for item in submissions]
    except Fatal as error:
        raise StateManagementFailed(f"the state of shard {shard} can't be read: {error}") from error


def _refusal(
    chain: Chain, overlay: Overlay, verifier: Verifier, submission: Submission
) -> SecurityValidationFailed | None:
    body = submission.prepared.body
    code = stage_two(chain, submission.shard, overlay, verifier, submission.prepared)
    if code not in _REFUSED:
        return None
    raw = overlay.get(account_key(body.sender))
    assert raw is not None, "refused for its key, nonce or signature without an account"
    if code in (Code.KEY_REQUIRED, Code.BAD_KEY) and body.nonce > Account.from_bytes(raw).nonce:
        return None  # transactions under way, with the nonces before this one, may record or rotate the key
    return SecurityValidationFailed(f"transaction {submission.tx_id.hex()[:16]}: {_REFUSED[code]}")


def check_result(submission: Submission, offset: int, receipt: TransactionReceipt) -> None:
    """Whether a receipt can be this transaction's at this offset. Raises `InvalidTransactionResult`."""
    body = submission.prepared.body
    stated = (receipt.partition, receipt.offset, receipt.tx_id, receipt.sender, receipt.nonce)
    if stated != (submission.shard, offset, submission.tx_id, body.sender, body.nonce):
        complaint = "names another record, sender or nonce"
    elif not receipt.nonce_consumed and (receipt.gas_used or receipt.fee or receipt.channels):
        complaint = "charges or sends without the nonce"
    elif receipt.gas_used > submission.prepared.gas or receipt.fee > submission.prepared.gas * body.gas_price:
        complaint = "charges more than the transaction costs"
    else:
        return
    raise InvalidTransactionResult(
        f"the receipt of transaction {submission.tx_id.hex()[:16]} at offset {offset} {complaint}; audit "
        f"shard {submission.shard}"
    )
