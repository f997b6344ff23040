"""What became of a transaction: its receipt, and what other shards said to its effects."""

from dataclasses import dataclass
from typing import Any

from pipeline.client.receipts import ReceiptWatcher
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.crypto.addresses import format_address
from pipeline.errors import InvalidTransactionResult, PoisonRecord
from pipeline.ledger.codes import Code
from pipeline.ledger.receipts import BundleReceipt, EntryFailure, TransactionReceipt
from pipeline.ledger.relay import RelayBundle, decode_groups
from pipeline.log.port import EventLog


@dataclass(frozen=True, slots=True)
class Outcome:
    """`refused`: entries that another shard refused, each refunded. `is_settled`: no effect is on its way any more."""

    receipt: TransactionReceipt
    refused: tuple[EntryFailure, ...]
    is_settled: bool

    @property
    def is_ok(self) -> bool:
        """Whether everything that was asked for happened."""
        return self.receipt.code is Code.OK and not self.refused and self.is_settled

    def to_object(self) -> dict[str, Any]:
        """The JSON object."""
        receipt = self.receipt
        return {
            "tx_id": receipt.tx_id.hex(),
            "code": receipt.code.name,
            "sender": format_address(receipt.sender),
            "nonce": receipt.nonce,
            "nonce_consumed": receipt.nonce_consumed,
            "shard": receipt.partition,
            "offset": receipt.offset,
            "gas_used": receipt.gas_used,
            "fee": str(receipt.fee),
            "failures": [{"entry": item.entry, "code": item.code.name} for item in receipt.failures],
            "refused": [{"entry": item.entry, "code": item.code.name} for item in self.refused],
            "crossed_shards": bool(receipt.channels),
            "settled": self.is_settled,
        }

    def verdict(self) -> str:
        """In words."""
        if self.receipt.code is not Code.OK and not self.receipt.nonce_consumed:
            return f"rejected: {self.receipt.code.name}; nothing changed"
        if self.receipt.code is Code.PARTIAL:
            return f"partly done: {_listed(self.receipt.failures)} failed"
        if self.receipt.code is not Code.OK:
            return f"failed: {self.receipt.code.name}; nothing was moved, the nonce is used"
        if self.refused:
            return f"refused by the receiver's shard and refunded: {_listed(self.refused)}"
        return "done" if self.is_settled else "on its way to another shard"


def outcome_of(log: EventLog, watcher: ReceiptWatcher, receipt: TransactionReceipt) -> Outcome:
    """The outcome of a receipt, as far as the watcher has read. Raises `InvalidTransactionResult`."""
    refused: list[EntryFailure] = []
    for use in receipt.channels:
        executed = watcher.bundle(receipt.partition, use.destination, use.sequence)
        if executed is not None and executed.failures:
            refused += _refused(log, use.destination, executed, receipt)
    return Outcome(receipt, tuple(sorted(refused)), watcher.is_settled(receipt))


def _refused(
    log: EventLog, destination: int, executed: BundleReceipt, receipt: TransactionReceipt
) -> list[EntryFailure]:
    """A bundle carries effects of many transactions: its groups on the log say which are this one's."""
    records = log.read(TopicPartition(Topic.RELAY, destination), executed.offset, 1, 1)
    try:
        groups = decode_groups(RelayBundle.from_record(records[0].value).groups)
        return [
            EntryFailure(failure.entry, failure.code)
            for failure in executed.failures
            if groups[failure.group].tx_id == receipt.tx_id
        ]
    except (IndexError, PoisonRecord):
        raise InvalidTransactionResult(
            f"relay partition {destination} offset {executed.offset}: not the bundle of its receipt; audit the log"
        ) from None


def _listed(failures: tuple[EntryFailure, ...]) -> str:
    shown = ", ".join(f"entry {item.entry} {item.code.name}" for item in failures[:10])
    return shown if len(failures) <= 10 else f"{shown} and {len(failures) - 10} more"
