"""The façade end to end over real shards: results, rejections, timeouts, shards created, and each named error."""

from dataclasses import replace

import pytest
from sharding_net import ShardingNet
from sync_net import address_of_key, key_of, signer_key

from pipeline import errors
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import UNOWNED_SLOT, ShardId
from pipeline.config import ShardingSystemConfig
from pipeline.ledger.codes import Code
from pipeline.ledger.leaves import balance_key
from pipeline.ledger.receipts import ReceiptChunk, TransactionReceipt, encode_receipt
from pipeline.ledger.transactions import Freeze, PutData, TransactionBody
from pipeline.ledger.writers import signer_writer
from pipeline.log.port import Append
from pipeline.shards.life import TaskState
from pipeline.shards.manager import NewShard
from pipeline.system import ShardingSystem, TransactionResult
from pipeline.tree.shard_tree import ShardTree


def started(shards: int = 2, **config: int | bool) -> tuple[ShardingNet, ShardingSystem, str, str]:
    """A running system, and a name with 1,000 on each of the first two shards."""
    net = ShardingNet(shards)
    system = ShardingSystem(net, ShardingSystemConfig(**config))
    system.start()
    here, there = net.name_on(0), net.name_on(1 if shards > 1 else 0, "peer")
    net.fund({here: 1000, there: 1000})
    net.run(net.sync)
    return net, system, here, there


def balance(net: ShardingNet, name: str) -> int:
    value = net.stores[net.shard_of(name)].view().get(balance_key(address_of_key(key_of(name)), net.asset))
    return int.from_bytes((value or bytes(17))[:16], "big")


def operators() -> NewShard:
    return NewShard((key_of("operator"),))


def test_a_local_and_a_cross_shard_payment_have_results_under_signed_roots() -> None:
    net, system, here, there = started()
    local = system.process_transaction(net.payment(here, {here: 1}))
    assert (local.shard, local.receipt.code, local.messages.messages) == (0, Code.OK, ())
    assert local.state_roots[ShardId(0)].height == net.tasks[0].committed.height
    crossing = system.secure_process_transaction(net.payment(here, {there: 7}))
    assert crossing.receipt.code is Code.OK
    assert [use.destination for use in crossing.messages.messages] == [1]
    assert (balance(net, here), balance(net, there)) == (993, 1007)
    for shard in (0, 1):
        assert crossing.state_roots[ShardId(shard)].state_root == net.stores[shard].state_root
    assert list(system._settlement._receipts.transactions()) == [], "results keep what they need"
    metrics = system.system_state.system_metrics
    assert (metrics.transactions_processed, metrics.cross_shard_messages) == (2, 1)
    assert metrics.states_synchronized == 3
    assert metrics.timeouts == {}
    net.run(net.sync)
    report = system.system_state.synchronization
    assert [state.height for state in report.shards] == [task.committed.height for task in net.tasks]
    assert system.state_synchronizer.state_of(1).state_root == net.stores[1].state_root


def test_a_rejection_is_a_result() -> None:
    net, system, here, there = started()
    poor = system.process_transaction(net.payment(here, {there: 10**6}))
    assert (poor.receipt.code, poor.receipt.nonce_consumed) == (Code.INSUFFICIENT_FUNDS, True)
    gap = system.process_transaction(net.payment(here, {there: 1}, nonce=7, with_key=True))
    assert (gap.receipt.code, gap.receipt.nonce_consumed) == (Code.NONCE_GAP, False)
    assert system.system_state.system_metrics.transactions_refused == 1


def test_a_refund_is_settled_before_the_result() -> None:
    net, system, here, there = started()
    freeze = Freeze(net.asset, address_of_key(key_of(there)), frozen=True)
    assert system.process_transaction(net.signed("treasury", freeze)).receipt.code is Code.OK
    assert system.process_transaction(net.payment(here, {there: 30})).receipt.code is Code.OK
    assert (balance(net, here), balance(net, there)) == (1000, 1000)


def test_parallel_results_stand_in_order_and_errors_are_values() -> None:
    net, system, here, there = started()
    bad = net.payment(here, {there: 1}, nonce=0)._replace(signature=bytes(32))
    batch = [net.payment(here, {there: 1}), bad, *[net.payment(there, {here: 2}) for _ in range(20)]]
    before = net.log.end_offset(TopicPartition(Topic.BLOCKS, 1))
    results = system.parallel_process_transactions(batch)
    assert isinstance(results[1], errors.SecurityValidationFailed)
    done = [result for result in results if isinstance(result, TransactionResult)]
    assert [result.tx_id for result in done] == [tx.tx_id for tx in batch if tx is not bad]
    assert all(result.receipt.code is Code.OK for result in done)
    assert balance(net, here) == 1000 - 1 + 40
    # One wait for all: a block a transaction would take at least twice as many records.
    assert net.log.end_offset(TopicPartition(Topic.BLOCKS, 1)) - before < 20


def test_without_parallel_processing_one_follows_the_other() -> None:
    net, system, here, there = started(enable_parallel_processing=False)
    results = system.parallel_process_transactions([net.payment(here, {there: 1}) for _ in range(3)])
    heights = [result.state_roots[ShardId(0)].height for result in results if isinstance(result, TransactionResult)]
    assert len(heights) == 3
    assert heights[0] < heights[1] < heights[2]


def test_cached_results_are_kept_by_id_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.system.sharding_system._CACHED_RESULTS", 2)
    net, system, here, there = started()
    payments = [net.payment(here, {there: 1}) for _ in range(3)]
    first = [system.cached_process_transaction(item) for item in payments[:2]]
    assert system.cached_process_transaction(payments[0]) is first[0]
    assert system.system_state.system_metrics.cache_hits == 1
    system.cached_process_transaction(payments[2])
    assert system.cached_process_transaction(payments[0]) is first[0]
    with pytest.raises(errors.SecurityValidationFailed, match="nonce was used"):
        system.cached_process_transaction(payments[1])
    assert balance(net, here) == 997


def test_refused_attempts_are_not_cached_and_the_cache_can_be_off() -> None:
    net, system, here, there = started()
    early = net.payment(here, {there: 1}, nonce=1, with_key=True)
    assert system.cached_process_transaction(early).receipt.code is Code.NONCE_GAP
    system.process_transaction(net.payment(here, {there: 1}))
    assert system.cached_process_transaction(early).receipt.code is Code.OK
    net, system, here, there = started(enable_sharding_optimization=False)
    payment = net.payment(here, {there: 1})
    system.cached_process_transaction(payment)
    with pytest.raises(errors.SecurityValidationFailed):
        system.cached_process_transaction(payment)


def test_create_shard_activates_the_lowest_idle_partition() -> None:
    net, system, here, there = started()
    assert (system.max_shards, len(system.system_state.active_shards)) == (4, 2)
    created = system.create_shard(operators())
    assert (created.shard, created.state) == (2, TaskState.LEADING)
    assert created.height >= 0
    assert created.state_root == ShardTree([UNOWNED_SLOT] * 4096).root
    net.run(net.sync)
    assert len(net.state_roots(2)) >= 1, "the new shard's head is signed too"
    assert system.process_transaction(net.payment(here, {there: 5})).receipt.code is Code.OK
    assert [shard.shard for shard in system.shard_manager.load_balancer.measure().shards] == [0, 1, 2]
    assert system.create_shard(replace(operators(), shard=ShardId(3))).shard == 3
    with pytest.raises(errors.ShardingLimitsExceeded, match="limit of 4"):
        system.create_shard(operators())
    assert system.system_state.system_metrics.shards_created == 2


def test_max_shards_bounds_creation() -> None:
    for here, of_the_node in ((3, 1000), (1000, 3)):
        net = ShardingNet(2, max_shards=of_the_node)
        system = ShardingSystem(net, ShardingSystemConfig(max_shards=here))
        system.start_sharding_system()
        assert system.max_shards == 3
        assert system.create_shard(operators()).shard == 2
        with pytest.raises(errors.ShardingLimitsExceeded, match="limit of 3"):
            system.create_shard(operators())


def test_creation_needs_a_right_number_and_a_quorum() -> None:
    _, system, *_ = started()
    with pytest.raises(errors.InvalidShardConfig, match="lowest idle partition is 2"):
        system.create_shard(replace(operators(), shard=ShardId(3)))
    with pytest.raises(errors.InvalidShardConfig, match="operator"):
        system.create_shard(NewShard(()))
    with pytest.raises(errors.SecurityValidationFailed, match="0 of 1"):
        system.create_shard(NewShard((key_of("mallory"),)))


def test_shards_that_others_created_are_managed() -> None:
    net, system, here, there = started()
    other = ShardingSystem(net)
    other.start()
    other.create_shard(operators())
    system.process_transaction(net.payment(here, {there: 5}))
    assert len(system.shard_manager.load_balancer.measure().shards) == 3


def test_a_stalled_shard_is_late_and_the_transaction_still_happens() -> None:
    net, system, here, there = started()
    net.stalled = {0}
    with pytest.raises(errors.TransactionProcessingFailed, match="on shard 0 has no receipt within 30 s"):
        system.process_transaction(net.payment(here, {there: 5}))
    net.stalled = set()
    net.run(net.sync)
    assert balance(net, here) == 995
    assert system.system_state.system_metrics.timeouts == {"TransactionProcessingFailed": 1}


def test_a_stalled_destination_is_late() -> None:
    net, system, here, there = started()
    net.stalled = {1}
    start_ms = net.now_ms
    with pytest.raises(errors.CrossShardCommunicationFailed, match="within 120 s"):
        system.process_transaction(net.payment(here, {there: 5}))
    assert net.now_ms - start_ms >= 120_000
    assert balance(net, here) == 995


def test_a_stalled_synchronizer_is_late() -> None:
    net, system, here, _ = started()
    net.stalled = {"sync"}
    with pytest.raises(errors.StateSynchronizationFailed, match="within 180 s"):
        system.process_transaction(net.payment(here, {here: 5}))
    assert net.tasks[0].state is TaskState.LEADING


def test_a_creation_that_nobody_carries_out_is_late() -> None:
    net, system, *_ = started()
    net.stalled = {0, 1}
    with pytest.raises(errors.ShardCreationFailed, match="shard 2 was not created within 60 s"):
        system.create_shard(operators())
    net.stalled = set()
    assert net.run_until(lambda: len(net.tasks) == 3, timeout_ms=1000)


def test_a_shard_that_never_leads_stops_the_start() -> None:
    net = ShardingNet()
    net.stalled = {1}
    with pytest.raises(errors.ShardManagementFailed, match=r"shards \[1\] do not lead"):
        ShardingSystem(net).start()


def test_a_synchronizer_that_does_not_run_stops_the_start() -> None:
    net = ShardingNet()
    net.stalled = {"sync"}
    with pytest.raises(errors.StateSynchronizationFailed, match="does not run within 180 s"):
        ShardingSystem(net).start()
    fenced = ShardingNet()
    fenced.run(fenced.sync)
    fenced.log.writer(signer_writer(fenced.chain.chain_id, signer_key("attestor").key_id))
    fenced.fund({"alice": 1})
    fenced.run(fenced.sync)
    with pytest.raises(errors.StateSynchronizationFailed, match="the synchronizer is fenced"):
        ShardingSystem(fenced).start()


def test_a_shard_that_halts_meanwhile_ends_the_wait() -> None:
    net, system, here, there = started()
    net.log.append([Append(TopicPartition(Topic.RELAY, 0), None, net.bundle(1, 0, 99).to_record())])
    with pytest.raises(errors.ShardManagementFailed, match=r"shard 0 is halted.*jumps over 1"):
        system.process_transaction(net.payment(here, {there: 5}))
    assert list(system.shard_manager.halts) == [0]
    assert system.process_transaction(net.payment(there, {there: 5})).receipt.code is Code.OK
    with pytest.raises(errors.InvalidShard, match="does not serve"):
        system.process_transaction(net.payment(here, {there: 5}))


def test_a_synchronizer_that_stops_ends_the_wait() -> None:
    net, system, here, _ = started()

    def stop() -> None:
        raise errors.TaskDiverged("another checkpoint stands there")

    net.at_each_step = stop
    with pytest.raises(errors.StateSynchronizationFailed, match="another checkpoint"):
        system.process_transaction(net.payment(here, {here: 5}))


def test_a_driver_out_of_disk_is_fatal() -> None:
    net, system, here, _ = started()

    def stop() -> None:
        raise errors.Fatal("disk full")

    net.at_each_step = stop
    with pytest.raises(errors.Fatal, match="disk full"):
        system.process_transaction(net.payment(here, {here: 5}))


def test_what_can_be_refused_before_it_is_published() -> None:
    net, system, here, there = started()
    system.process_transaction(net.payment(here, {there: 1}))
    good = net.payment(here, {there: 1}, nonce=1, with_key=True)
    body = TransactionBody.from_bytes(good.body)
    ends = [net.log.end_offset(TopicPartition(Topic.TRANSACTIONS, shard)) for shard in range(4)]
    foreign = body._replace(chain_id=bytes(32)).to_bytes()
    many = body._replace(operations=(PutData(b"n", b"v"),) * 101).to_bytes()
    huge = body._replace(operations=(PutData(b"n", bytes(700_000)),)).to_bytes()
    refusals: list[tuple[object, type[errors.ShardingError], str]] = [
        (good._replace(body=good.body[:-1]), errors.InvalidTransaction, "can't be read"),
        (good._replace(suite="x"), errors.InvalidTransaction, "can't be encoded"),
        (good._replace(suite=1 << 40), errors.InvalidTransaction, "suite is no number"),
        (good._replace(body=foreign), errors.InvalidTransaction, "another chain"),
        (good._replace(body=many), errors.ShardingLimitsExceeded, "static limit"),
        (good._replace(body=huge), errors.ShardingLimitsExceeded, "split it"),
        (good._replace(signature=bytes(32)), errors.SecurityValidationFailed, "signature does not hold"),
        (good._replace(public_key=key_of(there).public_key), errors.SecurityValidationFailed, "not the sender's"),
        (net.payment(here, {there: 1}, nonce=0), errors.SecurityValidationFailed, "nonce was used"),
        (net.payment(there, {here: 1}, nonce=0, with_key=False), errors.SecurityValidationFailed, "no recorded key"),
    ]
    for transaction, error, words in refusals:
        with pytest.raises(error, match=words):
            system.process_transaction(transaction)  # type: ignore[arg-type]
    assert ends == [net.log.end_offset(TopicPartition(Topic.TRANSACTIONS, shard)) for shard in range(4)]
    assert system.process_transaction(good).receipt.code is Code.OK


def test_a_receipt_that_contradicts_its_transaction_is_refused() -> None:
    net, system, here, there = started()
    payment = net.payment(here, {there: 5})
    offset = net.log.end_offset(TopicPartition(Topic.TRANSACTIONS, 0))
    other = net.payment(here, {there: 6}, nonce=1).tx_id
    sender = address_of_key(key_of(here))
    forged = TransactionReceipt(0, offset, other, sender, 0, Code.OK, True, gas_used=0, fee=0)
    chunk = ReceiptChunk(net.chain.chain_id, 0, net.tasks[0].committed.height + 1, 0, (encode_receipt(forged),))
    net.stalled = {0}
    net.log.append([Append(TopicPartition(Topic.RECEIPTS, 0), None, chunk.to_record())])
    with pytest.raises(errors.InvalidTransactionResult, match="names another record"):
        system.process_transaction(payment)


def test_nothing_to_process_is_nothing() -> None:
    _, system, *_ = started()
    assert system.parallel_process_transactions([]) == []
