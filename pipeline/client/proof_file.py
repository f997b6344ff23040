"""A portable proof: a state key, its value or absence, and the signed root that this follows from.

Two files in one: the tree's proof leads to a shard's root, the `SignedStateRoot` puts that root under a quorum.
"""

from dataclasses import dataclass

from pipeline.codec.avro import codec
from pipeline.codec.types import StateKey
from pipeline.errors import PoisonRecord, VerificationFailed
from pipeline.ledger.checkpoints import SignedStateRoot, StateRoot
from pipeline.ledger.genesis import MAX_PROOF_BYTES
from pipeline.state.store import StateStore
from pipeline.tree.proofs import Proof

__all__ = ["MAX_PROOF_BYTES", "StateProof", "prove"]


@dataclass(frozen=True, slots=True)
class StateProof:
    """Presence or absence of `proof.key` under `root`. Nothing about it is checked yet."""

    proof: Proof
    root: SignedStateRoot

    def to_bytes(self) -> bytes:
        """The framed record: the file's content."""
        c = codec("StateProof")
        fields = {name: getattr(self.proof, name) for name in Proof.__slots__}
        return c.frame(c.encode({**fields, "signed_state_root": self.root.to_bytes()}))

    @classmethod
    def from_bytes(cls, raw: bytes) -> "StateProof":
        """Decode. Raises `VerificationFailed` for anything that is no proof file."""
        if len(raw) > MAX_PROOF_BYTES:
            raise VerificationFailed(f"not a proof file: over {MAX_PROOF_BYTES} bytes")
        try:
            c = codec("StateProof")
            value = c.decode(c.unframe(raw))
            root = SignedStateRoot.from_bytes(value.pop("signed_state_root"))
        except PoisonRecord as error:
            raise VerificationFailed(f"not a proof file: {error}") from None
        return cls(Proof(**value), root)


def prove(store: StateStore, key: StateKey, root: SignedStateRoot) -> StateProof:
    """The proof of one key from a store that stands exactly at the signed root.

    Raises `VerificationFailed` where it does not: the store is ahead, blocks are not signed yet.
    """
    signed = StateRoot.from_bytes(root.state_root)
    if store.state_root != signed.state_root:
        raise VerificationFailed(
            f"shard {signed.shard}: the store is not at block {signed.height}, the last one signed; try again shortly"
        )
    return StateProof(store.prove(key), root)
