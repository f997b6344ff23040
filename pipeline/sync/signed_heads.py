"""The blocks that a signer's own signatures cover, as the log remembers them.

A signed checkpoint names its heads by their root alone; which blocks those are, the state roots on the log show. Only a
state root that lies under a checkpoint of this signer counts, so that nobody else can make up what it signed.
"""

from collections.abc import Mapping
from typing import Final

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import MAX_SHARDS, Hash32
from pipeline.errors import PoisonRecord, VerificationFailed
from pipeline.ledger.checkpoints import Checkpoint, SignedStateRoot, StateRoot, checkpoint_hash
from pipeline.log.port import EventLog
from pipeline.tree.rfc6962 import root_from_inclusion

_PAGE: Final = 16
_PAGE_BYTES: Final = 8 * 2**20


def newest_head(log: EventLog, shard: int, own_rounds: Mapping[Hash32, int]) -> StateRoot | None:
    """The newest head of a shard under a checkpoint that this signer signed; None: there is none.

    `own_rounds`: the hash of each such checkpoint -> round. State roots of rounds before all of those are not read.
    """
    if not own_rounds:
        return None
    first = min(own_rounds.values())
    source = TopicPartition(Topic.STATE_ROOTS, shard)
    end = log.end_offset(source)
    while end > 0:
        start = max(0, end - _PAGE)
        for record in reversed(_between(log, source, start, end)):
            try:
                signed = SignedStateRoot.from_record(record.value)
                checkpoint = Checkpoint.from_bytes(signed.checkpoint)
                root = StateRoot.from_bytes(signed.state_root)
            except PoisonRecord:
                continue
            if checkpoint.round < first:
                return None
            if checkpoint_hash(signed.checkpoint) in own_rounds and _is_under(signed, root, checkpoint, shard):
                return root
        end = start
    return None


def _between(log: EventLog, source: TopicPartition, start: int, end: int) -> list[LogRecord]:
    found: list[LogRecord] = []
    while records := [item for item in log.read(source, start, _PAGE, _PAGE_BYTES) if item.offset < end]:
        found += records
        start = records[-1].offset + 1
    return found


def _is_under(signed: SignedStateRoot, root: StateRoot, checkpoint: Checkpoint, shard: int) -> bool:
    if root.shard != shard or root.height < 0 or not shard < signed.heads <= MAX_SHARDS:
        return False
    try:
        return root_from_inclusion(shard, signed.heads, signed.state_root, signed.path) == checkpoint.heads_root
    except VerificationFailed:
        return False
