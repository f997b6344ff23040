"""Operators' records: replayed, of another chain, by too few, by one twice, out of turn; old attestors."""

from dataclasses import replace

import pytest

from pipeline.codec.types import ChainId, Hash32
from pipeline.crypto import contexts
from pipeline.errors import ConfigError
from pipeline.ledger.codes import Code, DeadLetterReason
from pipeline.ledger.control import (
    Action,
    CollectFees,
    CreateShard,
    KeySignature,
    SetAttestors,
    SetShardMap,
    SignedControl,
    encode_action,
)
from pipeline.ledger.genesis import SignerKey
from pipeline.ledger.receipts import ControlReceipt
from pipeline.testing.world import Actor, Block, World, build_genesis


def started() -> World:
    world = World(2)
    world.start(amount=0)
    return world


def reasons(block: Block) -> list[DeadLetterReason]:
    return [letter.reason for letter in block.executed.dead_letters]


def test_a_control_record_again_is_a_dead_letter() -> None:
    world = started()
    offset = world.govern(CreateShard(2))
    record = world.control.records[-1].value
    assert world.control.records[-1].offset == offset
    world.run_block(0)
    for _ in range(2):
        world.control.append(record)
    assert reasons(world.run_block(0)) == [DeadLetterReason.NOT_AUTHORIZED] * 2
    assert world.cursors[0].control.active_shards == 3


def test_a_control_record_of_another_chain_is_a_dead_letter() -> None:
    world, twin = started(), World(2, salt=Hash32(b"\x01" * 32))
    world.govern(CreateShard(2))
    twin.settle()
    twin.control.append(world.control.records[-1].value)
    assert reasons(twin.run_block(0)) == [DeadLetterReason.NOT_AUTHORIZED]
    assert twin.cursors[0].control.active_shards == 2


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_operators_govern_nothing(count: int) -> None:
    world = started()
    world.govern(CreateShard(2), signers=world.operators[:count])
    assert reasons(world.run_block(0)) == [DeadLetterReason.NOT_AUTHORIZED]


def test_one_operator_twice_is_one_and_a_stranger_is_none() -> None:
    world = started()
    one = world.operators[0]
    world.govern(CreateShard(2), signers=[one, one, one])
    world.govern(CreateShard(2), signers=[one, Actor.of("stranger"), world.treasury])
    assert reasons(world.run_block(0)) == [DeadLetterReason.NOT_AUTHORIZED] * 2
    assert world.cursors[0].control.active_shards == 2


def test_signatures_of_an_operator_for_other_purposes_govern_nothing() -> None:
    """Bytes that attestors or payers signed, under the operators' own keys."""
    world = started()
    state = world.cursors[0].control
    unsigned = SignedControl(
        world.chain.chain_id, 1, state.previous_hash, encode_action(1, CollectFees(world.treasury.address))
    )
    for context in (contexts.CHECKPOINT, contexts.TRANSACTION, contexts.ROTATION):
        signatures = tuple(
            KeySignature(
                SignerKey(actor.key.suite_id, actor.key.public_key).key_id,
                actor.key.suite_id,
                actor.key.sign(unsigned.message(), context),
            )
            for actor in world.operators
        )
        world.control.append(replace(unsigned, signatures=signatures).to_record())
    assert reasons(world.run_block(0)) == [DeadLetterReason.NOT_AUTHORIZED] * 3


@pytest.mark.parametrize("field", ["sequence", "previous_hash", "chain_id"])
def test_a_record_out_of_turn_is_a_dead_letter(field: str) -> None:
    world = started()
    value = {"sequence": 2, "previous_hash": Hash32(bytes(32)), "chain_id": ChainId(bytes(32))}[field]
    world.govern(CreateShard(2), **{field: value})
    assert reasons(world.run_block(0)) == [DeadLetterReason.NOT_AUTHORIZED]


def test_the_old_attestors_do_not_come_back_by_a_replay() -> None:
    """The record that once installed them has had its turn."""
    world = started()
    first, second = Actor.of("first"), Actor.of("second")
    for actor in (first, second):
        world.govern(SetAttestors((SignerKey(actor.key.suite_id, actor.key.public_key),), 1), signers=None)
        world.run_block(0)
    installed = world.cursors[0].control.attestors
    for record in [record.value for record in world.control.records[1:]]:
        world.control.append(record)
    block = world.run_block(0)
    assert set(reasons(block)) == {DeadLetterReason.NOT_AUTHORIZED}
    assert world.cursors[0].control.attestors == installed


@pytest.mark.parametrize("action", [SetShardMap(1, bytes(8192)), CreateShard(0), CreateShard(3)])
def test_what_protocol_1_refuses_takes_its_number_and_changes_nothing(action: Action) -> None:
    world = started()
    world.govern(action)
    block = world.run_block(0)
    (receipt,) = block.receipts
    assert isinstance(receipt, ControlReceipt)
    assert receipt.code is not Code.OK
    assert (world.cursors[0].control.active_shards, world.cursors[0].control.sequence) == (2, 1)
    assert block.executed.header.map_epoch == 0


def test_a_genesis_with_one_operator_twice_or_no_quorum_is_refused() -> None:
    treasury, operator = Actor.of("treasury"), Actor.of("operator")
    for operators, threshold in (([operator, operator], 1), ([operator], 2), ([operator], 0)):
        with pytest.raises(ConfigError, match="genesis refused"):
            build_genesis(1, treasury, operators, operator_threshold=threshold).validate()
