"""The signed ledger on disk: a cache of the log, written in one batch a round, rebuilt from the log when absent.

Keys: `round` → JSON; `h` ‖ shard:2 → next offset:8 ‖ length:4 ‖ StateRoot datum ‖ cursor; `s` ‖ slot:2 → root:32;
`c` ‖ source:2 ‖ destination:2 ‖ sequence:8 → head:32. Integers are unsigned big-endian. What was read must
reproduce the roots that were signed, or it is not used.
"""

import json
from collections.abc import Mapping
from struct import Struct
from struct import error as StructError  # noqa: N812 - the module has no class of its own name
from typing import Any, Final, NamedTuple

from pipeline.codec.types import SLOTS, ZERO32, Hash32, Slot
from pipeline.errors import HauptbuchError, TaskDiverged
from pipeline.kv.format import check_format
from pipeline.kv.port import KeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Checkpoint, StateRoot, checkpoint_hash, heads_root
from pipeline.ledger.control import KeySignature
from pipeline.ledger.cursor import ShardCursor
from pipeline.sync.signed_ledger import Channel, SignedLedger, SignedShard
from pipeline.tree.shard_tree import ShardTree

FORMAT_KIND: Final = b"sync"
FORMAT_VERSION: Final = 1
_ROUND: Final = b"round"
_HEAD_KEY: Final = Struct(">cH")
_CHANNEL_KEY: Final = Struct(">cHHQ")
_HEAD: Final = Struct(">QI")
_PAGE: Final = 4096
_DAMAGE: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError, AssertionError, StructError)
"""What reading bytes that no synchronizer wrote can end in."""


class Kept(NamedTuple):
    """A kept ledger, and where to read `checkpoints` on."""

    ledger: SignedLedger
    next_offset: int


def save(
    kv: KeyValue, before: SignedLedger, after: SignedLedger, slots: Mapping[Slot, Hash32], next_offset: int
) -> None:
    """Write one round. Not synced: the log has it."""
    meta = {
        "next_offset": next_offset,
        "checkpoint": after.checkpoint.hex(),
        "signatures": [[item.signer.hex(), item.suite, item.signature.hex()] for item in after.signatures],
        "advanced": list(after.advanced),
        "shards": len(after.shards),
    }
    batch: dict[bytes, bytes | None] = {_ROUND: json.dumps(meta).encode()}
    for shard in {*after.advanced, *range(len(before.shards), len(after.shards))}:
        item = after.shards[shard]
        datum = item.head.to_bytes()
        batch[_HEAD_KEY.pack(b"h", shard)] = _HEAD.pack(item.next_offset, len(datum)) + datum + item.cursor.to_bytes()
    for slot, root in slots.items():
        batch[_HEAD_KEY.pack(b"s", slot)] = root
    _save_channels(batch, before.in_flight, after.in_flight)
    kv.write(batch, sync=False)


def _save_channels(
    batch: dict[bytes, bytes | None],
    before: Mapping[Channel, Mapping[int, Hash32]],
    after: Mapping[Channel, Mapping[int, Hash32]],
) -> None:
    for channel in before.keys() | after.keys():
        old, new = before.get(channel, {}), after.get(channel, {})
        if old is new:
            continue
        for sequence in old.keys() - new.keys():
            batch[_CHANNEL_KEY.pack(b"c", *channel, sequence)] = None
        for sequence in new.keys() - old.keys():
            batch[_CHANNEL_KEY.pack(b"c", *channel, sequence)] = new[sequence]


def check_directory(kv: KeyValue) -> None:
    """Stamp an empty `sync/`; whoever writes to it first asks this. Raises `ConfigError` for another format."""
    check_format(kv, FORMAT_KIND, FORMAT_VERSION)


def load(kv: KeyValue, chain: Chain) -> Kept:
    """The kept ledger; that before round 0 where there is none.

    Raises `TaskDiverged` where the bytes do not reproduce the signed roots, `ConfigError` for another format.
    """
    check_directory(kv)
    raw = kv.get(_ROUND)
    if raw is None:
        return Kept(SignedLedger.start(chain), 0)
    try:
        kept = _read(kv, json.loads(raw))
        complaint = _complaint(kept.ledger, chain)
    except (*_DAMAGE, HauptbuchError) as error:
        complaint = f"it can't be read ({error})"
    if complaint:
        raise TaskDiverged(
            f"the synchronizer's directory is damaged: {complaint}; copy it, then empty it: the log rebuilds it"
        )
    return kept


def _read(kv: KeyValue, meta: dict[str, Any]) -> Kept:
    datum = bytes.fromhex(meta["checkpoint"])
    checkpoint = Checkpoint.from_bytes(datum)
    shards = []
    for shard in range(meta["shards"]):
        raw = kv.get(_HEAD_KEY.pack(b"h", shard))
        if raw is None:
            raise KeyError(f"head of shard {shard}")
        next_offset, length = _HEAD.unpack_from(raw)
        split = _HEAD.size + length
        head = StateRoot.from_bytes(raw[_HEAD.size : split])
        shards.append(SignedShard(head, ShardCursor.from_bytes(raw[split:]), next_offset))
    roots = [ZERO32] * SLOTS
    for key, root in kv.scan(b"s", b"t", SLOTS):
        roots[int.from_bytes(key[1:], "big")] = Hash32(root)
    ledger = SignedLedger(
        round=checkpoint.round,
        checkpoint=datum,
        checkpoint_hash=checkpoint_hash(datum),
        timestamp_ms=checkpoint.timestamp_ms,
        control_sequence=checkpoint.control_sequence,
        signatures=tuple(
            KeySignature(Hash32(bytes.fromhex(signer)), suite, bytes.fromhex(signature))
            for signer, suite, signature in meta["signatures"]
        ),
        advanced=tuple(meta["advanced"]),
        shards=tuple(shards),
        tree=ShardTree(roots),
        in_flight=_read_channels(kv),
    )
    return Kept(ledger, meta["next_offset"])


def _read_channels(kv: KeyValue) -> dict[Channel, dict[int, Hash32]]:
    channels: dict[Channel, dict[int, Hash32]] = {}
    start = b"c"
    while page := kv.scan(start, b"d", _PAGE):
        for key, head in page:
            _, source, destination, sequence = _CHANNEL_KEY.unpack(key)
            channels.setdefault((source, destination), {})[sequence] = Hash32(head)
        start = page[-1][0] + b"\0"
    return channels


def _complaint(ledger: SignedLedger, chain: Chain) -> str | None:
    checkpoint = Checkpoint.from_bytes(ledger.checkpoint)
    if checkpoint.chain_id != chain.chain_id:
        return "it belongs to another chain"
    if heads_root(ledger.heads) != checkpoint.heads_root:
        return f"its heads do not lead to the heads_root of round {ledger.round}"
    if ledger.tree.root != checkpoint.ledger_root:
        return f"its slot roots do not lead to the ledger_root of round {ledger.round}"
    for shard, item in enumerate(ledger.shards):
        cursor, head = item.cursor, item.head
        if (cursor.height, cursor.block_hash) != (head.height, head.block_hash) and head.height >= 0:
            return f"cursor and head of shard {shard} differ"
        if head.height >= 0 and ledger.checked_head(chain, shard).tree.root != head.state_root:
            return f"its slot roots do not lead to the state root of shard {shard}"
    return None
