"""The rules of a signed state root that need no trust file: its place among the heads, and whose signatures hold."""

from collections.abc import Sequence
from typing import Final

from pipeline.codec.types import MAX_SHARDS, Hash32
from pipeline.crypto import contexts
from pipeline.crypto.verifier import Verifier, VerifyJob
from pipeline.errors import VerificationFailed
from pipeline.ledger.checkpoints import Checkpoint, SignedStateRoot, StateRoot
from pipeline.ledger.genesis import SignerKey
from pipeline.tree.rfc6962 import root_from_inclusion

MAX_SIGNATURES: Final = 256
"""A hostile record must not buy unbounded work."""


def check_place(signed: SignedStateRoot, root: StateRoot, checkpoint: Checkpoint) -> None:
    """The root is a block's, and one of the heads of the checkpoint beside it. Raises `VerificationFailed`."""
    if checkpoint.round < 0 or root.height < 0:
        raise VerificationFailed(f"shard {root.shard} has no signed block in round {checkpoint.round}")
    if not 0 <= root.shard < signed.heads <= MAX_SHARDS:
        raise VerificationFailed(f"shard {root.shard} is not among {signed.heads} heads")
    if root_from_inclusion(root.shard, signed.heads, signed.state_root, signed.path) != checkpoint.heads_root:
        raise VerificationFailed(f"the root of shard {root.shard} is not part of round {checkpoint.round}")


def valid_signers(signed: SignedStateRoot, attestors: Sequence[SignerKey], threshold: int, verifier: Verifier) -> int:
    """How many of these attestors signed the checkpoint; counts no further than `threshold`."""
    listed = {key.key_id: key for key in attestors}
    valid: set[Hash32] = set()
    for signature in signed.signatures:
        key = listed.get(signature.signer)
        if key is None or key.suite != signature.suite or signature.signer in valid:
            continue
        job = VerifyJob(key.suite, key.public_key, signed.checkpoint, contexts.CHECKPOINT, signature.signature)
        if verifier.verify(job):
            valid.add(signature.signer)
        if len(valid) >= threshold:
            break
    return len(valid)
