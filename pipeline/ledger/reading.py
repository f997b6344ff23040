"""Reading the records of one shard's inputs, each once: what a leader looked ahead at, its engine executes."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from pipeline.codec.topics import LogRecord
from pipeline.codec.types import ShardId
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import DeadLetterReason
from pipeline.ledger.inbound import ReadBundle, read_bundle
from pipeline.ledger.prepared import PreparedTransaction, prepare_transaction

_Read = TypeVar("_Read")


class _Kept(Generic[_Read]):
    """What was read of one input, by offset; only for the very records that were given."""

    __slots__ = ("_chain", "_kept", "_reader", "_shard")

    def __init__(
        self, chain: Chain, shard: ShardId, reader: Callable[[Chain, ShardId, LogRecord], _Read | DeadLetterReason]
    ) -> None:
        self._chain, self._shard, self._reader = chain, shard, reader
        self._kept: dict[int, tuple[LogRecord, _Read | DeadLetterReason]] = {}

    def __call__(self, record: LogRecord) -> _Read | DeadLetterReason:
        kept = self._kept.get(record.offset)
        if kept is not None and kept[0] is record:
            return kept[1]
        read = self._reader(self._chain, self._shard, record)
        self._kept[record.offset] = (record, read)
        return read

    def forget(self, before: int) -> None:
        self._kept = {offset: kept for offset, kept in self._kept.items() if offset >= before}


class InputReader:
    """The records of one shard's `relay` and `transactions`, decoded, or why each becomes a dead letter."""

    __slots__ = ("begun", "bundle", "transaction")

    def __init__(self, chain: Chain, shard: ShardId) -> None:
        """Reads for `shard` of `chain`."""
        self.bundle: Final = _Kept[ReadBundle](chain, shard, read_bundle)
        self.transaction: Final = _Kept[PreparedTransaction](chain, shard, prepare_transaction)
        # Offsets of transactions whose signatures somebody verifies already.
        self.begun: set[int] = set()

    def forget(self, relay: int, transactions: int) -> None:
        """Drop what stands at offsets below these."""
        self.bundle.forget(relay)
        self.transaction.forget(transactions)
        self.begun = {offset for offset in self.begun if offset >= transactions}
