"""Light client, proof files, trust files, subscriber: honest ones pass, every altered one is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sync_net import Net, address_of_key, key_of, signer_key

from pipeline.client.light import LightClient, verify_state_root
from pipeline.client.proof_file import StateProof, prove
from pipeline.client.seen_rounds import MAX_ROUNDS, SeenRounds
from pipeline.client.subscriber import StateRootSubscriber
from pipeline.client.trust import SeenCheckpoint, Trust, load_trust, save_trust
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Hash32
from pipeline.crypto import contexts
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import ConfigError, VerificationFailed
from pipeline.ledger.checkpoints import Assurance, Checkpoint, SignedStateRoot, StateRoot
from pipeline.ledger.control import KeySignature
from pipeline.ledger.leaves import Balance, balance_key
from pipeline.log.port import Append
from pipeline.testing.suite import TEST_SUITES


class World:
    """A small chain with signed roots, made once."""

    def __init__(self) -> None:
        self.net = Net(shards=3)
        self.sync = self.net.synchronizer()
        self.names = [f"account-{number}" for number in range(40)]
        self.net.fund(dict.fromkeys(self.names, 1000))
        self.net.run(self.sync)
        self.net.pay(self.names[0], dict.fromkeys(self.names[1:], 7))
        self.net.run(self.sync)
        assert self.sync.error is None
        self.trust = Trust.of(self.net.chain, Assurance.HEADERS)

    def client(self) -> LightClient:
        return LightClient(self.trust, InlineVerifier(TEST_SUITES))

    def proof(self, name: str) -> StateProof:
        address = address_of_key(key_of(name))
        shard = self.net.chain.shard_map.owner_of(address)
        root = self.net.state_roots(shard)[-1]
        return prove(self.net.stores[shard], balance_key(address, self.net.asset), root)


WORLD = World()
VERIFIER = InlineVerifier(TEST_SUITES)


def test_values_and_absence_verify() -> None:
    client = WORLD.client()
    for name in WORLD.names[1:]:
        value = client.verify(StateProof.from_bytes(WORLD.proof(name).to_bytes()), WORLD.net.now_ms)
        assert Balance.from_bytes(value.value).amount == 1007
        assert value.timestamp_ms <= WORLD.net.now_ms
        assert value.block_timestamp_ms <= value.timestamp_ms
        assert value.age_ms == WORLD.net.now_ms - value.timestamp_ms
    assert client.verify(WORLD.proof("nobody"), WORLD.net.now_ms).value is None
    assert client.trust.last_checkpoint is not None


def test_max_age() -> None:
    proof, client = WORLD.proof("nobody"), WORLD.client()
    signed_ms = client.verify(proof, WORLD.net.now_ms).timestamp_ms
    assert client.verify(proof, signed_ms + 50, max_age_ms=50).age_ms == 50
    with pytest.raises(VerificationFailed, match="51 ms old"):
        client.verify(proof, signed_ms + 51, max_age_ms=50)


def test_a_root_of_a_shard_that_does_not_own_the_key_proves_nothing() -> None:
    address = address_of_key(key_of(WORLD.names[1]))
    owner = WORLD.net.chain.shard_map.owner_of(address)
    honest = WORLD.proof(WORLD.names[1])
    other = replace(honest, root=WORLD.net.state_roots((owner + 1) % 3)[-1])
    with pytest.raises(VerificationFailed, match="belongs to shard"):
        WORLD.client().verify(other, 0)
    with pytest.raises(VerificationFailed, match="something that is not a state key"):
        WORLD.client().verify(replace(honest, proof=replace(honest.proof, key=b"x")), 0)
    older = replace(honest, root=WORLD.net.state_roots(owner)[0])
    with pytest.raises(VerificationFailed, match="does not lead"):
        WORLD.client().verify(older, 0)


def test_a_store_ahead_of_the_root_is_not_proved() -> None:
    with pytest.raises(VerificationFailed, match="not at block"):
        prove(WORLD.net.stores[0], balance_key(bytes(32), WORLD.net.asset), WORLD.net.state_roots(0)[0])


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    raw = bytearray(WORLD.proof(WORLD.names[3]).to_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(VerificationFailed):
        WORLD.client().verify(StateProof.from_bytes(bytes(raw)), 0)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_junk_is_no_proof(junk: bytes) -> None:
    with pytest.raises(VerificationFailed):
        StateProof.from_bytes(junk)


def test_a_huge_file_is_no_proof() -> None:
    with pytest.raises(VerificationFailed, match="not a proof file: over 1048576 bytes"):
        StateProof.from_bytes(bytes(2**20 + 1))


def root() -> SignedStateRoot:
    return WORLD.net.state_roots(1)[-1]


def resigned(signed: SignedStateRoot, checkpoint: Checkpoint, *names: str) -> SignedStateRoot:
    datum = checkpoint.to_bytes()
    signatures = tuple(
        KeySignature(signer_key(name).key_id, 0xFF, key_of(name).sign(datum, contexts.CHECKPOINT)) for name in names
    )
    return replace(signed, checkpoint=datum, signatures=signatures)


def test_rules_of_a_signed_root() -> None:
    signed, trust = root(), WORLD.trust
    checkpoint = Checkpoint.from_bytes(signed.checkpoint)
    good = verify_state_root(signed, trust, VERIFIER)
    assert good.state_root.shard == 1
    cases = [
        (replace(trust, chain_id=bytes(32)), signed, "belongs to chain"),
        (replace(trust, assurance=Assurance.EXECUTION), signed, "demands EXECUTION"),
        (trust, replace(signed, signatures=()), "signatures of 0"),
        (trust, resigned(signed, checkpoint, "mallory"), "signatures of 0"),
        (replace(trust, attestors=(signer_key("mallory"),)), signed, "signatures of 0"),
        (trust, replace(signed, signatures=signed.signatures * 300), "256 are allowed"),
        (trust, replace(signed, heads=2), "not part|path is too"),
        (trust, replace(signed, heads=10**9), "not among"),
        (trust, replace(signed, heads=1), "not among"),
        (trust, replace(signed, path=signed.path[:-1]), "path is too short"),
        (trust, replace(signed, path=(*signed.path, bytes(32))), "path is too long"),
        (trust, replace(signed, path=tuple(bytes(32) for _ in signed.path)), "not part"),
        (trust, replace(signed, checkpoint=b""), "not a signed"),
        (trust, replace(signed, state_root=b"x"), "not a signed"),
        (trust, replace(signed, state_root=StateRoot(-1, 1).to_bytes()), "not among"),
        (trust, replace(signed, state_root=StateRoot(1).to_bytes()), "no signed block"),
        (trust, resigned(signed, replace(checkpoint, round=checkpoint.round + 1), "mallory"), "signatures of 0"),
    ]
    for held, presented, complaint in cases:
        with pytest.raises(VerificationFailed, match=complaint):
            verify_state_root(presented, held, VERIFIER)


def test_a_quorum_needs_distinct_signers() -> None:
    two = (signer_key("attestor"), signer_key("second"))
    trust = replace(WORLD.trust, attestors=two, threshold=2)
    signed = root()
    checkpoint = Checkpoint.from_bytes(signed.checkpoint)
    for names in (("attestor",), ("attestor", "attestor"), ("attestor", "mallory")):
        with pytest.raises(VerificationFailed, match="2 are needed"):
            verify_state_root(resigned(signed, checkpoint, *names), trust, VERIFIER)
    both = resigned(signed, checkpoint, "second", "mallory", "attestor")
    assert verify_state_root(both, trust, VERIFIER).checkpoint == checkpoint


def test_equivocation_and_rollback() -> None:
    client = WORLD.client()
    roots = WORLD.net.state_roots(1)
    newest, older = client.verify_root(roots[-1]), client.verify_root(roots[0])
    assert older.checkpoint.round < newest.checkpoint.round
    assert client.trust.last_checkpoint == SeenCheckpoint(newest.checkpoint.round, newest.checkpoint_hash)
    lie = resigned(roots[-1], replace(newest.checkpoint, timestamp_ms=1), "attestor")
    with pytest.raises(VerificationFailed, match=f"equivocation: round {newest.checkpoint.round} was signed as"):
        client.verify_root(lie)
    next_round = replace(newest.checkpoint, round=newest.checkpoint.round + 1, previous_hash=bytes(32))
    with pytest.raises(VerificationFailed, match=r"equivocation: .* continues"):
        client.verify_root(resigned(roots[-1], next_round, "attestor"))


def every_round(net: Net) -> list[SignedStateRoot]:
    """A root under each round's checkpoint, in order."""
    roots = [root for shard in range(3) for root in net.state_roots(shard)]
    by_round = {Checkpoint.from_bytes(root.checkpoint).round: root for root in roots}
    return [by_round[number] for number in range(len(by_round))]


def test_no_verified_round_has_two_checkpoints() -> None:
    """Whichever round it is, and whichever of the two came first."""
    signed = every_round(WORLD.net)
    assert len(signed) > 2
    for number, root in enumerate(signed[:-2]):
        client = WORLD.client()
        for other in signed:
            client.verify_root(other)
        honest = Checkpoint.from_bytes(root.checkpoint)
        lie = resigned(root, replace(honest, timestamp_ms=honest.timestamp_ms + 1), "attestor")
        with pytest.raises(VerificationFailed, match=f"equivocation: round {number} was signed as"):
            client.verify_root(lie)
        assert client.verify_root(root).checkpoint == honest, "what was refused is not remembered"
        liar = WORLD.client()
        liar.verify_root(lie)
        with pytest.raises(VerificationFailed, match=f"equivocation: round {number} was signed as"):
            liar.verify_root(root)


def test_a_round_continues_the_one_before_it() -> None:
    signed = every_round(WORLD.net)
    for first, second in ((0, 1), (1, 0)):  # the newest round is known, and neither of these is next to it
        client = WORLD.client()
        client.verify_root(
            resigned(signed[-1], replace(Checkpoint.from_bytes(signed[-1].checkpoint), round=99), "attestor")
        )
        lie = resigned(signed[0], replace(Checkpoint.from_bytes(signed[0].checkpoint), timestamp_ms=1), "attestor")
        pair = (lie, signed[1])
        client.verify_root(pair[first])
        with pytest.raises(VerificationFailed, match=r"equivocation: round 1 continues .* but round 0 was signed as"):
            client.verify_root(pair[second])


def test_the_round_that_was_verified_first_is_forgotten_first() -> None:
    seen, checkpoint = SeenRounds(), Checkpoint.from_bytes(WORLD.net.state_roots(0)[0].checkpoint)
    for number in range(MAX_ROUNDS):
        seen.add(replace(checkpoint, round=3 * number), Hash32(bytes(32)), None)
    for number in (0, 3 * MAX_ROUNDS - 3):
        with pytest.raises(VerificationFailed, match=f"equivocation: round {number} was signed as"):
            seen.add(replace(checkpoint, round=number), Hash32(bytes([1] * 32)), None)
    seen.add(replace(checkpoint, round=3 * MAX_ROUNDS), Hash32(bytes(32)), None)
    seen.add(replace(checkpoint, round=0), Hash32(bytes([1] * 32)), None)


def test_subscriber_yields_verified_roots_only() -> None:
    net = Net(shards=2)
    sync = net.synchronizer()
    net.fund({"alice": 10, "bob": 10})
    net.run(sync)
    client = LightClient(Trust.of(net.chain, Assurance.HEADERS), InlineVerifier(TEST_SUITES))
    subscriber = StateRootSubscriber(net.log, client, range(2))
    first = subscriber.poll()
    assert {item.state_root.shard for item in first} == {0, 1}
    assert subscriber.poll() == []
    signed = net.state_roots(0)[-1]
    target = TopicPartition(Topic.STATE_ROOTS, 0)
    forged = resigned(signed, replace(Checkpoint.from_bytes(signed.checkpoint), round=10**6), "mallory")
    records = [b"junk", None, forged.to_record(), signed.to_record(), net.state_roots(1)[-1].to_record()]
    offsets = net.log.append([Append(target, None, record) for record in records])
    assert subscriber.poll() == []
    assert [item.offset for item in subscriber.refused] == [offsets[0], offsets[1], offsets[2], offsets[4]]
    assert all(f"offset {item.offset}" in str(item.error) for item in subscriber.refused)
    net.pay("alice", {"bob": 1})
    net.run(sync)
    assert subscriber.poll()
    late = StateRootSubscriber(net.log, client, [0], {0: offsets[-1] + 1})
    assert all(item.checkpoint.round > first[0].checkpoint.round for item in late.poll())


def test_trust_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    trust = WORLD.trust.seen(SeenCheckpoint(7, bytes(range(32))))
    save_trust(path, WORLD.trust)
    assert load_trust(path) == WORLD.trust
    save_trust(path, trust)
    assert load_trust(path) == trust
    assert {item.name for item in tmp_path.iterdir()} == {"trust.json", ".trust.json.lock"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 1', '"format": 2'),
        ('"threshold": 1', '"threshold": 2'),
        ('"threshold": 1', '"threshold": 0'),
        ('"threshold": 1', '"threshold": true'),
        ('"shards": 3', '"shards": 0'),
        ('"shards": 3', '"shards": "3"'),
        ('"HEADERS"', '"NOTHING"'),
        ('"chain_id": "', '"chain_id": "zz'),
        ('"chain_id": "', '"chain_id": "00'),
        ('"attestors": [', '"attestors": 5, "x": ['),
        ('"last_checkpoint": null', '"last_checkpoint": {"round": 1}'),
        ("{", "[" * 100_000 + "{"),
        ("{", ""),
    ],
)
def test_bad_trust_files(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "trust.json"
    text = WORLD.trust.to_json()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=r"trust\.json can't be used") as caught:
        load_trust(path)
    assert "\n" not in str(caught.value)


def test_trust_file_of_one_attestor_twice() -> None:
    double = replace(WORLD.trust, attestors=WORLD.trust.attestors * 2)
    with pytest.raises(ConfigError, match="listed twice"):
        double.validate()


def test_unreadable_trust_files(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    with pytest.raises(ConfigError, match="can't be read"):
        load_trust(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_trust(path)
    path.write_bytes(b" " * (16 * 2**20 + 1))
    with pytest.raises(ConfigError, match="too large"):
        load_trust(path)
    with pytest.raises(ConfigError, match="can't be written"):
        save_trust(tmp_path / "missing" / "trust.json", WORLD.trust)
