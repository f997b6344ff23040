"""What the log remembers of a key: the rounds and blocks under its signatures."""

from collections.abc import Iterable
from typing import Final

from pipeline.codec.topics import LogRecord
from pipeline.codec.types import Hash32
from pipeline.crypto import contexts
from pipeline.crypto.verifier import Verifier, VerifyJob
from pipeline.errors import PoisonRecord, TaskDiverged
from pipeline.ledger.checkpoints import Checkpoint, CheckpointProposal, CheckpointSignature, checkpoint_hash
from pipeline.log.port import EventLog
from pipeline.sync.signed_heads import newest_state_roots
from pipeline.sync.signer import Signer
from pipeline.sync.signer_memory import SignedBlock, SignedRound

_MOST_KEPT: Final = 64
MOST_DIGESTS: Final = 4_096
"""As many as the state roots of a shard that are looked through."""


class OwnSignatures:
    """Found anew after every fencing. All of it raises `TaskDiverged` where the key signed two things of one number."""

    def __init__(self, signer: Signer, verifier: Verifier, last: SignedRound | None) -> None:
        """`last`: the newest round that is known already."""
        self._signer = signer
        self._verifier = verifier
        self.last = last
        self._proposals: dict[Hash32, CheckpointProposal] = {}
        self._digests: dict[Hash32, None] = {}
        """The newest checkpoints that are known to be under an own signature."""

    def read(self, records: Iterable[LogRecord]) -> None:
        """Adopt own signatures of `checkpoints`. They stand in the order of rounds: what is older than the newest goes.

        Only an own signature that holds says what is old: anybody can make up proposals of rounds to come. Of proposals
        with one checkpoint the first is the true one: nobody can copy what does not stand there yet. A signature whose
        transaction was aborted binds like any other: it stood where anybody could read it.
        """
        most = _MOST_KEPT
        for record in records:
            try:
                proposal = CheckpointProposal.from_record(record.value)
                self._proposals.setdefault(checkpoint_hash(proposal.checkpoint), proposal)
            except PoisonRecord:
                self._adopt_record(record.value)
            if len(self._proposals) > most:
                self._proposals = self._still_of_use()
                most = 2 * len(self._proposals) + _MOST_KEPT  # each is looked at a few times, however many stay

    def _still_of_use(self) -> dict[Hash32, CheckpointProposal]:
        """Proposals of no round before the one that precedes the newest own signature's."""
        oldest = -1 if self.last is None else self.last.round - 1
        return {key: item for key, item in self._proposals.items() if _round_of(item) >= oldest}

    def _adopt_record(self, value: bytes | None) -> None:
        try:
            signature = CheckpointSignature.from_record(value)
        except PoisonRecord:
            return
        proposal = self._proposals.get(signature.checkpoint_hash)
        if proposal is None or not self._signed(proposal.checkpoint, signature.signer, signature.signature):
            return
        if Checkpoint.from_bytes(proposal.checkpoint).round == signature.round:
            # Else the signature does not cover its own number: somebody copied it under another one.
            self._adopt(signature.round, signature.checkpoint_hash)

    def _signed(self, datum: bytes, signer: Hash32, signature: bytes) -> bool:
        """Whether this key signed a checkpoint. No name of a suite is believed: a key has one."""
        key = self._signer
        job = VerifyJob(key.suite, key.public_key, datum, contexts.CHECKPOINT, signature)
        return signer == key.key_id and self._verifier.verify(job)

    def _adopt(self, number: int, digest: Hash32) -> None:
        """A round that this key signed."""
        self._digests[digest] = None
        if len(self._digests) > MOST_DIGESTS:
            del self._digests[next(iter(self._digests))]
        last = self.last
        if last is not None and last.round == number and last.checkpoint_hash != digest:
            raise TaskDiverged(
                f"round {number}: this signer's key signed two checkpoints, {last.checkpoint_hash.hex()[:16]} and "
                f"{digest.hex()[:16]}; the key is used elsewhere, replace it"
            )
        if last is None or last.round < number:
            self.last = SignedRound(number, digest, self._proposals.get(digest))

    def newer_head(self, log: EventLog, shard: int, known: SignedBlock | None) -> SignedBlock | None:
        """The highest block of a shard under an own signature on `state-roots`, where it is higher than `known`.

        Not simply of the last record: whoever may write there could put an old one behind it. The local memory has all
        that was ever signed, so where it has a block nothing older is looked for.
        """
        known_height = -1 if known is None else known.height
        found: SignedBlock | None = None
        for signed, checkpoint, root in newest_state_roots(log, shard):
            digest = checkpoint_hash(signed.checkpoint)
            if digest not in self._digests:
                if not any(self._signed(signed.checkpoint, one.signer, one.signature) for one in signed.signatures):
                    continue
                self._adopt(checkpoint.round, digest)
            if root is None:
                continue
            for other in (found, known):
                if other is not None and root.height == other.height and root.block_hash != other.block_hash:
                    raise TaskDiverged(
                        f"shard {shard}: this signer's key signed two blocks of height {root.height}; the key is used "
                        "elsewhere, replace it"
                    )
            if found is None or root.height > found.height:
                found = SignedBlock(root.height, root.block_hash)
            if root.height <= known_height:
                break
        return found if found is not None and found.height > known_height else None


def _round_of(proposal: CheckpointProposal) -> int:
    """The round; one before all rounds where it is of none."""
    try:
        return Checkpoint.from_bytes(proposal.checkpoint).round
    except PoisonRecord:
        return -2
