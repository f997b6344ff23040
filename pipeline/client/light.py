"""The light client: from a signed root and a proof to a value or its absence, offline, trusting only the trust file."""

from dataclasses import dataclass

from pipeline.client.proof_file import StateProof
from pipeline.client.seen_rounds import SeenRounds
from pipeline.client.trust import SeenCheckpoint, Trust
from pipeline.codec.types import SLOTS, Hash32, ShardId
from pipeline.crypto.verifier import Verifier
from pipeline.errors import PoisonRecord, VerificationFailed
from pipeline.ledger.checkpoints import Checkpoint, SignedStateRoot, StateRoot, checkpoint_hash
from pipeline.ledger.signed_root import MAX_SIGNATURES, check_place, valid_signers
from pipeline.tree.keys import slot_of_key
from pipeline.tree.proofs import root_of


@dataclass(frozen=True, slots=True)
class VerifiedRoot:
    """A shard's head under a quorum that the trust file accepts."""

    state_root: StateRoot
    checkpoint: Checkpoint
    checkpoint_hash: Hash32


def verify_state_root(signed: SignedStateRoot, trust: Trust, verifier: Verifier) -> VerifiedRoot:
    """Check chain, assurance, place among the heads, and k distinct listed signers.

    Raises `VerificationFailed` with the first rule that does not hold, the cheap ones first.
    """
    try:
        checkpoint = Checkpoint.from_bytes(signed.checkpoint)
        root = StateRoot.from_bytes(signed.state_root)
    except PoisonRecord as error:
        raise VerificationFailed(f"not a signed state root: {error}") from None
    if checkpoint.chain_id != trust.chain_id:
        raise VerificationFailed(
            f"the root belongs to chain {checkpoint.chain_id.hex()[:16]}, the trust file to {trust.chain_id.hex()[:16]}"
        )
    if checkpoint.assurance < trust.assurance:
        raise VerificationFailed(
            f"round {checkpoint.round} was signed at assurance {checkpoint.assurance.name}, "
            f"the trust file demands {trust.assurance.name}"
        )
    check_place(signed, root, checkpoint)
    _check_quorum(signed, checkpoint.round, trust, verifier)
    return VerifiedRoot(root, checkpoint, checkpoint_hash(signed.checkpoint))


def _check_quorum(signed: SignedStateRoot, number: int, trust: Trust, verifier: Verifier) -> None:
    count = len(signed.signatures)
    if count > MAX_SIGNATURES:
        raise VerificationFailed(f"round {number} carries {count} signatures; {MAX_SIGNATURES} are allowed")
    valid = valid_signers(signed, trust.attestors, trust.threshold, verifier)
    if valid < trust.threshold:
        raise VerificationFailed(
            f"round {number} has valid signatures of {valid} attestors in the trust file; {trust.threshold} are needed"
        )


@dataclass(frozen=True, slots=True)
class VerifiedValue:
    """What was proved: the value of a key, or its absence (None), as of a round.

    `timestamp_ms` is the checkpoint's, `block_timestamp_ms` that of the shard's block; `age_ms` by the caller's clock.
    """

    key: bytes
    value: bytes | None
    root: VerifiedRoot
    age_ms: int

    @property
    def timestamp_ms(self) -> int:
        """When the round was signed, in ms since 1970."""
        return self.root.checkpoint.timestamp_ms

    @property
    def block_timestamp_ms(self) -> int:
        """The time of the shard's last block in the round, in ms since 1970."""
        return self.root.state_root.timestamp_ms


class LightClient:
    """Verifies proofs and remembers the newest round in `trust`, which the caller saves."""

    def __init__(self, trust: Trust, verifier: Verifier) -> None:
        """`trust` as loaded from its file."""
        trust.validate()
        self.trust = trust
        self._verifier = verifier
        self._last: tuple[SignedStateRoot, VerifiedRoot] | None = None  # many proofs come under one root
        self._seen = SeenRounds()

    def verify_root(self, signed: SignedStateRoot) -> VerifiedRoot:
        """Check a signed root, and that it contradicts neither the last checkpoint in `trust` nor one verified before.

        Before means: among the `MAX_ROUNDS` rounds that this client came to know last. Older rounds are fine for older
        proofs. Raises `VerificationFailed`: also for equivocation, which names both.
        """
        if self._last is not None and self._last[0] == signed:
            root = self._last[1]
        else:
            root = verify_state_root(signed, self.trust, self._verifier)
            self._last = (signed, root)
        number, last = root.checkpoint.round, self.trust.last_checkpoint
        self._seen.add(root.checkpoint, root.checkpoint_hash, last)
        if last is None or number > last.round:
            self.trust = self.trust.seen(SeenCheckpoint(number, root.checkpoint_hash))
        return root

    def verify(self, state_proof: StateProof, now_ms: int, max_age_ms: int | None = None) -> VerifiedValue:
        """The value that the proof shows.

        Raises `VerificationFailed`, also where the root is older than `max_age_ms`.
        """
        root = self.verify_root(state_proof.root)
        key = state_proof.proof.key
        try:
            slot = slot_of_key(key)
        except ValueError as error:
            raise VerificationFailed(f"a proof for something that is {error}") from None
        owner = ShardId(slot * self.trust.shards // SLOTS)
        if root.state_root.shard != owner:
            raise VerificationFailed(
                f"slot {slot} belongs to shard {owner}, the proof is under the root of shard {root.state_root.shard}"
            )
        if root_of(state_proof.proof) != root.state_root.state_root:
            raise VerificationFailed(
                f"the proof does not lead to the signed root of shard {owner} at block {root.state_root.height}"
            )
        age_ms = now_ms - root.checkpoint.timestamp_ms
        if max_age_ms is not None and age_ms > max_age_ms:
            raise VerificationFailed(
                f"round {root.checkpoint.round} is {age_ms} ms old; at most {max_age_ms} are allowed"
            )
        return VerifiedValue(key, state_proof.proof.value, root, age_ms)
