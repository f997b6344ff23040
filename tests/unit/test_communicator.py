"""Routing, channel validation and the monitor, over the log of real shards and over forged bundles."""

from dataclasses import replace

import pytest
from sharding_net import ShardingNet, effect
from sync_net import address_of_key, key_of

from pipeline.codec.avro import codec
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import AssetId, ShardId, TxId
from pipeline.errors import (
    CrossShardCommunicationFailed,
    InvalidCrossShardMessage,
    InvalidTransaction,
    ShardingLimitsExceeded,
)
from pipeline.ledger.codes import Code
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.packing import pack_transfers
from pipeline.ledger.receipts import ChannelUse, ReceiptChunk, TransactionReceipt, decode_receipt
from pipeline.ledger.relay import EffectKind, RelayBundle, RelayGroup, bundle_head
from pipeline.ledger.transactions import Burn, Freeze, PutData, Transfer
from pipeline.log.port import Append
from pipeline.shards.communicator import CrossShardCommunicator, CrossShardValidator, MessageRouter
from pipeline.shards.submission import check_form
from pipeline.shards.traffic import CommunicationMonitor

ZERO, ONE = ShardId(0), ShardId(1)


def funded(shards: int = 2) -> tuple[ShardingNet, str, str]:
    net = ShardingNet(shards)
    here, there = net.name_on(0), net.name_on(1)
    net.fund({here: 1000, there: 1000})
    net.run()
    return net, here, there


def record_of(bundle: RelayBundle, offset: int = 0) -> LogRecord:
    return LogRecord(offset, None, bundle.to_record())


def head_of(bundle: RelayBundle) -> bytes:
    return bundle_head(bundle.to_bytes())


# Router


def test_entries_go_to_the_owners_of_their_receivers() -> None:
    net, router = ShardingNet(3), MessageRouter(ShardingNet(3).chain)
    names = [net.name_on(shard) for shard in range(3)]
    own, other, third = (address_of_key(key_of(name)) for name in names)
    coin = AssetId(bytes(32))
    packed = pack_transfers([(own, 1), (other, 2), (third, 4), (third, 8)])
    route = router.route(
        net.signed(names[0], Transfer(net.asset, packed), Transfer(coin, pack_transfers([(other, 9)])))
    )
    assert (route.source, route.local) == (0, (0, 1, {net.asset: 1}))
    assert route.remote == ((1, 2, {net.asset: 2, coin: 9}), (2, 2, {net.asset: 12}))
    assert route.crosses_shards
    freeze = router.route(net.signed(names[0], Freeze(coin, third, True), PutData(b"n", b"v"), Burn(coin, 1)))
    assert (freeze.local.entries, freeze.remote) == (2, ((2, 1, {}),))
    assert not router.route(net.signed(names[1], PutData(b"n", b"v"))).crosses_shards
    assert router.owner_of(third) == 2


def test_what_can_not_be_routed() -> None:
    net = ShardingNet()
    router, name = MessageRouter(net.chain), net.name_on(1)
    with pytest.raises(InvalidTransaction, match="can't be read"):
        router.route(net.signed(name, PutData(b"n", b"v"))._replace(body=b"\x01"))
    with pytest.raises(ShardingLimitsExceeded):
        router.route(net.signed(name, PutData(b"", b"v")))
    with pytest.raises(InvalidTransaction, match="32 bytes, not 3"):
        router.owner_of(b"abc")


# Validator


def test_channels_of_real_shards_hold() -> None:
    net, here, there = funded()
    validator = CrossShardValidator(net.chain, net.log)
    assert (validator.validate(ONE), validator.validate(ZERO)) == (1, 0)
    for _ in range(3):
        net.pay(here, {there: 5})
        net.run()
    assert validator.validate(ONE) == 3
    assert (validator.validate(ONE), validator.last_sequence(ZERO, ONE)) == (0, 4)
    resumed = CrossShardValidator(net.chain, net.log)
    resumed.resume(net.tasks[1].committed)
    net.pay(here, {there: 5})
    net.run()
    assert (resumed.validate(ONE), resumed.last_sequence(ZERO, ONE)) == (1, 5)


def test_every_fault_of_a_bundle_is_named_with_its_channel() -> None:
    net = ShardingNet()
    validator = CrossShardValidator(net.chain, net.log)
    first = net.bundle(0, 1, 1)
    second = net.bundle(0, 1, 2, head=head_of(first))
    assert validator.check(ONE, record_of(first))
    assert not validator.check(ONE, record_of(first)), "a repeat"
    to, lost = address_of_key(key_of(net.name_on(1))), address_of_key(key_of(net.name_on(0)))

    def with_entry(kind: EffectKind, packed: bytes) -> RelayBundle:
        group = RelayGroup(TxId(bytes(32)), bytes(32), net.asset, kind, b"", packed)
        return net.bundle(0, 1, 2, [group], head_of(first))

    many = b"".join(effect(index % 60_000, to, 1) for index in range(10_500))
    faults: list[tuple[LogRecord, str]] = [
        (LogRecord(7, None, b"junk"), "relay partition 1 offset 7: undecodable"),
        (LogRecord(7, None, None), "undecodable"),
        (LogRecord(7, None, bytes(2 << 20)), "too_large"),
        (record_of(replace(second, destination=ZERO)), "foreign"),
        (record_of(replace(second, chain_id=bytes(32))), "foreign"),  # type: ignore[arg-type]
        (record_of(net.bundle(0, 1, 1, head=bytes(32))), r"0 -> 1: bundle 1 differs"),
        (record_of(replace(second, sequence=3)), r"0 -> 1: bundle 3 jumps over 2"),
        (record_of(net.bundle(0, 1, 2)), r"0 -> 1: bundle 2 does not chain"),
        (record_of(with_entry(EffectKind.CREDIT, effect(4, lost, 1))), r"bundle 2 entry 4: its receiver"),
        (record_of(with_entry(EffectKind.REFUND, effect(4, to, 0))), r"bundle 2 entry 4: a refund of a wrong amount"),
        (record_of(with_entry(EffectKind.FREEZE, effect(4, to, 9))), r"entry 4: a freeze of a wrong amount"),
        (record_of(with_entry(EffectKind.CREDIT, many)), "too_large"),
    ]
    for record, words in faults:
        with pytest.raises(InvalidCrossShardMessage, match=words):
            validator.check(ONE, record)
    assert validator.last_sequence(ZERO, ONE) == 1
    assert validator.check(ONE, record_of(second))
    assert validator.check(ONE, record_of(net.bundle(0, 1, 3, [
        RelayGroup(TxId(bytes(32)), bytes(32), net.asset, EffectKind.THAW, b"", effect(0, to, 0))
    ], head_of(second))))  # fmt: skip


def test_what_does_not_hold_is_told_once_and_passed_by() -> None:
    net = ShardingNet()
    validator = CrossShardValidator(net.chain, net.log)
    relay = TopicPartition(Topic.RELAY, 1)
    net.log.append([Append(relay, None, item) for item in (b"junk", net.bundle(0, 1, 1).to_record(), None)])
    with pytest.raises(InvalidCrossShardMessage, match="offset 0"):
        validator.validate(ONE)
    assert (validator.validate(ONE), validator.last_sequence(ZERO, ONE)) == (0, 1)
    net.log.append([Append(relay, None, b"junk") for _ in range(300)])
    held, refused = validator.scan(ONE)
    assert (held, len(refused)) == (0, 64)


# Communicator


def receipt_of(net: ShardingNet, place: tuple[int, int]) -> TransactionReceipt:
    for record in net.read(Topic.RECEIPTS, place[0]):
        for datum in ReceiptChunk.from_record(record.value).receipts:
            receipt = decode_receipt(datum)
            if isinstance(receipt, TransactionReceipt) and receipt.offset == place[1]:
                return receipt
    raise AssertionError("no receipt")


def test_a_receipts_messages_are_found_on_the_log() -> None:
    net, here, there = funded()
    communicator = CrossShardCommunicator(net.chain, net.log)
    communicator.start_communication([ShardCursor.start(net.chain, shard) for shard in range(2)])
    payment = net.payment(here, {there: 5})
    (offset,) = net.log.append([Append(TopicPartition(Topic.TRANSACTIONS, 0), None, payment.to_record())])
    net.run()
    submission, receipt = check_form(net.chain, payment), receipt_of(net, (0, offset))
    net.log.append([Append(TopicPartition(Topic.RELAY, 1), None, b"junk of others")])
    result = communicator.handle_cross_shard_transaction(submission, receipt)
    assert (result.tx_id, result.source, result.messages) == (payment.tx_id, 0, (ChannelUse(1, 2),))
    unsent = receipt._replace(channels=(ChannelUse(1, 3),))
    with pytest.raises(InvalidCrossShardMessage, match=r"0 -> 1: bundle 3 .*not on the log"):
        communicator.handle_cross_shard_transaction(submission, unsent)
    with pytest.raises(InvalidCrossShardMessage, match=r"0 -> 3: bundle 1 .*no entry for it"):
        communicator.handle_cross_shard_transaction(submission, receipt._replace(channels=(ChannelUse(3, 1),)))
    assert communicator.handle_cross_shard_transaction(submission, receipt._replace(channels=())).messages == ()
    assert receipt.code is Code.OK
    communicator.initialize_shard_communication(net.tasks[0].committed)
    assert communicator.report().in_flight == 0


# Monitor


def watching(net: ShardingNet) -> CommunicationMonitor:
    monitor = CommunicationMonitor(net.chain, net.log)
    for shard in range(2):
        monitor.watch(ShardCursor.start(net.chain, shard))
    return monitor


def test_traffic_is_in_flight_until_it_is_executed() -> None:
    net, here, there = funded()
    monitor = watching(net)
    before = monitor.report()
    assert [(item.channel, item.sent, item.executed) for item in before.channels] == [((0, 1), 1, 1)]
    assert (before.in_flight, before.value, before.channels[0].age_ms) == (0, {}, 0)
    for amount in (5, 6):
        net.pay(here, {there: amount})
        net.run(tasks=net.tasks[:1])
    net.now_ms += 500
    net.pay(here, {here: 1})
    net.run(tasks=net.tasks[:1])
    (channel,) = monitor.report().channels
    assert (channel.sent, channel.executed, channel.in_flight) == (3, 1, 2)
    assert channel.age_ms >= 500
    relayed = [record.value or b"" for record in net.read(Topic.RELAY, 1)]
    assert channel.bytes_read == sum(len(value) for value in relayed)
    assert channel.bytes_in_flight == sum(len(value) for value in relayed[1:])
    assert monitor.report().value == {net.asset: 11}
    resumed = CommunicationMonitor(net.chain, net.log)
    for task in net.tasks:
        resumed.watch(task.committed)
        resumed.watch(task.committed)
    assert resumed.report().value == {net.asset: 11}
    assert resumed.report().in_flight == 2
    net.run()
    for late in (monitor, resumed):
        report = late.report()
        assert (report.in_flight, report.value, report.channels[0].bytes_in_flight) == (0, {}, 0)
        assert report.at_ms == max(task.committed.timestamp_ms for task in net.tasks)


def test_repeats_and_forgeries_carry_nothing() -> None:
    net, here, there = funded()
    monitor = watching(net)
    net.pay(here, {there: 5})
    net.run(tasks=net.tasks[:1])
    value = monitor.report()
    relay = TopicPartition(Topic.RELAY, 1)
    repeats = [record.value for record in net.read(Topic.RELAY, 1)]
    forged = [net.bundle(0, 1, 3).to_record(), net.bundle(0, 1, 2**62).to_record(), b"junk", None]
    net.log.append([Append(relay, None, record) for record in [*repeats, *forged]])
    after = monitor.report()
    assert (after.in_flight, after.value) == (value.in_flight, value.value) == (1, {net.asset: 5})
    assert after.channels[0].bytes_in_flight == value.channels[0].bytes_in_flight


def test_contradictory_blocks_can_not_be_followed() -> None:
    net, *_ = funded()
    monitor = watching(net)
    net.log.append([Append(TopicPartition(Topic.BLOCKS, 1), None, codec("BlockHeader").framing)])
    with pytest.raises(CrossShardCommunicationFailed, match="shard 1 offset"):
        monitor.report()
    with pytest.raises(CrossShardCommunicationFailed, match="shard 1 can't be monitored"):
        CommunicationMonitor(net.chain, net.log).watch(replace(net.tasks[1].committed, height=99))  # type: ignore[arg-type]
