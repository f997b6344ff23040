"""State and its proofs: second preimages, moved levels, other people's keys and rounds, a store made richer."""

from dataclasses import replace
from functools import cache
from hashlib import sha256

import pytest
from lying import LIAR, NAMES, Lie, address
from sync_net import Net, key_of, signer_key

from pipeline.client.light import LightClient, verify_state_root
from pipeline.client.proof_file import StateProof, prove
from pipeline.client.trust import SeenCheckpoint, Trust
from pipeline.codec.types import Hash32, Slot, StateKey
from pipeline.crypto import contexts
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import Fatal, InvalidShard, VerificationFailed
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.checkpoints import Assurance, Checkpoint, StateRoot, heads_root
from pipeline.ledger.control import KeySignature
from pipeline.ledger.leaves import Balance, account_key, balance_key
from pipeline.shards.validator import ShardValidator
from pipeline.state import records
from pipeline.state.store import StateStore
from pipeline.testing.suite import TEST_SUITES
from pipeline.tree.keys import leaf_key_of, slot_of_key
from pipeline.tree.proofs import Proof, root_of
from pipeline.tree.rfc6962 import inclusion_path, leaf_hash, merkle_root, root_from_inclusion
from pipeline.tree.shard_tree import ShardTree
from pipeline.tree.slot_tree import SlotTree

VERIFIER = InlineVerifier(TEST_SUITES)


# Second preimages


def test_an_inner_node_is_no_leaf_of_a_list() -> None:
    """RFC 6962: without the prefixes, two hashes side by side would be a leaf of a shorter list with the same root."""
    leaves = [b"first", b"second", b"third", b"fourth"]
    root = merkle_root(leaves)
    first, second = (leaf_hash(leaves[at]) + leaf_hash(leaves[at + 1]) for at in (0, 2))
    path = inclusion_path(leaves, 0)
    assert root_from_inclusion(0, 4, leaves[0], path) == root
    for prefix in (b"", b"\x00", b"\x01"):
        assert root_from_inclusion(0, 2, prefix + first, path[1:]) != root
        assert merkle_root([prefix + first, prefix + second]) != root
    assert merkle_root([*leaves, leaves[3]]) != root, "nor does repeating the last leaf keep the root"


@cache
def crowded() -> tuple[ShardTree, SlotTree, list[StateKey]]:
    """200 leaves in one slot: pages below several levels of nodes."""
    keys = [StateKey(b"account/" + bytes([0x12, 0x30]) + number.to_bytes(30, "big")) for number in range(200)]
    tree = SlotTree(b"".join(sorted(leaf_key_of(key) + sha256(b"v").digest() for key in keys)))
    slot = slot_of_key(keys[0])
    return ShardTree.of_owned([Slot(number) for number in range(4096)], {slot: tree.root}), tree, keys


def crowded_proof(key: StateKey, value: bytes | None) -> Proof:
    shard, tree, _ = crowded()
    page, siblings = tree.prove(leaf_key_of(key))
    return Proof(key, value, page, siblings, shard.siblings(slot_of_key(key)))


def refused(proof: Proof) -> bool:
    try:
        return root_of(proof) != crowded()[0].root
    except VerificationFailed:
        return True


def test_a_node_of_a_slot_tree_is_no_page() -> None:
    """A page of one leaf and a node are 64 bytes each: only the first byte that is hashed tells them apart."""
    _, _, keys = crowded()
    honest = crowded_proof(keys[5], b"v")
    assert not refused(honest)
    depth = len(honest.siblings) // 32
    assert depth >= 2
    node = sha256(b"\x02" + honest.page).digest()
    for level in range(depth):
        sibling = honest.siblings[32 * level : 32 * level + 32]
        rest = honest.siblings[32 * level + 32 :]
        for pair in (node + sibling, sibling + node):
            assert refused(replace(honest, page=pair, siblings=rest, value=None))
        path = int.from_bytes(leaf_key_of(keys[5])) >> (256 - depth)
        node = sha256(b"\x03" + (sibling + node if path >> level & 1 else node + sibling)).digest()


def test_levels_can_not_move_between_the_trees() -> None:
    """Both trees hash alike, so their heights are fixed: 12 above, the rest below."""
    _, _, keys = crowded()
    honest = crowded_proof(keys[5], b"v")
    everything = honest.siblings + honest.slot_siblings
    for cut in range(0, len(everything) + 1, 32):
        moved = replace(honest, siblings=everything[:cut], slot_siblings=everything[cut:])
        assert refused(moved) == (cut != len(honest.siblings))
    assert refused(replace(honest, slot_siblings=honest.slot_siblings + bytes(32))), "nor is a level added at the top"
    absent = StateKey(b"account/" + bytes([0x12, 0x30]) + b"\xff" * 30)
    honest_absence = crowded_proof(absent, None)
    assert not refused(honest_absence)
    assert refused(replace(honest_absence, page=b""))
    assert refused(replace(honest_absence, page=b"", siblings=b""))


def test_a_proof_of_one_key_serves_no_other() -> None:
    _, _, keys = crowded()
    honest = crowded_proof(keys[5], b"v")
    others = [keys[6], StateKey(b"key/" + keys[5][8:]), StateKey(b"data/" + keys[5][8:] + b"/x")]
    assert all(refused(replace(honest, key=other)) for other in others)
    assert all(refused(replace(honest, key=other, value=None)) for other in others[1:] if other in keys)


# Signed roots


@cache
def signed_net() -> Net:
    net = Net(shards=2)
    sync = net.synchronizer()
    net.fund(dict.fromkeys(NAMES, 100))
    net.run(sync)
    for name in NAMES:
        net.pay(name, dict.fromkeys(NAMES, 1))
    net.run(sync)
    assert sync.error is None
    return net


def trust_of(net: Net) -> Trust:
    return Trust.of(net.chain, Assurance.HEADERS)


def proof_of(net: Net, name: str) -> StateProof:
    key = balance_key(address(name), net.asset)
    shard = net.chain.shard_map.owner_of(address(name))
    return prove(net.stores[shard], key, net.state_roots(shard)[-1])


def test_a_signature_for_another_purpose_signs_no_root() -> None:
    net = signed_net()
    honest = net.state_roots(0)[-1]
    assert verify_state_root(honest, trust_of(net), VERIFIER).state_root.shard == 0
    key = key_of("attestor")
    for context in (contexts.TRANSACTION, contexts.CONTROL, contexts.ROTATION):
        signature = KeySignature(signer_key("attestor").key_id, key.suite_id, key.sign(honest.checkpoint, context))
        with pytest.raises(VerificationFailed, match="1 are needed"):
            verify_state_root(replace(honest, signatures=(signature,)), trust_of(net), VERIFIER)


def test_signatures_of_one_round_do_not_cover_another() -> None:
    net = signed_net()
    older, newer = net.state_roots(0)[0], net.state_roots(0)[-1]
    assert older.checkpoint != newer.checkpoint
    for mixed in (
        replace(newer, signatures=older.signatures),
        replace(newer, checkpoint=older.checkpoint),
        replace(newer, state_root=older.state_root),
        replace(newer, path=older.path, heads=older.heads, checkpoint=older.checkpoint),
    ):
        with pytest.raises(VerificationFailed):
            verify_state_root(mixed, trust_of(net), VERIFIER)


def test_a_head_that_the_prover_invented_is_in_no_round() -> None:
    """Its own tree with a fatter balance, a matching path, and the signatures of the true round."""
    net = signed_net()
    honest = net.state_roots(0)[-1]
    fat = replace(StateRoot.from_bytes(honest.state_root), state_root=Hash32(bytes(32)))
    others = StateRoot.from_bytes(net.state_roots(1)[-1].state_root)
    checkpoint = replace(Checkpoint.from_bytes(honest.checkpoint), heads_root=heads_root([fat, others]))
    leaves = [fat.to_bytes(), others.to_bytes()]
    forged = replace(
        honest, state_root=fat.to_bytes(), checkpoint=checkpoint.to_bytes(), path=inclusion_path(leaves, 0)
    )
    with pytest.raises(VerificationFailed, match="1 are needed"):
        verify_state_root(forged, trust_of(net), VERIFIER)
    with pytest.raises(VerificationFailed, match="not part of round"):
        verify_state_root(replace(forged, checkpoint=honest.checkpoint), trust_of(net), VERIFIER)


def test_yesterdays_balance_is_told_by_its_age_and_round() -> None:
    """An old proof is true of its time: the client says which, and refuses what is older than it may be."""
    net = signed_net()
    client = LightClient(trust_of(net), VERIFIER)
    proof = proof_of(net, NAMES[0])
    seen = client.verify(proof, net.now_ms)
    assert seen.timestamp_ms <= net.now_ms
    with pytest.raises(VerificationFailed, match="ms old"):
        client.verify(proof, net.now_ms + 86_400_000, max_age_ms=60_000)
    assert client.trust.last_checkpoint == SeenCheckpoint(seen.root.checkpoint.round, seen.root.checkpoint_hash)


def test_attestors_of_another_trust_file_convince_nobody() -> None:
    net = signed_net()
    proof = proof_of(net, NAMES[0])
    swapped = replace(trust_of(net), attestors=(signer_key("mallory"),))
    with pytest.raises(VerificationFailed, match="0 attestors"):
        LightClient(swapped, VERIFIER).verify(proof, net.now_ms)
    other_chain = Trust.of(Net(shards=1).chain, Assurance.HEADERS)
    with pytest.raises(VerificationFailed, match="belongs to chain"):
        LightClient(other_chain, VERIFIER).verify(proof, net.now_ms)


def test_fewer_shards_in_a_trust_file_prove_no_absence_elsewhere() -> None:
    """Which shard must answer for a key follows from the trust file, so it can't be asked of another."""
    net = signed_net()
    name = next(name for name in NAMES if net.chain.shard_map.owner_of(address(name)) == 1)
    key = account_key(address(name))
    elsewhere = StateProof(net.stores[0].prove(StateKey(account_key(address(_on(net, 0))))), net.state_roots(0)[-1])
    forged = replace(elsewhere, proof=replace(elsewhere.proof, key=key, value=None))
    with pytest.raises(VerificationFailed, match="belongs to shard 1"):
        LightClient(trust_of(net), VERIFIER).verify(forged, net.now_ms)
    with pytest.raises(VerificationFailed):
        LightClient(replace(trust_of(net), shards=1), VERIFIER).verify(forged, net.now_ms)


def _on(net: Net, shard: int) -> str:
    return next(name for name in NAMES if net.chain.shard_map.owner_of(address(name)) == shard)


# Stores


def enriched(lie: Lie, *, with_root: bool) -> StateStore:
    """The liar's store with a fatter balance; the slot's root mended too, or not."""
    store = lie.net.stores[LIAR]
    key = balance_key(address(lie.here[0]), lie.net.asset)
    slot, leaf = slot_of_key(key), leaf_key_of(key)
    fat = Balance(10**9).to_bytes()
    assert fat is not None
    kv = store._kv
    batch: dict[bytes, bytes | None] = {records.place_of_leaf(slot, leaf): records.pack_leaf(key, fat)}
    if with_root:
        leaves = {leaf_key_of(name): value for name, value in store.scan_slot(slot)} | {leaf: fat}
        tree = SlotTree(b"".join(name + sha256(value).digest() for name, value in sorted(leaves.items())))
        batch[records.place_of_root(slot)] = tree.root
    copy = MemoryKeyValue()
    copy.write({**dict(kv.scan(b"", b"\xff\xff", 1 << 30)), **batch}, sync=True)
    return lie.net.store_for(LIAR, copy)


def test_a_balance_raised_in_the_store_is_damage() -> None:
    lie = Lie()
    store = enriched(lie, with_root=False)
    with pytest.raises(Fatal, match="leaves of slot"):
        store.prove(balance_key(address(lie.here[0]), lie.net.asset))


def test_a_store_made_richer_with_its_roots_contradicts_the_log() -> None:
    lie = Lie()
    store = enriched(lie, with_root=True)
    with pytest.raises(InvalidShard, match="state root is not the block's"):
        ShardValidator(lie.net.chain, lie.net.log, lie.net.verifier).validate(store)
