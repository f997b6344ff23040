"""From checked blocks to the next round: the checkpoint that a cut leads to, and the state roots that carry it.

A pure function of the signed ledger and the blocks taken, so that proposer and attestors get the same bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Hash32, Slot
from pipeline.errors import TaskDiverged
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import (
    Assurance,
    Checkpoint,
    CheckpointProposal,
    SignedStateRoot,
    StateRoot,
    checkpoint_hash,
    heads_root,
)
from pipeline.ledger.control import KeySignature
from pipeline.log.port import Append
from pipeline.sync.shard_track import CheckedBlock
from pipeline.sync.signed_ledger import Channel, SignedLedger, SignedShard
from pipeline.tree.rfc6962 import inclusion_paths

Taken = Mapping[int, Sequence[CheckedBlock]]
"""Shard -> its unsigned blocks up to the cut, never empty; ascending by shard."""


class RoundTerms(NamedTuple):
    """What a proposer chooses: its clock (ms), the control record that is in force, how many shards that activates."""

    timestamp_ms: int
    control_sequence: int
    active_shards: int
    assurance: Assurance


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """A round that is not under a quorum yet: its proposal, and the ledger once it is (without signatures)."""

    proposal: CheckpointProposal
    after: SignedLedger
    slots: Mapping[Slot, Hash32]

    @property
    def round(self) -> int:
        """The round's number."""
        return self.after.round


def plan_round(chain: Chain, ledger: SignedLedger, taken: Taken, terms: RoundTerms) -> RoundPlan:
    """The next round. Raises `TaskDiverged` where a block executed a bundle that its source did not send."""
    slots: dict[Slot, Hash32] = {}
    shards = [ledger.shard(chain, shard) for shard in range(terms.active_shards)]
    for shard, blocks in taken.items():
        for block in blocks:
            slots.update({item.slot: item.root for item in block.header.slots})
        shards[shard] = _advance(shards[shard], blocks[-1])
    tree = ledger.tree.update(slots)
    checkpoint = Checkpoint(
        chain_id=chain.chain_id,
        round=ledger.round + 1,
        previous_hash=ledger.checkpoint_hash,
        timestamp_ms=terms.timestamp_ms,
        control_sequence=terms.control_sequence,
        assurance=terms.assurance,
        ledger_root=tree.root,
        heads_root=heads_root([item.head for item in shards]),
    )
    datum = checkpoint.to_bytes()
    after = SignedLedger(
        round=checkpoint.round,
        checkpoint=datum,
        checkpoint_hash=checkpoint_hash(datum),
        timestamp_ms=terms.timestamp_ms,
        control_sequence=terms.control_sequence,
        signatures=(),
        advanced=tuple(taken),
        shards=tuple(shards),
        tree=tree,
        in_flight=_deliver(ledger.in_flight, taken),
    )
    advanced = tuple((shard, shards[shard].head.height) for shard in taken)
    return RoundPlan(CheckpointProposal(datum, advanced), after, slots)


def _advance(before: SignedShard, block: CheckedBlock) -> SignedShard:
    header = block.header
    head = StateRoot(
        header.shard,
        header.height,
        block.block_hash,
        header.state_root,
        header.timestamp_ms,
        before.head.height,
        before.head.block_hash,
    )
    return SignedShard(head, block.cursor, block.next_offset)


def _deliver(in_flight: Mapping[Channel, Mapping[int, Hash32]], taken: Taken) -> dict[Channel, Mapping[int, Hash32]]:
    """Bundles in flight after these blocks; each one executed must be the one that its source sent."""
    result: dict[Channel, Mapping[int, Hash32]] = dict(in_flight)
    changed: dict[Channel, dict[int, Hash32]] = {}

    def channel(source: int, destination: int) -> dict[int, Hash32]:
        key = (source, destination)
        if key not in changed:
            changed[key] = dict(in_flight.get(key, {}))
        return changed[key]

    for shard, blocks in taken.items():
        for block in blocks:
            for item in block.header.channels_out:
                channel(shard, item.peer)[item.sequence] = item.head
    for shard, blocks in taken.items():
        for block in blocks:
            for item in block.header.channels_in:
                sent = channel(item.peer, shard)
                if sent.get(item.sequence) != item.head:
                    raise TaskDiverged(
                        f"shard {shard} height {block.header.height}: executed bundle {item.sequence} of shard "
                        f"{item.peer}, which sent another one under this number; audit both shards"
                    )
                for sequence in [sequence for sequence in sent if sequence <= item.sequence]:
                    del sent[sequence]
    result.update(changed)
    return {key: heads for key, heads in result.items() if heads}


def signed(plan: RoundPlan, signatures: Sequence[KeySignature]) -> SignedLedger:
    """The ledger with the round under its quorum."""
    return replace(plan.after, signatures=tuple(signatures))


def state_root_appends(ledger: SignedLedger) -> Iterator[Append]:
    """The round's `SignedStateRoot` of every shard that it advanced; each can be verified alone."""
    leaves = [head.to_bytes() for head in ledger.heads]
    paths = inclusion_paths(leaves)
    for shard in ledger.advanced:
        signed_root = SignedStateRoot(leaves[shard], len(leaves), paths[shard], ledger.checkpoint, ledger.signatures)
        record = signed_root.to_record()
        yield Append(TopicPartition(Topic.STATE_ROOTS, shard), None, record)
