"""Allocation, validation and the manager's own refusals."""

from dataclasses import replace

import pytest
from sharding_net import ShardingNet
from sync_net import alone, key_of

from pipeline import errors
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import BlockHash, Hash32, Height, ShardId, StateKey
from pipeline.crypto.verifier import InlineVerifier
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.leaves import account_key
from pipeline.ledger.receipts import ReceiptChunk, TransactionReceipt, decode_receipt
from pipeline.log.port import Append
from pipeline.shards.allocator import ShardAllocator
from pipeline.shards.consumed import CONSUMED
from pipeline.shards.leader import CURSOR
from pipeline.shards.life import TaskState
from pipeline.shards.manager import NewShard, ShardManager
from pipeline.shards.submission import Submission, check_form, check_result
from pipeline.shards.validator import ShardValidator
from pipeline.state.store import StateStore
from pipeline.sync.control_feed import ControlFeed
from pipeline.testing.suite import TEST_SUITES


def managed(shards: int = 2) -> tuple[ShardingNet, ShardManager, str, str]:
    net = ShardingNet(shards)
    here, there = net.name_on(0), net.name_on(1)
    net.fund({here: 1000, there: 1000})
    net.run(net.sync)
    return net, manager_of(net), here, there


def manager_of(net: ShardingNet) -> ShardManager:
    verifier = InlineVerifier(TEST_SUITES)
    return ShardManager(
        net.chain, net.log, net.tasks, net.allocator, ControlFeed(net.chain, net.log, verifier), verifier
    )


# Allocation


def test_partitions_and_the_configured_limit_bound_allocation() -> None:
    net = ShardingNet()
    few = ShardAllocator(net.chain, net.store_for, 3)
    assert (net.allocator.limit, few.limit) == (4, 3)
    assert (few.next_idle(2), few.allocate(ShardId(2)).shard) == (2, 2)
    for refused in (3, 1000, -1):
        with pytest.raises(errors.ShardingLimitsExceeded, match="limit of 3 shards: raise max_shards"):
            few.allocate(ShardId(refused))
    with pytest.raises(errors.ShardingLimitsExceeded):
        few.next_idle(3)


def test_a_store_that_can_not_be_had() -> None:
    net = ShardingNet()

    def broken(shard: ShardId) -> StateStore:
        raise errors.Fatal("disk full")

    def unreachable(shard: ShardId) -> StateStore:
        raise PermissionError(13, "Permission denied")

    for factory in (broken, unreachable):
        with pytest.raises(errors.ShardAllocationFailed, match="shard 2 can't be opened"):
            ShardAllocator(net.chain, factory).allocate(ShardId(2))
    with pytest.raises(errors.ShardAllocationFailed, match="shard 2 is shard 0's"):
        ShardAllocator(net.chain, lambda _: net.store_for(0)).allocate(ShardId(2))


# Validation


def test_stores_that_agree_with_the_log_are_valid_even_behind_it() -> None:
    net, _, here, there = managed()
    validator = ShardValidator(net.chain, net.log, net.verifier)
    for task in net.tasks:
        assert validator.validate(task.store) == task.committed
    assert validator.validate(net.store_for(1)).height == -1
    net.pay(here, {there: 1})
    net.run(net.sync)
    assert validator.validate(net.stores[0]).height > 0


def corrupted(net: ShardingNet, **changes: object) -> StateStore:
    """Shard 0's store with its cursor altered."""
    store = net.stores[0]
    cursor = replace(net.tasks[0].committed, **changes)  # type: ignore[arg-type]
    store.commit(store.view().prepare({}), {CURSOR: cursor.to_bytes()})
    return store


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"block_hash": BlockHash(Hash32(bytes(32)))}, "another block than the log holds"),
        ({"positions": (1, 0, 0)}, "positions and channels"),
        ({"channels_out": {}}, "positions and channels"),
        ({"height": Height(50)}, "shard 0"),
        ({"shard": ShardId(1)}, "holds shard 1"),
    ],
)
def test_a_cursor_that_the_log_contradicts(changes: dict[str, object], words: str) -> None:
    net, *_ = managed()
    with pytest.raises(errors.InvalidShard, match=words):
        ShardValidator(net.chain, net.log, net.verifier).validate(corrupted(net, **changes))


def test_state_that_the_log_contradicts() -> None:
    net, *_ = managed()
    store = net.stores[0]
    stolen: StateKey = account_key(net.chain.genesis.treasury)
    store.commit(store.view().prepare({stolen: bytes(41)}), {})
    with pytest.raises(errors.InvalidShard, match="state root is not the block's; keep the store"):
        ShardValidator(net.chain, net.log, net.verifier).validate(store)


def test_inputs_that_the_log_contradicts() -> None:
    net, *_ = managed()
    store = net.stores[0]
    kept = store.meta(CONSUMED)
    assert kept is not None
    store.commit(store.view().prepare({}), {CONSUMED: kept[:-1] + bytes([kept[-1] ^ 1])})
    with pytest.raises(errors.InvalidShard, match=r"transactions offset \d+ does not hold the record"):
        ShardValidator(net.chain, net.log, net.verifier).validate(store)


def test_a_signed_block_that_the_log_does_not_hold() -> None:
    net, *_ = managed()
    signed = net.state_roots(0)[-1]
    target = TopicPartition(Topic.STATE_ROOTS, 0)
    other = alone(signed, "attestor", block_hash=BlockHash(Hash32(bytes(32))))
    net.log.append([Append(target, None, other.to_record())])
    validator = ShardValidator(net.chain, net.log, net.verifier)
    with pytest.raises(errors.InvalidShard, match="not the one that was signed"):
        validator.validate(net.stores[0])
    ahead = alone(signed, "attestor", height=Height(99))
    net.log.append([Append(target, None, ahead.to_record())])
    with pytest.raises(errors.InvalidShard, match="99"):
        validator.validate(net.stores[0])


def test_what_nobody_signed_makes_no_store_invalid() -> None:
    net, *_ = managed()
    unsigned = alone(net.state_roots(0)[-1], height=Height(99))
    net.log.append([Append(TopicPartition(Topic.STATE_ROOTS, 0), None, unsigned.to_record())])
    validator = ShardValidator(net.chain, net.log, net.verifier)
    assert validator.validate(net.stores[0]) == net.tasks[0].committed


def test_a_store_that_can_not_be_read() -> None:
    net, *_ = managed()
    kv = MemoryKeyValue()
    store = net.store_for(0, kv)
    kv.close()
    with pytest.raises(errors.StateManagementFailed, match="shard 0 can't be read"):
        ShardValidator(net.chain, net.log, net.verifier).validate(store)


# Manager


def test_management_needs_shards_and_shows_them() -> None:
    net, manager, *_ = managed()
    assert [cursor.shard for cursor in manager.start_management()] == [0, 1]
    shards = manager.managed_shards
    assert [item.state for item in shards] == [TaskState.LEADING] * 2
    assert [item.state_root for item in shards] == [store.state_root for store in net.stores]
    assert manager.halts == {}
    empty = ShardManager(
        net.chain, net.log, [], net.allocator, ControlFeed(net.chain, net.log, net.verifier), net.verifier
    )
    with pytest.raises(errors.ShardManagementFailed, match="no shard to manage"):
        empty.start_management()


def test_a_transaction_goes_to_its_senders_shard_only() -> None:
    net, manager, here, there = managed()
    payment = net.payment(here, {there: 1})
    assert manager.determine_target_shard(payment) == 0
    with pytest.raises(errors.TransactionDoesNotBelongToShard, match="belongs to shard 0, not 1"):
        manager.process_transaction_in_shard(payment, ShardId(1))
    for nowhere in (2, -1):
        with pytest.raises(errors.InvalidShard, match="2 are active"):
            manager.process_transaction_in_shard(payment, ShardId(nowhere))
    with pytest.raises(errors.SecurityValidationFailed, match="signature does not hold"):
        manager.process_transaction_in_shard(payment._replace(signature=bytes(32)), ShardId(0))
    published = manager.process_transaction_in_shard(payment, ShardId(0))
    assert (published.shard, published.tx_id) == (0, payment.tx_id)
    net.run(net.sync)
    receipts = [
        receipt
        for record in net.read(Topic.RECEIPTS, 0)
        for receipt in map(decode_receipt, ReceiptChunk.from_record(record.value).receipts)
        if isinstance(receipt, TransactionReceipt) and receipt.offset == published.offset
    ]
    assert [receipt.tx_id for receipt in receipts] == [payment.tx_id]


def test_unreadable_state_is_named_when_security_is_checked() -> None:
    net, manager, here, there = managed()
    payment = net.payment(here, {there: 1})
    kv = MemoryKeyValue()
    net.tasks[0].store = net.store_for(0, kv)
    kv.close()
    with pytest.raises(errors.StateManagementFailed, match="shard 0 can't be read"):
        manager.process_transaction_in_shard(payment, ShardId(0))
    other = net.payment(there, {here: 1})
    refused, admitted = manager.admit([payment, other])
    assert isinstance(refused, errors.StateManagementFailed)
    assert isinstance(admitted, Submission)


def test_control_records_of_others_are_followed() -> None:
    net, manager, *_ = managed()
    one, two = manager_of(net), manager_of(net)
    asked = NewShard((key_of("operator"),))
    assert one.create_shard(asked)[:2] == (2, 1)
    assert two.create_shard(asked)[:2] == (3, 2)
    with pytest.raises(errors.ShardingLimitsExceeded):
        manager.create_shard(asked)


def test_receipts_are_held_against_their_transactions() -> None:
    net, _, here, there = managed()
    place = net.pay(here, {there: 1})
    net.run()
    (receipt,) = [
        receipt
        for record in net.read(Topic.RECEIPTS, 0)
        for receipt in map(decode_receipt, ReceiptChunk.from_record(record.value).receipts)
        if isinstance(receipt, TransactionReceipt) and receipt.offset == place[1]
    ]
    net.nonces[here] -= 1
    submission = check_form(net.chain, net.payment(here, {there: 1}))
    check_result(submission, place[1], receipt)
    for other in (
        {"offset": 77},
        {"nonce": 9},
        {"sender": bytes(32)},
        {"nonce_consumed": False},
        {"gas_used": receipt.gas_used + 1},
        {"fee": 1},
    ):
        with pytest.raises(errors.InvalidTransactionResult, match="audit shard 0"):
            check_result(submission, place[1], receipt._replace(**other))  # type: ignore[arg-type]
