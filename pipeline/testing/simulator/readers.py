"""Who reads: a subscriber that follows the signed roots all along, and light clients that ask for values at the end."""

from collections.abc import Mapping
from functools import cache

from pipeline.client.light import LightClient, VerifiedRoot
from pipeline.client.proof_file import StateProof, prove
from pipeline.client.subscriber import StateRootSubscriber
from pipeline.client.trust import Trust
from pipeline.codec.types import StateKey
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import VerificationFailed
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance, SignedStateRoot
from pipeline.ledger.leaves import account_key
from pipeline.log.port import EventLog
from pipeline.state.store import StateStore
from pipeline.testing.suite import TEST_SUITES
from pipeline.testing.world import Actor
from pipeline.tree.keys import slot_of_key
from pipeline.tree.proofs import Proof, root_of


class Subscriber:
    """Knows the attestors of genesis and no others; roots of later ones it refuses."""

    def __init__(self, chain: Chain) -> None:
        """Nothing read yet."""
        self._client = LightClient(Trust.of(chain, Assurance.HEADERS), InlineVerifier(TEST_SUITES))
        self._next = dict.fromkeys(range(chain.genesis.partitions), 0)
        self.seen: dict[tuple[int, int], VerifiedRoot] = {}
        """(shard, round) -> what was verified."""

    def poll(self, log: EventLog) -> None:
        """Read on. Asserts that nothing is told differently a second time."""
        subscriber = StateRootSubscriber(log, self._client, self._next, self._next)
        for root in subscriber.catch_up():
            known = self.seen.setdefault((root.state_root.shard, root.checkpoint.round), root)
            assert known == root, f"a subscriber verified two roots: {known} and {root}"
        self._next = subscriber.next_offsets
        lies = [refused.error for refused in subscriber.refused if "equivocation" in str(refused.error)]
        assert not lies, f"a subscriber saw {lies[0]}"


def ask(
    chain: Chain, store: StateStore, signed: SignedStateRoot, leaves: Mapping[bytes, bytes], trust: Trust, number: int
) -> None:
    """Values and absence of some keys of a shard, by proofs as a client gets them, against the model's leaves."""
    client = LightClient(trust, InlineVerifier(TEST_SUITES))
    keys = sorted(leaves)
    present = [StateKey(keys[at % len(keys)]) for at in (number, 7 * number, 31 * number)] if keys else []
    absent = [key for key in _nobodies() if _owner(chain, key) == store.shard and key not in leaves]
    for key in [*present, *absent[:1]]:
        proof = StateProof.from_bytes(prove(store, key, signed).to_bytes())
        told = client.verify(proof, now_ms=0)
        assert told.value == leaves.get(key), f"shard {store.shard}: a light client got another value of {key.hex()}"


def ask_the_wrong_shard(chain: Chain, store: StateStore, signed: SignedStateRoot, trust: Trust) -> None:
    """Nobody's absence can be proved by a shard that would not hold the account anyway."""
    elsewhere = [key for key in _nobodies() if _owner(chain, key) != store.shard]
    if not elsewhere:
        return
    forged = Proof(elsewhere[0], None, b"", b"", store.shard_tree.siblings(slot_of_key(elsewhere[0])))
    assert root_of(forged) != store.state_root, f"shard {store.shard}: absence is proved of what it does not own"
    try:
        LightClient(trust, InlineVerifier(TEST_SUITES)).verify(StateProof(forged, signed), now_ms=0)
    except VerificationFailed:
        return
    raise AssertionError(f"shard {store.shard}: a light client believed in the absence of what it does not own")


@cache
def _nobodies() -> tuple[StateKey, ...]:
    """Accounts of people who were never here."""
    return tuple(account_key(Actor.of(f"nobody {number}").address) for number in range(12))


def _owner(chain: Chain, key: StateKey) -> int:
    return chain.shard_map.owners[slot_of_key(key)]
