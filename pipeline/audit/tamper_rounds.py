"""Lies about rounds: signatures, checkpoints, state roots, and the end of history."""

from dataclasses import replace
from hashlib import sha256
from typing import Final

from pipeline.audit.log_editor import LogEditor
from pipeline.audit.output_check import OUTPUTS
from pipeline.audit.tamper_targets import Damage, damage_at, last_proposal, nothing_to, proposals, relayed, state_roots
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Hash32
from pipeline.crypto import contexts
from pipeline.crypto.addresses import key_id
from pipeline.crypto.suites import SuiteSet
from pipeline.errors import PoisonRecord
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.checkpoints import (
    Checkpoint,
    CheckpointSignature,
    StateRoot,
)
from pipeline.ledger.control import KeySignature

_FORGERS_SEED: Final = sha256(b"another key than any attestor's").digest()


def resign_state_root(editor: LogEditor) -> Damage:
    """A state root with the signature of a key that is no attestor's."""
    source, record, root = state_roots(editor)[-1]
    signatures = tuple([_resigned(item.suite, root.checkpoint, editor.suites) for item in root.signatures])
    editor.put(source, record.offset, replace(root, signatures=signatures).to_record())
    return damage_at("a root signed again by another key", source, record, StateRoot.from_bytes(root.state_root).height)


def alter_state_root(editor: LogEditor) -> Damage:
    """Another state root under the true signatures."""
    source, record, root = state_roots(editor)[-1]
    head = StateRoot.from_bytes(root.state_root)
    other = replace(head, state_root=Hash32(sha256(head.state_root).digest()))
    editor.put(source, record.offset, replace(root, state_root=other.to_bytes()).to_record())
    return damage_at("another root under the same signatures", source, record, head.height)


def remove_state_root(editor: LogEditor) -> Damage:
    """A state root that was published."""
    source, record, root = state_roots(editor)[0]
    editor.remove(source, record.offset)
    return damage_at("a state root removed", source, record, StateRoot.from_bytes(root.state_root).height)


def resign_checkpoint(editor: LogEditor) -> Damage:
    """A checkpoint's signature replaced by that of a key that is no attestor's."""
    proposal, _ = last_proposal(editor)
    source = TopicPartition(Topic.CHECKPOINTS, 0)
    for record in reversed(editor.records(source)):
        try:
            signature = CheckpointSignature.from_record(record.value)
        except PoisonRecord:
            continue
        forged = _resigned(signature.suite, proposal.checkpoint, editor.suites)
        other = replace(signature, signer=forged.signer, signature=forged.signature)
        editor.put(source, record.offset, other.to_record())
        return damage_at("a checkpoint signed again by another key", source, record, None)
    raise nothing_to("signature of a checkpoint")


def second_checkpoint(editor: LogEditor) -> Damage:
    """A second checkpoint of the last round."""
    proposal, checkpoint = last_proposal(editor)
    source = TopicPartition(Topic.CHECKPOINTS, 0)
    other = replace(checkpoint, timestamp_ms=checkpoint.timestamp_ms + 1)
    offset = editor.end(source)
    editor.put(source, offset, replace(proposal, checkpoint=other.to_bytes()).to_record())
    return Damage("a second checkpoint of one round", Topic.CHECKPOINTS, None, None, offset)


def cut_history(editor: LogEditor) -> Damage:
    """The last round, and all that it signed, cut from the end of every topic alike."""
    source = TopicPartition(Topic.CHECKPOINTS, 0)
    found = proposals(editor)
    if len(found) < 2:
        raise nothing_to("second round")
    record, last = found[-1]
    kept: dict[int, int] = {}
    for _, proposal in found[:-1]:
        kept.update(dict(proposal.advanced))
    editor.cut(source, record.offset)
    for partition in editor.partitions(Topic.BLOCKS):
        _cut_shard(editor, partition.partition, kept.get(partition.partition, -1))
    for target, item, bundle in relayed(editor):
        if bundle.source_height > kept.get(bundle.source, -1):
            editor.remove(target, item.offset)
    number = Checkpoint.from_bytes(last.checkpoint).round
    for target, item, root in state_roots(editor):
        if Checkpoint.from_bytes(root.checkpoint).round == number:
            editor.cut(target, item.offset)
    return damage_at(f"round {number} cut from the end of all topics", source, record, None)


def _cut_shard(editor: LogEditor, shard: int, kept: int) -> None:
    """Blocks above `kept`, their outputs, and the transactions that they consumed."""
    for record in editor.records(TopicPartition(Topic.BLOCKS, shard)):
        header, _ = BlockHeader.from_record(record.value)
        if header.height > kept:
            editor.cut(TopicPartition(Topic.BLOCKS, shard), record.offset)
            editor.cut(TopicPartition(Topic.TRANSACTIONS, shard), header.input(Topic.TRANSACTIONS).first)
            break
    for topic, output in OUTPUTS.items():
        source = TopicPartition(topic, shard)
        for record in editor.records(source):
            if output.from_record(record.value).height > kept:
                editor.cut(source, record.offset)
                break


def _resigned(suite_id: int, checkpoint: bytes, suites: SuiteSet) -> KeySignature:
    key = suites.require(suite_id).generate(_FORGERS_SEED)
    return KeySignature(key_id(suite_id, key.public_key), suite_id, key.sign(checkpoint, contexts.CHECKPOINT))
