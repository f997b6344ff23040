"""Where a shard stands: height, input positions, channel heads and control state.

State, height, positions and channel heads change together or not at all: the cursor is written in the batch that
writes the block's state.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import BlockHash, Hash32, Height, ShardId
from pipeline.errors import Fatal
from pipeline.ledger.chain import Chain
from pipeline.ledger.control_state import ControlState
from pipeline.ledger.packing import CHANNEL_ENTRY, ChannelHead
from pipeline.tree.rfc6962 import merkle_root

INPUT_TOPICS = (Topic.CONTROL, Topic.RELAY, Topic.TRANSACTIONS)


@dataclass(frozen=True, slots=True)
class ShardCursor:
    """A shard after block `height`, -1 before block 0; `positions` are next offsets in the order of `INPUT_TOPICS`."""

    shard: ShardId
    height: Height
    block_hash: BlockHash
    timestamp_ms: int
    positions: tuple[int, int, int]
    channels_in: Mapping[int, ChannelHead]
    channels_out: Mapping[int, ChannelHead]
    control: ControlState

    @classmethod
    def start(cls, chain: Chain, shard: int) -> "ShardCursor":
        """Before block 0: the predecessor's hash is the chain id."""
        genesis = chain.genesis
        start = BlockHash(Hash32(chain.chain_id))
        control = ControlState.start(chain)
        return cls(ShardId(shard), Height(-1), start, genesis.created_ms, (0, 0, 0), {}, {}, control)

    def source(self, topic: Topic) -> TopicPartition:
        """Where this shard reads an input topic."""
        return TopicPartition(topic, 0 if topic is Topic.CONTROL else self.shard)

    def cursors_root(self) -> Hash32:
        """RFC 6962 over positions, then channels, ascending, so that a snapshot can be checked.

        Leaves: 0 ‖ topic 1 ‖ partition 2 ‖ next 8, and (1 in, 2 out) ‖ peer 2 ‖ sequence 8 ‖ head 32.
        """
        leaves = [
            bytes([0, topic]) + self.source(topic).partition.to_bytes(2, "big") + position.to_bytes(8, "big")
            for topic, position in zip(INPUT_TOPICS, self.positions, strict=True)
        ]
        for direction, heads in ((b"\x01", self.channels_in), (b"\x02", self.channels_out)):
            leaves += [direction + CHANNEL_ENTRY.pack(*heads[peer]) for peer in sorted(heads)]
        return merkle_root(leaves)

    def to_bytes(self) -> bytes:
        """The store's private form."""
        return json.dumps(
            {
                "shard": self.shard,
                "height": self.height,
                "block_hash": self.block_hash.hex(),
                "timestamp_ms": self.timestamp_ms,
                "positions": self.positions,
                "channels_in": _heads_to_json(self.channels_in),
                "channels_out": _heads_to_json(self.channels_out),
                "control": self.control.to_json(),
            }
        ).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> "ShardCursor":
        """Read back. Raises `Fatal` for bytes that no shard wrote."""
        try:
            value: dict[str, Any] = json.loads(raw)
            control, relay, transactions = value["positions"]
            return cls(
                ShardId(value["shard"]),
                Height(value["height"]),
                BlockHash(Hash32(bytes.fromhex(value["block_hash"]))),
                value["timestamp_ms"],
                (control, relay, transactions),
                _heads_from_json(value["channels_in"]),
                _heads_from_json(value["channels_out"]),
                ControlState.from_json(value["control"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Fatal(f"the state store's cursor is damaged ({error}): restore it from a copy or the log") from None


def _heads_to_json(heads: Mapping[int, ChannelHead]) -> list[list[int | str]]:
    return [[head.peer, head.sequence, head.head.hex()] for head in heads.values()]


def _heads_from_json(values: list[list[Any]]) -> dict[int, ChannelHead]:
    return {peer: ChannelHead(peer, sequence, Hash32(bytes.fromhex(head))) for peer, sequence, head in values}
