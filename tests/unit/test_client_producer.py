"""Producer and receipts over real shards."""

import time
from collections.abc import Sequence

import pytest
from sync_net import Net, address_of_key, key_of

from pipeline.client.producer import Publication, PublicationUnknown, Sender, TransactionFuture, TransactionProducer
from pipeline.client.receipts import ReceiptWatcher, ends_of
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.crypto import contexts
from pipeline.errors import ConfigError, InvalidTransaction, InvalidTransactionResult, OutcomeUnknown, Retryable
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.codes import Code
from pipeline.ledger.leaves import Account, account_key
from pipeline.ledger.packing import pack_transfers
from pipeline.ledger.receipts import TransactionReceipt, chunk_receipts, encode_receipt
from pipeline.ledger.transactions import CreateAsset, Freeze, Mint, SignedTransaction, TransactionBody, Transfer
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append, Delivered, Delivery


def make(net: Net) -> tuple[TransactionProducer, ReceiptWatcher]:
    watcher = ReceiptWatcher(net.log, net.chain.chain_id, range(net.chain.genesis.partitions))
    return TransactionProducer(net.log, net.chain, watcher, threads=1), watcher


def names_on(net: Net, shard: int, count: int) -> list[str]:
    names = (f"account-{number}" for number in range(1000))
    found = [name for name in names if net.chain.shard_map.owner_of(address_of_key(key_of(name))) == shard]
    return found[:count]


def fund(net: Net, producer: TransactionProducer, names: list[str]) -> Sender:
    treasury = Sender(key_of("treasury"))
    entries = pack_transfers([(address_of_key(key_of(name)), 1000) for name in names])
    future = producer.send(treasury, CreateAsset(b"UNIT"), Mint(net.asset, entries))
    net.run()
    assert producer.all_settled([future])
    assert future.result().code is Code.OK
    return treasury


def test_futures_resolve_and_settle_across_shards() -> None:
    net = Net(shards=2)
    producer, watcher = make(net)
    here, there = names_on(net, 0, 1)[0], names_on(net, 1, 1)[0]
    fund(net, producer, [here, there])
    sender = Sender(key_of(here))
    pay = Transfer(net.asset, pack_transfers([(address_of_key(key_of(there)), 5)]))
    futures = producer.publish(producer.sign([producer.build(sender, [pay]) for _ in range(3)]))
    assert not producer.all_settled(futures)
    assert futures[0].result() is None
    net.run(tasks=net.tasks[:1])
    watcher.poll()
    receipt = futures[0].result()
    assert receipt is not None
    assert receipt.code is Code.OK
    (use,) = receipt.channels
    assert use.destination == 1
    assert not futures[0].is_settled()
    assert watcher.unsettled(receipt) == [(0, use)]
    net.run()
    assert producer.all_settled(futures)
    assert [future.result().nonce for future in futures] == [0, 1, 2]
    assert watcher.receipt(0, 10**6) is None


def test_a_watcher_may_begin_at_the_end() -> None:
    net = Net(shards=2)
    producer, _ = make(net)
    here, there = names_on(net, 0, 1)[0], names_on(net, 1, 1)[0]
    fund(net, producer, [here, there])
    late = ReceiptWatcher(net.log, net.chain.chain_id, range(2), ends_of(net.log, range(2)))
    assert late.poll() == 0
    pay = Transfer(net.asset, pack_transfers([(address_of_key(key_of(there)), 5)]))
    future = TransactionProducer(net.log, net.chain, late, threads=1).send(Sender(key_of(here)), pay)
    net.run(tasks=net.tasks[:1])
    late.poll()
    assert future.result().code is Code.OK
    assert not future.is_settled()
    net.run()
    late.poll()
    assert future.is_settled()
    assert len(list(late.transactions())) == 1


def test_a_watcher_that_forgot_follows_what_is_published_then() -> None:
    net = Net(shards=2)
    producer, watcher = make(net)
    here, there = names_on(net, 0, 1)[0], names_on(net, 1, 1)[0]
    treasury = fund(net, producer, [here, there])
    sender, receiver = Sender(key_of(here)), address_of_key(key_of(there))
    pay = Transfer(net.asset, pack_transfers([(receiver, 5)]))
    producer.send(treasury, Freeze(net.asset, receiver, frozen=True))
    net.run()
    refunded = producer.send(sender, pay)
    net.run()
    assert producer.all_settled([refunded])
    (use,) = refunded.result().channels
    assert watcher.bundle(0, 1, use.sequence) is not None
    watcher.forget()
    assert (list(watcher.transactions()), watcher.attempts(refunded.tx_id)) == ([], [])
    assert watcher.bundle(0, 1, use.sequence) is None
    assert watcher.is_executed(0, use)
    later = producer.send(sender, pay)
    net.run(tasks=net.tasks[:1])
    watcher.poll()
    assert later.result().code is Code.OK
    assert not later.is_settled()
    net.run()
    assert producer.all_settled([later])
    assert watcher.receipt(0, refunded.offset) is None


def test_key_goes_out_once() -> None:
    net = Net(shards=1)
    producer, _ = make(net)
    fund(net, producer, ["alice"])
    sender = Sender(key_of("alice"))
    pay = Transfer(net.asset, pack_transfers([(bytes(32), 5)]))
    producer.publish(producer.sign([producer.build(sender, [pay]) for _ in range(2)]))
    keys = [SignedTransaction.from_record(record.value).public_key for record in net.read(Topic.TRANSACTIONS)]
    assert keys[1:] == [key_of("alice").public_key, None]
    known = Sender(key_of("alice"), Account(7, 0xFF, bytes(32)))
    assert (known.next_nonce, known.sends_key) == (7, False)


def test_resent_bytes_are_one_transaction() -> None:
    net = Net(shards=1)
    producer, watcher = make(net)
    fund(net, producer, ["alice"])
    pay = Transfer(net.asset, pack_transfers([(bytes(32), 5)]))
    signed = producer.sign([producer.build(Sender(key_of("alice")), [pay])])
    first, again = producer.publish(signed)[0], producer.publish(signed)[0]
    net.run()
    watcher.poll()
    assert first.offset != again.offset
    assert again.receipt().code is Code.DUPLICATE_NONCE
    assert again.result() == first.result() == first.receipt()
    assert [attempt.nonce_consumed for attempt in watcher.attempts(first.tx_id)] == [True, False]


def test_refunds_belong_to_settlement() -> None:
    net = Net(shards=2)
    producer, watcher = make(net)
    here, there = names_on(net, 0, 1)[0], names_on(net, 1, 1)[0]
    treasury = fund(net, producer, [here, there])
    producer.send(treasury, Freeze(net.asset, address_of_key(key_of(there)), True))
    net.run()
    pay = Transfer(net.asset, pack_transfers([(address_of_key(key_of(there)), 5)]))
    future = producer.send(Sender(key_of(here)), pay)
    net.run(tasks=net.tasks[:1])
    net.run(tasks=net.tasks[1:])
    watcher.poll()
    receipt = future.result()
    refused = watcher.bundle(0, 1, receipt.channels[0].sequence)
    assert [failure.code for failure in refused.failures] == [Code.FROZEN]
    assert watcher.unsettled(receipt) == [(1, refused.channels[0])]
    net.run()
    watcher.poll()
    assert future.is_settled()


def test_a_transaction_out_of_range_is_refused() -> None:
    net = Net(shards=1)
    producer, _ = make(net)
    sender = Sender(key_of("alice"))
    with pytest.raises(InvalidTransaction, match="can't be encoded"):
        producer.build(sender, [], gas_price=-1)
    assert sender.next_nonce == 0
    big = Transfer(net.asset, bytes(48 * 13_000))
    with pytest.raises(InvalidTransaction, match="fewer entries"):
        producer.sign([producer.build(sender, [big])])


def test_after_a_refusal_the_nonce_and_the_key_are_still_free() -> None:
    net = Net(shards=1)
    producer, watcher = make(net)
    fund(net, producer, ["alice"])
    sender = Sender(key_of("alice"))
    large = Transfer(net.asset, bytes(48) * 13_000)
    pay = Transfer(net.asset, pack_transfers([(sender.address, 1)]))
    with pytest.raises(InvalidTransaction, match="fewer entries"):
        producer.send(sender, large)
    with pytest.raises(InvalidTransaction, match="fewer entries"):
        producer.sign([producer.build(sender, operations) for operations in ([pay], [large], [pay])])
    assert (sender.next_nonce, sender.sends_key) == (0, True)
    future = producer.send(sender, pay)
    net.run()
    watcher.poll()
    assert future.receipt().code is Code.OK
    refused, later = producer.build(sender, [large]), producer.build(sender, [pay])
    with pytest.raises(InvalidTransaction):
        producer.sign([refused])
    assert sender.next_nonce == later.nonce + 1, "taken by one that was built later"


class Unconfirming(EmbeddedLog):
    """Takes records, but does not say so, as long as `silent`; refuses them for `refusal`."""

    silent = False
    refusal: Exception | None = None

    def append(self, appends: Sequence[Append]) -> list[int]:
        if self.refusal is not None:
            raise self.refusal
        offsets = super().append(appends)
        if self.silent:
            raise OutcomeUnknown("nobody answered")
        return offsets

    def begin_append(self, appends: Sequence[Append]) -> Delivery:
        found = Delivered(super().append(appends))
        return Unconfirmed() if self.silent else found


class Unconfirmed:
    def poll(self) -> list[int] | None:
        raise OutcomeUnknown("nobody answered")


def test_what_the_log_did_not_confirm_is_published_again_not_built_anew() -> None:
    log = Unconfirming(MemoryKeyValue())
    net = Net(shards=1, log=log)
    producer, watcher = make(net)
    fund(net, producer, ["alice"])
    sender, to = Sender(key_of("alice")), address_of_key(key_of("bob"))
    pay = Transfer(net.asset, pack_transfers([(to, 5)]))
    log.silent = True
    with pytest.raises(PublicationUnknown, match="nobody answered; publish the same records again") as first:
        producer.send(sender, pay)
    with pytest.raises(PublicationUnknown) as second:
        producer.begin_publish(producer.sign([producer.build(sender, [pay])])).poll()
    log.silent = False
    futures = [producer.publish(unknown.value.batch)[0] for unknown in (first, second)]
    net.run()
    watcher.poll()
    assert [future.result().code for future in futures] == [Code.OK, Code.OK]
    assert [future.receipt().code for future in futures] == [Code.DUPLICATE_NONCE] * 2
    assert sender.next_nonce == 2


@pytest.mark.parametrize("refusal", [ConfigError("no right"), Retryable("not now")])
def test_a_send_that_the_log_refused_uses_no_nonce(refusal: Exception) -> None:
    log = Unconfirming(MemoryKeyValue())
    net = Net(shards=1, log=log)
    producer, watcher = make(net)
    fund(net, producer, ["alice"])
    sender = Sender(key_of("alice"))
    pay = Transfer(net.asset, pack_transfers([(sender.address, 5)]))
    log.refusal = refusal
    with pytest.raises(type(refusal)):
        producer.send(sender, pay)
    log.refusal = None
    future = producer.send(sender, pay)
    net.run()
    watcher.poll()
    assert future.receipt().code is Code.OK


def test_foreign_and_repeated_chunks() -> None:
    net = Net(shards=2)
    receipt = TransactionReceipt(0, 7, b"t" * 32, b"s" * 32, 0, Code.OK, True, 1, 0)
    (chunk,) = chunk_receipts(net.chain.chain_id, 0, 3, [encode_receipt(receipt)])
    target = TopicPartition(Topic.RECEIPTS, 0)
    _, watcher = make(net)
    net.log.append([Append(target, None, chunk.to_record())] * 2)
    assert watcher.poll() == 1
    assert watcher.receipt(0, 7) == receipt
    assert list(watcher.transactions()) == [receipt]
    foreign = [
        b"junk",
        next(chunk_receipts(bytes(32), 0, 4, [encode_receipt(receipt)])).to_record(),
        next(chunk_receipts(net.chain.chain_id, 1, 4, [encode_receipt(receipt)])).to_record(),
        next(chunk_receipts(net.chain.chain_id, 0, 4, [encode_receipt(receipt)[:20]])).to_record(),
        next(chunk_receipts(net.chain.chain_id, 0, 4, [b"\x00" + b"\xff" * 20])).to_record(),
        next(chunk_receipts(net.chain.chain_id, 0, 4, [encode_receipt(receipt._replace(partition=1))])).to_record(),
    ]
    for record in foreign:
        log = EmbeddedLog(MemoryKeyValue())
        log.create_topic(Topic.RECEIPTS, 2)
        log.append([Append(target, None, record)])
        with pytest.raises(InvalidTransactionResult, match="partition 0 offset 0"):
            ReceiptWatcher(log, net.chain.chain_id, [0]).poll()


def test_many_receipts_are_quick() -> None:
    net = Net(shards=1)
    target = TopicPartition(Topic.RECEIPTS, 0)
    for height in range(25):
        receipts = [
            encode_receipt(TransactionReceipt(0, height * 1000 + i, b"%032d" % i, b"s" * 32, 0, Code.OK, True, 1, 0))
            for i in range(1000)
        ]
        chunks = chunk_receipts(net.chain.chain_id, 0, height, receipts)
        net.log.append([Append(target, None, chunk.to_record()) for chunk in chunks])
    watcher = ReceiptWatcher(net.log, net.chain.chain_id, [0])
    started = time.perf_counter()
    assert watcher.poll() == 25_000
    assert time.perf_counter() - started < 20, "time grew faster than receipts"
    assert watcher.has_receipt(0, 24_999)


def test_published_bytes_carry_a_valid_signature() -> None:
    net = Net(shards=1)
    producer, _ = make(net)
    key = key_of("alice")
    producer.send(Sender(key), Transfer(net.asset, pack_transfers([(bytes(32), 1)])))
    signed = SignedTransaction.from_record(net.read(Topic.TRANSACTIONS)[0].value)
    assert signed.signature == key.sign(signed.body, contexts.TRANSACTION)
    assert TransactionBody.from_bytes(signed.body).sender == address_of_key(key)
    assert net.stores[0].view().get(account_key(address_of_key(key))) is None


def test_a_publication_under_way_becomes_the_same_futures() -> None:
    net = Net(shards=2)
    producer, _ = make(net)
    here = names_on(net, 0, 1)[0]
    fund(net, producer, [here])
    pay = Transfer(net.asset, pack_transfers([(address_of_key(key_of(here)), 1)]))
    batch = producer.sign([producer.build(Sender(key_of(here)), [pay])])
    offsets: list[list[int] | None] = [None, None, [7]]

    class Slow:
        def poll(self) -> list[int] | None:
            return offsets.pop(0)

    under_way = Publication(producer._watcher, batch, Slow())
    assert under_way.poll() is None
    assert under_way.poll() is None
    assert under_way.poll() == [TransactionFuture(producer._watcher, batch[0], 7)]
    futures = producer.begin_publish(batch).poll()
    assert futures is not None
    net.run()
    assert producer.all_settled(futures)
    assert futures[0].result().code is Code.OK
