"""What can be checked about a block header without executing the block again.

Linkage, coverage of inputs, continuity of channels, and that `state_root` and `cursors_root` follow from the previous
block's and what the header says changed. Whether the changes themselves are right only execution tells.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from pipeline.codec.types import BlockHash, Hash32, Slot
from pipeline.errors import TaskDiverged
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.control_state import ControlState
from pipeline.ledger.cursor import INPUT_TOPICS, ShardCursor
from pipeline.ledger.packing import ChannelHead
from pipeline.tree.rfc6962 import EMPTY_ROOT
from pipeline.tree.shard_tree import ShardTree


@dataclass(frozen=True, slots=True)
class CheckedHead:
    """A shard after a checked block: its cursor, and the tree over its slot roots."""

    cursor: ShardCursor
    tree: ShardTree

    @classmethod
    def start(cls, chain: Chain, shard: int) -> "CheckedHead":
        """Before block 0."""
        return cls(ShardCursor.start(chain, shard), ShardTree.of_owned(chain.shard_map.slots_of(shard), {}))


class HeaderChecker:
    """Checks the headers of one shard, in order."""

    def __init__(self, chain: Chain, shard: int) -> None:
        """Knows the slots that the shard owns."""
        self._chain = chain
        self._shard: Final = shard
        self._owned = chain.shard_map.slots_of(shard)

    def check(
        self, before: CheckedHead, header: BlockHeader, block_hash: BlockHash, control: ControlState
    ) -> CheckedHead:
        """The head after this block. `control` is the state after the control records that it consumed.

        Raises `TaskDiverged` naming shard and height.
        """
        cursor = before.cursor
        try:
            _require(header.shard == self._shard, "it is another shard's header")
            _require(header.chain_id == self._chain.chain_id, "it belongs to another chain")
            _require(header.height == cursor.height + 1, f"height {cursor.height + 1} is next")
            _require(header.previous_hash == cursor.block_hash, "it does not name its predecessor's hash")
            _require(header.protocol == cursor.control.protocol, f"protocol {header.protocol} is not in force")
            _require(header.map_epoch == self._chain.shard_map.epoch, f"map epoch {header.map_epoch} is not in force")
            _require(header.timestamp_ms >= cursor.timestamp_ms, "its time is before its predecessor's")
            _require(self._shard < control.active_shards, "it precedes the shard's creation")
            _check_inputs(cursor, header)
            channels_in, channels_out = self._channels(cursor, header)
            tree = before.tree.update(self._slot_roots(header))
        except _Broken as broken:
            raise TaskDiverged(
                f"shard {self._shard} height {header.height}: block header refused, {broken}; audit the shard"
            ) from None
        control_next, relay_next, transactions_next = [item.next for item in header.inputs]
        after = replace(
            cursor,
            height=header.height,
            block_hash=block_hash,
            timestamp_ms=header.timestamp_ms,
            positions=(control_next, relay_next, transactions_next),
            channels_in=channels_in,
            channels_out=channels_out,
            control=control,
        )
        if tree.root != header.state_root or after.cursors_root() != header.cursors_root:
            what = "state_root" if tree.root != header.state_root else "cursors_root"
            raise TaskDiverged(
                f"shard {self._shard} height {header.height}: {what} does not follow from the header; audit the shard"
            )
        return CheckedHead(after, tree)

    def _slot_roots(self, header: BlockHeader) -> dict[Slot, Hash32]:
        slots = [item.slot for item in header.slots]
        _require(all(a < b for a, b in pairwise(slots)), "its slots are not ascending")
        _require(self._owned.issuperset(slots), "it changes a slot that the shard does not own")
        _require(sum(item.gas for item in header.slots) <= header.gas_used, "its slots took more gas than the block")
        return {item.slot: item.root for item in header.slots}

    def _channels(
        self, cursor: ShardCursor, header: BlockHeader
    ) -> tuple[dict[int, ChannelHead], dict[int, ChannelHead]]:
        received, sent = dict(cursor.channels_in), dict(cursor.channels_out)
        executed, last_peer = 0, -1
        for head in header.channels_in:
            before = received[head.peer].sequence if head.peer in received else 0
            _require(last_peer < head.peer != self._shard, "its inbound channels are not ascending by peer")
            _require(head.sequence > before, f"channel {head.peer} -> {self._shard} goes back to {head.sequence}")
            executed += head.sequence - before
            received[head.peer], last_peer = head, head.peer
        _require(executed == header.counts.bundles, "its inbound channels and its count of bundles differ")
        last_peer = -1
        for head in header.channels_out:
            before = sent[head.peer].sequence if head.peer in sent else 0
            _require(last_peer <= head.peer != self._shard, "its outbound channels are not ascending by peer")
            _require(head.sequence == before + 1, f"channel {self._shard} -> {head.peer} jumps to {head.sequence}")
            sent[head.peer], last_peer = head, head.peer
        return received, sent


def _check_inputs(cursor: ShardCursor, header: BlockHeader) -> None:
    _require(
        [item.source for item in header.inputs] == [cursor.source(topic) for topic in INPUT_TOPICS],
        "its input partitions are not control, relay and transactions of its shard",
    )
    for item, position in zip(header.inputs, cursor.positions, strict=True):
        name = item.source.topic.topic_name
        _require(item.first == position, f"it skips or repeats {name} from {position} to {item.first}")
        _require(item.count >= 0 and item.next >= item.first + item.count, f"its range of {name} is too short")
        if not item.count:
            empty = item.next == item.first and item.root == EMPTY_ROOT
            _require(empty, f"it takes offsets of {name} without a record")
    _require(min(header.counts) >= 0 and header.gas_used >= 0, "a count is negative")
    _require(sum(header.counts) == sum(item.count for item in header.inputs), "its counts do not add up to its inputs")


class _Broken(Exception):  # noqa: N818 - becomes a TaskDiverged with shard and height
    """A rule that does not hold; never leaves this module."""


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise _Broken(complaint)
