"""Which rounds have their state roots on the log: what a synchronizer that takes over has to finish."""

from collections.abc import Iterator
from typing import Final

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.errors import PoisonRecord
from pipeline.ledger.checkpoints import Checkpoint, SignedStateRoot, checkpoint_hash
from pipeline.log.port import EventLog
from pipeline.sync.signed_ledger import SignedLedger

_TAIL: Final = 16
_TAIL_BYTES: Final = 8 * 2**20


def state_roots_stand(log: EventLog, ledger: SignedLedger) -> bool:
    """Whether the last round's state roots are on the log, each: a delayed end shows only part of a transaction."""
    return all(_state_root_stands(log, ledger, shard) for shard in ledger.advanced)


def newest_published(log: EventLog, shards: int) -> int:
    """The last round of which there is a state root; -1: none. Rounds are published in order."""
    newest = [next(_published_backwards(log, shard), None) for shard in range(shards)]
    return max((Checkpoint.from_bytes(datum).round for datum in newest if datum is not None), default=-1)


def _state_root_stands(log: EventLog, ledger: SignedLedger, shard: int) -> bool:
    for datum in _published_backwards(log, shard):
        if checkpoint_hash(datum) == ledger.checkpoint_hash:
            return True
        if Checkpoint.from_bytes(datum).round < ledger.round:
            return False
    return False


def _published_backwards(log: EventLog, shard: int) -> Iterator[bytes]:
    """The checkpoints of a shard's state roots, newest first; what is no state root is passed over."""
    source = TopicPartition(Topic.STATE_ROOTS, shard)
    end = log.end_offset(source)
    while end > 0:
        start = max(0, end - _TAIL)
        records = log.read(source, start, _TAIL, _TAIL_BYTES)
        for record in reversed([item for item in records if item.offset < end]):
            try:
                datum = SignedStateRoot.from_record(record.value).checkpoint
                Checkpoint.from_bytes(datum)
            except PoisonRecord:
                continue
            yield datum
        end = start
