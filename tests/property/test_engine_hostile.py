"""What anybody can publish: it gets its receipt or its dead letter, or halts by name; it never crashes a shard."""

from dataclasses import replace
from functools import cache
from typing import Any

from avro_values import INT, LONG, values
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.avro import NAMESPACE, codec
from pipeline.codec.types import Hash32, ShardId
from pipeline.crypto import contexts
from pipeline.errors import TaskDiverged
from pipeline.ledger.codes import Code
from pipeline.ledger.control import KeySignature, SignedControl
from pipeline.ledger.genesis import SignerKey
from pipeline.ledger.packing import RELAY_ENTRY, TRANSFER_ENTRY
from pipeline.ledger.receipts import ControlReceipt, TransactionReceipt, decode_receipt
from pipeline.ledger.relay import RelayBundle, channel_start
from pipeline.ledger.transactions import SignedTransaction, TransactionBody
from pipeline.testing.world import Actor, World

EXTREMES = st.sampled_from([0, 1, 2**64, 2**127, 2**128 - 1])
SUITES = st.one_of(st.sampled_from([0xFF, 0, 1, 2, 256, -1]), st.integers(*INT))


@cache
def ledger() -> tuple[World, Actor, list[bytes]]:
    """Two shards with one holder each; nothing below commits a block, so all examples share it."""
    world = World(2)
    alice, bob = world.actor("alice"), world.actor("bob", 1)
    world.start(alice, bob, amount=2**126)
    known = [alice.address, bob.address, world.treasury.address, world.asset, bytes(32), b"\xff" * 32]
    return world, alice, known


def ids() -> st.SearchStrategy[bytes]:
    return st.one_of(st.sampled_from(ledger()[2]), st.binary(min_size=32, max_size=32))


def amounts() -> st.SearchStrategy[bytes]:
    return EXTREMES.map(lambda amount: amount.to_bytes(16, "big"))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A body of any numbers whose sender can sign and has the nonce, most of the time."""
    world, alice, _ = ledger()
    value: dict[str, Any] = {**draw(values("TransactionBody")), "chain_id": world.chain.chain_id, "protocol": 1}
    value |= {"sender": alice.address, "nonce": draw(st.sampled_from([0, 0, 0, 1, -1, *LONG]))}
    value |= {"gas_price": draw(amounts()), "gas_limit": draw(st.sampled_from([2**62, 0, *LONG]))}
    value |= {"mode": draw(st.sampled_from([0, 1, 2, -1]))}
    operations = []
    for name, fields in value["operations"]:
        if "entries" in fields:
            packed = draw(st.lists(st.tuples(ids(), amounts()), max_size=4))
            fields["entries"] = b"".join([TRANSFER_ENTRY.pack(*entry) for entry in packed]) or fields["entries"]
        if "asset" in fields:
            fields["asset"] = draw(ids())
        if "suite" in fields:
            fields["suite"] = draw(SUITES)
        operations.append((name, fields))
    return codec("TransactionBody").encode({**value, "operations": operations})


@settings(max_examples=60, deadline=None)
@given(st.lists(bodies(), min_size=1, max_size=4), SUITES, st.data())
def test_every_record_that_decodes_gets_a_receipt(datums: list[bytes], suite: int, data: st.DataObject) -> None:
    world, alice, _ = ledger()
    public_key = data.draw(st.sampled_from([alice.key.public_key, None, b"", bytes(32)]))
    records = [
        SignedTransaction(datum, used, key, alice.key.sign(datum, contexts.TRANSACTION)).to_record()
        for datum in datums
        for used, key in ((alice.key.suite_id, alice.key.public_key), (suite, public_key))
    ]
    start = world.transactions[0].end
    world.submit(*records, shard=0)
    try:
        executed = world.execute(0)
    finally:
        del world.transactions[0].records[-len(records) :]
        world.transactions[0].end = start
    receipts = [decode_receipt(datum) for datum in executed.receipts]
    assert [receipt.offset for receipt in receipts] == list(range(start, start + len(records)))
    assert all(isinstance(receipt, TransactionReceipt) for receipt in receipts)
    for datum, receipt in zip([datum for datum in datums for _ in range(2)], receipts, strict=True):
        body = TransactionBody.from_bytes(datum)
        assert isinstance(receipt, TransactionReceipt)
        # An atomic transaction has the code of its failed entry, and a RotateKey can fail as a bad key does.
        held = receipt.code is Code.OK or receipt.code >= Code.EXPIRED or bool(receipt.failures)
        assert receipt.nonce_consumed == held
        assert receipt.gas_used <= body.gas_limit or not receipt.nonce_consumed


@st.composite
def bundles(draw: st.DrawFn) -> RelayBundle:
    """A bundle that shard 1 would take for the first of shard 0, with any effects."""
    world, _, _ = ledger()
    groups = draw(values("RelayGroups"))["groups"]
    for group in groups:
        packed = draw(st.lists(st.tuples(st.integers(0, 65_535), ids(), amounts()), min_size=1, max_size=4))
        group |= {"entries": b"".join([RELAY_ENTRY.pack(*entry) for entry in packed])}
        group |= {"kind": draw(st.integers(-1, 5)), "sender": draw(ids()), "asset": draw(ids())}
    head = world.cursors[1].channels_in.get(0)
    sequence, previous = (head.sequence, head.head) if head else (0, channel_start(world.chain.chain_id, 0, 1))
    packed_groups = codec("RelayGroups").encode({"groups": groups})
    bundle = RelayBundle(
        world.chain.chain_id, ShardId(0), ShardId(1), 0, 0, sequence + 1, Hash32(previous), packed_groups
    )
    changes = draw(st.sampled_from([{}, {}, {"sequence": 0}, {"sequence": 2**63 - 1}, {"source": -(2**31)}]))
    return replace(bundle, **changes)


@settings(max_examples=60, deadline=None)
@given(st.lists(bundles(), min_size=1, max_size=3))
def test_every_bundle_is_executed_buried_or_halts_by_name(forged: list[RelayBundle]) -> None:
    world, _, _ = ledger()
    partition = world.relay[1]
    start = partition.end
    for bundle in forged:
        partition.append(bundle.to_record())
    try:
        executed = world.execute(1)
    except TaskDiverged as error:
        assert "audit" in str(error)  # noqa: PT017 - it may also not halt
    else:
        counts = executed.header.counts
        assert counts.bundles + counts.dead_letters + counts.repeats == len(forged)
    finally:
        del partition.records[-len(forged) :]
        partition.end = start


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_control_record_of_a_quorum_is_applied_refused_or_halts_by_name(data: st.DataObject) -> None:
    world, _, _ = ledger()
    state = world.cursors[0].control
    value = data.draw(values("ControlBody"))
    name, fields = value["action"]
    if name == NAMESPACE + "SetAttestors":
        fields["attestors"] = [
            {"suite": data.draw(SUITES), "public_key": data.draw(st.binary(max_size=40))}
            for _ in range(data.draw(st.integers(0, 3)))
        ]
        fields["threshold"] = data.draw(st.integers(-1, 3))
    body = codec("ControlBody").encode({"protocol": 1, "action": (name, fields)})
    unsigned = SignedControl(world.chain.chain_id, state.sequence + 1, state.previous_hash, body)
    signatures = tuple(
        KeySignature(
            SignerKey(operator.key.suite_id, operator.key.public_key).key_id,
            operator.key.suite_id,
            operator.key.sign(unsigned.message(), contexts.CONTROL),
        )
        for operator in world.operators
    )
    start = world.control.end
    world.control.append(replace(unsigned, signatures=signatures).to_record())
    try:
        executed = world.execute(0)
    except TaskDiverged as error:
        assert name == NAMESPACE + "SetProtocol"
        assert "upgrade" in str(error)  # noqa: PT017 - it may also not halt
    else:
        (receipt,) = [decode_receipt(datum) for datum in executed.receipts]
        assert isinstance(receipt, ControlReceipt)
        attestors = executed.cursor.control.attestors
        assert all(world.verifier.accepts_key(key.suite, key.public_key) for key in attestors)
    finally:
        world.control.records.pop()
        world.control.end = start
