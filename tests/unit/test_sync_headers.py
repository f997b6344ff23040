"""Every rule of the header checks is broken once, on headers that real shards made."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sync_net import Net

from pipeline.codec.topics import Topic
from pipeline.codec.types import Hash32, Slot
from pipeline.errors import TaskDiverged
from pipeline.ledger.blocks import BlockHeader, SlotUpdate, block_hash
from pipeline.ledger.control_state import ControlState
from pipeline.ledger.packing import ChannelHead
from pipeline.sync.headers import CheckedHead, HeaderChecker

NET = Net(shards=2)
NAMES = [f"account-{number}" for number in range(12)]
NET.fund(dict.fromkeys(NAMES, 100))
NET.run()
for name in NAMES:
    NET.pay(name, dict.fromkeys(NAMES, 1))
NET.run()
HEADERS = [BlockHeader.from_record(record.value)[0] for record in NET.read(Topic.BLOCKS, 1)]
CONTROL = ControlState.start(NET.chain)


def hashed(header: BlockHeader) -> bytes:
    return block_hash(header.to_bytes())


def heads() -> list[CheckedHead]:
    """Before each header, and after the last."""
    checker, result = HeaderChecker(NET.chain, 1), [CheckedHead.start(NET.chain, 1)]
    for header in HEADERS:
        result.append(checker.check(result[-1], header, hashed(header), CONTROL))
    return result


BEFORE = heads()
AT = next(i for i, h in enumerate(HEADERS) if h.channels_in and h.channels_out and i)


def test_honest_headers_pass_and_lead_to_the_shards_state() -> None:
    assert BEFORE[-1].cursor.to_bytes() == NET.tasks[1].committed.to_bytes()
    assert BEFORE[-1].tree.root == NET.stores[1].state_root
    assert len(HEADERS) >= 2


def with_input(header: BlockHeader, index: int, **changes: object) -> BlockHeader:
    inputs = list(header.inputs)
    inputs[index] = replace(inputs[index], **changes)
    return replace(header, inputs=tuple(inputs))


def foreign_slot() -> Slot:
    return next(iter(NET.chain.shard_map.slots_of(0)))


ATTACKS: list[tuple[str, Callable[[BlockHeader], BlockHeader]]] = [
    ("another shard", lambda h: replace(h, shard=0)),
    ("another chain", lambda h: replace(h, chain_id=bytes(32))),
    ("is next", lambda h: replace(h, height=h.height + 1)),
    ("predecessor's hash", lambda h: replace(h, previous_hash=bytes(32))),
    ("protocol 2", lambda h: replace(h, protocol=2)),
    ("map epoch", lambda h: replace(h, map_epoch=1)),
    ("its time", lambda h: replace(h, timestamp_ms=0)),
    ("input partitions", lambda h: replace(h, inputs=h.inputs[:2])),
    ("input partitions", lambda h: replace(h, inputs=(*h.inputs[1:], h.inputs[0]))),
    ("input partitions", lambda h: with_input(h, 1, partition=0)),
    ("skips or repeats transactions", lambda h: with_input(h, 2, first=h.inputs[2].first + 1)),
    ("range of relay is too short", lambda h: with_input(h, 1, next=h.inputs[1].first)),
    ("without a record", lambda h: with_input(h, 0, count=0, next=h.inputs[0].next + 1)),
    ("a count is negative", lambda h: replace(h, counts=h.counts._replace(rejected=-1))),
    ("do not add up", lambda h: replace(h, counts=h.counts._replace(rejected=h.counts.rejected + 1))),
    ("count of bundles differ", lambda h: replace(h, channels_in=())),
    ("count of bundles differ", lambda h: replace(h, channels_in=(h.channels_in[0]._replace(sequence=99),))),
    ("goes back", lambda h: replace(h, channels_in=(h.channels_in[0]._replace(sequence=0),))),
    ("not ascending by peer", lambda h: replace(h, channels_in=h.channels_in * 2)),
    ("not ascending by peer", lambda h: replace(h, channels_in=(h.channels_in[0]._replace(peer=1),))),
    ("jumps", lambda h: replace(h, channels_out=(h.channels_out[0]._replace(sequence=99),))),
    ("jumps", lambda h: replace(h, channels_out=h.channels_out * 2)),
    ("outbound channels", lambda h: replace(h, channels_out=(ChannelHead(1, 1, Hash32(bytes(32))),))),
    ("not ascending", lambda h: replace(h, slots=tuple(reversed(h.slots)))),
    ("not ascending", lambda h: replace(h, slots=(h.slots[0], *h.slots))),
    ("does not own", lambda h: replace(h, slots=(SlotUpdate(foreign_slot(), Hash32(bytes(32)), 0),))),
    ("state_root", lambda h: replace(h, state_root=bytes(32))),
    ("state_root", lambda h: replace(h, slots=h.slots[:-1])),
    ("cursors_root", lambda h: replace(h, cursors_root=bytes(32))),
    ("cursors_root", lambda h: replace(h, channels_in=(h.channels_in[0]._replace(head=bytes(32)),))),
    ("cursors_root", lambda h: replace(h, channels_out=())),
]


@pytest.mark.parametrize(("complaint", "attack"), ATTACKS)
def test_a_broken_rule_is_named(complaint: str, attack: Callable[[BlockHeader], BlockHeader]) -> None:
    header = attack(HEADERS[AT])
    with pytest.raises(TaskDiverged, match=complaint) as caught:
        HeaderChecker(NET.chain, 1).check(BEFORE[AT], header, hashed(header), CONTROL)
    assert str(caught.value).startswith(f"shard 1 height {header.height}: ")


def test_block_zero_does_not_precede_the_shards_creation() -> None:
    with pytest.raises(TaskDiverged, match="precedes the shard's creation"):
        HeaderChecker(NET.chain, 1).check(BEFORE[0], HEADERS[0], hashed(HEADERS[0]), replace(CONTROL, active_shards=1))
