"""What the log's state roots remember of a signer: the blocks that its signatures cover, and the signatures.

A signed checkpoint names its heads by their root alone; which blocks those are, the state roots on the log show. Only a
state root that lies under a checkpoint of this signer counts, so that nobody else can make up what it signed.
"""

from collections.abc import Iterator
from typing import Final

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.errors import PoisonRecord, VerificationFailed
from pipeline.ledger.checkpoints import Checkpoint, SignedStateRoot, StateRoot
from pipeline.ledger.signed_root import check_place
from pipeline.log.port import EventLog

_MOST: Final = 4_096
"""Offsets at the end of a partition that are looked through: about a second of checking signatures."""
_PAGE: Final = 16
_PAGE_BYTES: Final = 8 * 2**20


def newest_state_roots(log: EventLog, shard: int) -> Iterator[tuple[SignedStateRoot, Checkpoint, StateRoot | None]]:
    """The state roots of a shard as they stand on the log, newest first, up to `_MOST`; whoever signed them.

    With the checkpoint of each, and the root where it lies under that checkpoint.
    """
    source = TopicPartition(Topic.STATE_ROOTS, shard)
    end = log.end_offset(source)
    first = max(0, end - _MOST)
    while end > first:
        start = max(first, end - _PAGE)
        for record in reversed(_between(log, source, start, end)):
            try:
                signed = SignedStateRoot.from_record(record.value)
                checkpoint = Checkpoint.from_bytes(signed.checkpoint)
                root = StateRoot.from_bytes(signed.state_root)
            except PoisonRecord:
                continue
            yield signed, checkpoint, root if _is_under(signed, root, checkpoint, shard) else None
        end = start


def _between(log: EventLog, source: TopicPartition, start: int, end: int) -> list[LogRecord]:
    found: list[LogRecord] = []
    while records := [item for item in log.read(source, start, _PAGE, _PAGE_BYTES) if item.offset < end]:
        found += records
        start = records[-1].offset + 1
    return found


def _is_under(signed: SignedStateRoot, root: StateRoot, checkpoint: Checkpoint, shard: int) -> bool:
    try:
        check_place(signed, root, checkpoint)
    except VerificationFailed:
        return False
    return root.shard == shard
