"""Size of a proof, and the time to make and to verify one."""

import random
from dataclasses import dataclass
from time import perf_counter

from pipeline.codec.types import SLOTS, ShardId, StateKey
from pipeline.kv.memory import MemoryKeyValue
from pipeline.state.store import StateStore
from pipeline.tree.proofs import root_of

ACCOUNTS = 100_000
PROOFS = 500


@dataclass(frozen=True, slots=True)
class ProofFigures:
    """Bytes of key, value, page and siblings; microseconds a proof."""

    accounts: int
    mean_bytes: float
    prove_micros: float
    verify_micros: float


def run() -> ProofFigures:
    """Prove balances in a store of `ACCOUNTS` leaves and check them against its root."""
    source = random.Random(7)
    store = StateStore(MemoryKeyValue(), ShardId(0), range(SLOTS))
    keys = [StateKey(b"account/" + source.randbytes(32)) for _ in range(ACCOUNTS)]
    store.commit(store.view().prepare({key: key[8:] + bytes(9) for key in keys}), {})
    chosen = source.sample(keys, PROOFS)
    for key in chosen:
        store.prove(key)  # builds the slot's tree: a cost of the store, not of the proof
    started = perf_counter()
    proofs = [store.prove(key) for key in chosen]
    proved = perf_counter()
    roots = {root_of(proof) for proof in proofs}
    verified = perf_counter()
    assert roots == {store.state_root}, "a proof that does not verify"
    sizes = [len(p.key) + len(p.value or b"") + len(p.page) + len(p.siblings) + len(p.slot_siblings) for p in proofs]
    return ProofFigures(
        ACCOUNTS, sum(sizes) / PROOFS, (proved - started) / PROOFS * 1e6, (verified - proved) / PROOFS * 1e6
    )
