"""What a lie is told about: the records of a log worth altering."""

from dataclasses import dataclass

from pipeline.audit.log_editor import LogEditor
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.errors import ConfigError, PoisonRecord
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.checkpoints import (
    Checkpoint,
    CheckpointProposal,
    SignedStateRoot,
)
from pipeline.ledger.relay import RelayBundle
from pipeline.ledger.transactions import SignedTransaction, TransactionBody, Transfer


@dataclass(frozen=True, slots=True)
class Damage:
    """What was done, and where: a finding should name this place. `shard` is None for checkpoints."""

    description: str
    topic: Topic
    shard: int | None
    height: int | None
    offset: int


def blocks(editor: LogEditor) -> list[tuple[TopicPartition, LogRecord, BlockHeader]]:
    """The blocks of the shard that has most."""
    partitions = [(source, editor.records(source)) for source in editor.partitions(Topic.BLOCKS)]
    source, records = max(partitions, key=lambda item: len(item[1]), default=(None, []))
    if source is None or not records:
        raise nothing_to("block")
    return [(source, record, BlockHeader.from_record(record.value)[0]) for record in records]


def middle_block(editor: LogEditor) -> tuple[TopicPartition, LogRecord, BlockHeader]:
    """A block from the middle of the longest shard."""
    found = blocks(editor)
    return found[len(found) // 2]


def transactions_of(editor: LogEditor, source: TopicPartition) -> list[tuple[LogRecord, SignedTransaction]]:
    """The decodable transactions of a partition."""
    found = []
    for record in editor.records(source):
        try:
            signed = SignedTransaction.from_record(record.value)
            TransactionBody.from_bytes(signed.body)
            found.append((record, signed))
        except PoisonRecord:
            continue
    return found


def transfers(editor: LogEditor) -> list[tuple[TopicPartition, LogRecord, SignedTransaction]]:
    """Every transaction that moves something."""
    found = []
    for source in editor.partitions(Topic.TRANSACTIONS):
        for record, signed in transactions_of(editor, source):
            operations = TransactionBody.from_bytes(signed.body).operations
            if any(isinstance(operation, Transfer) for operation in operations):
                found.append((source, record, signed))
    if not found:
        raise nothing_to("transfer")
    return found


def two_transactions(editor: LogEditor) -> tuple[TopicPartition, LogRecord, LogRecord]:
    """The first two of a partition."""
    for source in editor.partitions(Topic.TRANSACTIONS):
        records = [record for record, _ in transactions_of(editor, source)]
        if len(records) > 1:
            return source, records[0], records[1]
    raise nothing_to("pair of transactions on one partition")


def relayed(editor: LogEditor) -> list[tuple[TopicPartition, LogRecord, RelayBundle]]:
    """Every bundle on the relay; none where there is one shard."""
    found = []
    for source in editor.partitions(Topic.RELAY):
        for record in editor.records(source):
            try:
                found.append((source, record, RelayBundle.from_record(record.value)))
            except PoisonRecord:
                continue
    return found


def bundles(editor: LogEditor) -> list[tuple[TopicPartition, LogRecord, RelayBundle]]:
    """Every bundle on the relay, at least one."""
    found = relayed(editor)
    if not found:
        raise nothing_to("bundle")
    return found


def state_roots(editor: LogEditor) -> list[tuple[TopicPartition, LogRecord, SignedStateRoot]]:
    """Every signed state root."""
    found = [
        (source, record, SignedStateRoot.from_record(record.value))
        for source in editor.partitions(Topic.STATE_ROOTS)
        for record in editor.records(source)
    ]
    if not found:
        raise nothing_to("state root")
    return found


def proposals(editor: LogEditor) -> list[tuple[LogRecord, CheckpointProposal]]:
    """Every round's proposal."""
    found = []
    for record in editor.records(TopicPartition(Topic.CHECKPOINTS, 0)):
        try:
            found.append((record, CheckpointProposal.from_record(record.value)))
        except PoisonRecord:
            continue
    return found


def last_proposal(editor: LogEditor) -> tuple[CheckpointProposal, Checkpoint]:
    """The newest round."""
    found = proposals(editor)
    if not found:
        raise nothing_to("checkpoint")
    proposal = found[-1][1]
    return proposal, Checkpoint.from_bytes(proposal.checkpoint)


def damage_at(description: str, source: TopicPartition, record: LogRecord, height: int | None) -> Damage:
    """Damage to an existing record."""
    shard = None if source.topic is Topic.CHECKPOINTS else source.partition
    return Damage(description, source.topic, shard, height, record.offset)


def nothing_to(what: str) -> ConfigError:
    """Why a lie can't be told."""
    return ConfigError(f"this log has no {what} to lie about: play more payments first")


def value_of(record: LogRecord) -> bytes:
    """The bytes of a record."""
    return record.value or b""
