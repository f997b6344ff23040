"""The one-signer synchronizer against real shard tasks."""

from collections.abc import Iterator

import pytest
from sync_net import Net, key_of

from pipeline.client.light import LightClient
from pipeline.client.subscriber import StateRootSubscriber
from pipeline.client.trust import Trust
from pipeline.crypto.port import PrivateKey
from pipeline.crypto.signing_process import SigningProcess
from pipeline.crypto.suites import STANDARD_SUITES, SuiteId
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import Retryable
from pipeline.ledger.checkpoints import Assurance, heads_root
from pipeline.shards.progress import Idle, Progress
from pipeline.sync.life import SyncState
from pipeline.sync.signer import Signer
from pipeline.testing.suite import TEST_SUITES


def test_rounds_cover_all_blocks() -> None:
    net = Net(shards=3)
    sync = net.synchronizer()
    net.fund({"alice": 1000, "bob": 1000, "carol": 5})
    net.run(sync)
    for step in range(5):
        net.pay("alice", {"bob": 1 + step, "carol": 2})
        net.pay("bob", {"alice": 3})
        net.run(sync)
    assert sync.error is None
    assert sync.state is SyncState.RUNNING
    ledger = sync.follower.ledger
    for task in net.tasks:
        assert task.error is None
        assert ledger.shards[task.shard].head.height == task.committed.height
        assert ledger.shards[task.shard].head.state_root == net.stores[task.shard].state_root
    rounds = net.rounds()
    assert [checkpoint.round for checkpoint, _ in rounds] == list(range(len(rounds)))
    assert heads_root(ledger.heads) == rounds[-1][0].heads_root


def test_a_round_lingers_then_closes() -> None:
    net = Net(shards=1)
    sync = net.synchronizer()
    net.run(sync, ms=5)
    rounds = len(net.rounds())
    net.fund({"alice": 5})
    net.run()
    while isinstance(outcome := sync.step(net.now_ms), Progress):
        pass
    assert outcome == Idle(net.now_ms + 1)
    assert len(net.rounds()) == rounds
    while isinstance(sync.step(net.now_ms + 1), Progress):
        pass
    assert len(net.rounds()) == rounds + 1


def test_without_signer_or_blocks_nothing_happens() -> None:
    net = Net(shards=1)
    sync = net.synchronizer()
    net.run(sync, tasks=[])
    assert net.rounds() == []
    assert sync.state is SyncState.RUNNING
    sync.close()
    unlisted = net.synchronizer(signer="mallory")
    net.run(unlisted)
    assert [checkpoint.round for checkpoint, _ in net.rounds()] == [0]
    assert net.signatures() == []


@pytest.fixture(scope="module")
def slow_key() -> Iterator[SigningProcess]:
    process = SigningProcess(STANDARD_SUITES.require(SuiteId.SLH_DSA_SHA2_128S).generate(None))
    yield process
    process.close()


def accepted(net: Net) -> int:
    client = LightClient(Trust.of(net.chain, Assurance.HEADERS), InlineVerifier(TEST_SUITES))
    subscriber = StateRootSubscriber(net.log, client, range(2))
    found = len(subscriber.catch_up())
    assert subscriber.refused == []
    return found


def test_an_ml_dsa_attestor_convinces_a_light_client() -> None:
    key = STANDARD_SUITES.require(SuiteId.ML_DSA_65).generate(bytes(32))
    net = Net(shards=2, attestors=(key,))
    net.fund({"alice": 5, "bob": 6})
    net.run(net.synchronizer(signer=key))
    assert accepted(net) >= 2


def test_a_slow_signature_is_made_beside_the_synchronizer(slow_key: SigningProcess) -> None:
    net = Net(shards=1, attestors=(slow_key,))
    net.fund({"alice": 5})
    sync = net.synchronizer(signer=slow_key)
    waited = 0
    net.run()
    while not net.rounds():
        outcome = sync.step(net.now_ms)
        waited += isinstance(outcome, Idle)
        net.now_ms += 1
        net.log.wait(10)
    assert waited > 3
    assert sync.error is None
    assert accepted(net) == 1


def test_a_signature_that_was_given_up_is_not_mistaken_for_the_next(slow_key: SigningProcess) -> None:
    signer = Signer(slow_key)
    signer.begin(b"given up")
    with pytest.raises(Retryable):
        signer.begin(b"wanted")
    while True:
        try:
            signer.begin(b"wanted")
            break
        except Retryable:
            continue
    while (signature := signer.poll()) is None:
        continue
    suite, context = STANDARD_SUITES.require(signer.suite), b"hauptbuch/checkpoint/v1"
    assert suite.verify(signer.public_key, b"wanted", context, signature)


def test_a_signer_names_its_key() -> None:
    key: PrivateKey = key_of("attestor")
    signer = Signer(key)
    signer.begin(b"x")
    assert signer.poll() == key.sign(b"x", b"hauptbuch/checkpoint/v1")
    assert signer.poll() is None
