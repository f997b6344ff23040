"""A ledger that was opened with its trust file alone."""

from dataclasses import replace

import pytest
from sync_net import Net, address_of_key, key_of, make_chain

from pipeline.client.cluster import LedgerClient
from pipeline.client.light import LightClient
from pipeline.client.producer import Sender
from pipeline.client.trust import Trust
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ChainId
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import ConfigError, InvalidTransaction, VerificationFailed
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.checkpoints import Assurance
from pipeline.ledger.codes import Code
from pipeline.ledger.packing import pack_transfers
from pipeline.ledger.transactions import Transfer
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.testing.suite import TEST_SUITES


def trust_of(net: Net) -> Trust:
    return Trust.of(net.chain, Assurance.HEADERS)


def played() -> Net:
    net = Net(shards=2)
    net.fund(dict.fromkeys(["alice", "bob"], 1000))
    net.run(net.synchronizer())
    return net


def test_the_chain_is_the_one_of_the_trust_file() -> None:
    net = Net(shards=2)
    assert LedgerClient(trust_of(net), net.log).chain == net.chain


def test_another_genesis_is_refused() -> None:
    net = Net(shards=2)
    other = replace(trust_of(net), chain_id=ChainId(bytes(32)))
    with pytest.raises(VerificationFailed, match="trust file's chain is 0000000000000000; ask whom you trust"):
        _ = LedgerClient(other, net.log).chain
    with pytest.raises(VerificationFailed, match="the chain has 2 shards, the trust file says 3"):
        _ = LedgerClient(replace(trust_of(net), shards=3), net.log).chain


def test_a_control_topic_without_genesis_is_refused() -> None:
    trust, log = Trust.of(make_chain(), Assurance.HEADERS), EmbeddedLog(MemoryKeyValue())
    with pytest.raises(ConfigError, match="no topics of this chain"):
        _ = LedgerClient(trust, log).chain
    log.create_topic(Topic.CONTROL, 1)
    with pytest.raises(VerificationFailed, match="control does not begin with a genesis"):
        _ = LedgerClient(trust, log).chain
    log.append([Append(TopicPartition(Topic.CONTROL, 0), None, b"junk")])
    with pytest.raises(VerificationFailed, match="control does not begin with a genesis"):
        _ = LedgerClient(trust, log).chain


def test_a_producer_publishes_kept_bytes_again_after_a_restart_and_knows_the_result() -> None:
    net = played()
    client = LedgerClient(trust_of(net), net.log)
    first = client.producer()
    pay = Transfer(net.asset, pack_transfers([(address_of_key(key_of("bob")), 5)]))
    (signed,) = first.sign([first.build(Sender(key_of("alice")), [pay])])
    kept, ends = signed.record, client.receipt_ends()
    first.publish([signed])
    net.run()

    for producer, code in ((client.producer(ends), Code.OK), (client.producer(), Code.DUPLICATE_NONCE)):
        again = producer.restore(kept)
        assert again == signed
        (future,) = producer.publish([again])
        net.run()
        assert client.wait_until(lambda producer=producer, future=future: producer.all_settled([future]), 1000)
        assert future.result().code is code
        assert future.receipt().code is Code.DUPLICATE_NONCE


def test_only_a_transaction_of_the_chain_can_be_restored() -> None:
    net = played()
    producer = LedgerClient(trust_of(net), net.log).producer()
    (signed,) = producer.sign([producer.build(Sender(key_of("alice")), [])])
    with pytest.raises(InvalidTransaction, match="no signed transaction"):
        producer.restore(signed.record[:-1])
    elsewhere = Net(shards=1)
    with pytest.raises(InvalidTransaction, match="of another chain"):
        LedgerClient(trust_of(elsewhere), elsewhere.log).producer().restore(signed.record)


def test_waiting_ends() -> None:
    net = Net(shards=1)
    client = LedgerClient(trust_of(net), net.log)
    assert not client.wait_until(lambda: False, 1)
    assert client.wait_until(lambda: True)


def test_a_subscriber_is_opened_the_same_way_and_reads_state_roots_alone() -> None:
    net = played()
    light = LightClient(trust_of(net), InlineVerifier(TEST_SUITES))
    with LedgerClient(trust_of(net), net.log) as client:
        subscriber = client.subscriber(light)
        roots = subscriber.catch_up()
        assert {root.state_root.shard for root in roots} == {0, 1}
        assert set(subscriber.next_offsets) == set(range(net.chain.genesis.partitions))
        assert "chain" not in vars(client), "who may read state roots need not be let in anywhere else"
    with pytest.raises(ConfigError, match="no topics of this chain"):
        LedgerClient(trust_of(net), EmbeddedLog(MemoryKeyValue())).subscriber(light)
