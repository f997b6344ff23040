"""The guard that keeps a signer from ever signing twice.

A signature is never issued for two checkpoints of one round nor for two blocks of one (shard, height), whatever was
restored from whichever backup. Two things remember: the log, which holds own signatures, and a local store, which is
written and synced before the key is used. After a crash the body that may have been signed is used again byte for byte.
"""

from pipeline.codec.types import Hash32
from pipeline.crypto.verifier import Verifier
from pipeline.errors import TaskDiverged
from pipeline.kv.port import KeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import CheckpointProposal, CheckpointSignature, StateRoot
from pipeline.ledger.writers import signer_writer
from pipeline.log.port import EventLog, TransactionalWriter
from pipeline.sync.kept import check_directory
from pipeline.sync.own_signatures import OwnSignatures
from pipeline.sync.round_book import CHECKPOINTS
from pipeline.sync.rounds import RoundPlan
from pipeline.sync.signer import Signer
from pipeline.sync.signer_memory import SignedBlock, SignedRound, SignerMemory


class SignerGuard:
    """Lets a signer sign each round once. Create one anew after every fencing, then `recover`."""

    def __init__(self, chain: Chain, log: EventLog, kv: KeyValue, signer: Signer, verifier: Verifier) -> None:
        """`kv`: where the local memory is kept, under keys beginning with `g/`."""
        self._chain = chain
        self._log = log
        self._kv = kv
        self._memory = SignerMemory(kv, chain)
        self._verifier = verifier
        self.signer = signer
        self._last: SignedRound | None = None
        self._signing: Hash32 | None = None

    def recover(self) -> TransactionalWriter:
        """Fence older writers of this signer, then adopt what it ever signed.

        Returns the writer. Only what it commits is signed: another one commits without the fence.
        """
        name = signer_writer(self._chain.chain_id, self.signer.key_id)
        writer = self._log.writer(name)  # first: what an older instance commits must be on the log before it is read
        try:
            check_directory(self._kv)  # an attestor's first write to its directory may be the guard's
            self._log.settle(CHECKPOINTS)  # the open transaction of another signer could hide own signatures
            own = OwnSignatures(self.signer, self._verifier, self._memory.last())
            own.read(self._log.read_uncommitted(CHECKPOINTS, self._memory.next_offset()))
            self._adopt_state_roots(own)
            self._last = own.last
        except BaseException:
            writer.close()
            raise
        return writer

    def _adopt_state_roots(self, own: OwnSignatures) -> None:
        """Remember the rounds and blocks under own signatures that the local memory and `checkpoints` have lost."""
        lost: dict[int, SignedBlock] = {}
        for shard in range(self._chain.genesis.partitions):
            head = own.newer_head(self._log, shard, self._memory.head(shard))
            if head is not None:
                lost[shard] = head
        if lost:
            self._memory.remember_heads(lost)

    def open_proposal(self, signed_round: int, signed_hash: Hash32) -> CheckpointProposal | None:
        """What was perhaps signed for the round after `signed_round`, to be used byte for byte; None: nothing was.

        Raises `TaskDiverged` where the log's rounds contradict what was signed: they were cut or replaced.
        """
        last = self._last
        if last is None or last.round < signed_round:
            return None
        if last.round == signed_round:
            if last.checkpoint_hash != signed_hash:
                raise TaskDiverged(
                    f"round {signed_round}: this signer signed {last.checkpoint_hash.hex()[:16]}, the log has a quorum "
                    f"for {signed_hash.hex()[:16]}; audit the chain"
                )
            return None
        if last.round > signed_round + 1:
            raise TaskDiverged(
                f"this signer signed round {last.round}, but checkpoints end at round {signed_round}: the topics were "
                "restored from an old backup, restore the newer one"
            )
        return last.proposal

    def sign(self, plan: RoundPlan, next_offset: int) -> CheckpointSignature | None:
        """Remember durably, then sign; None while the signature is being made: call again with the same plan.

        `next_offset`: up to where `checkpoints` was read. Raises `TaskDiverged` rather than sign a second checkpoint of
        a round or a second block of a height, `Retryable` where the same call must be made again.
        """
        after = plan.after
        if self._signing != after.checkpoint_hash:
            self._remember(plan, next_offset)
            self.signer.begin(after.checkpoint)
        self._signing = None  # if polling fails, begin again
        signature = self.signer.poll()
        if signature is None:
            self._signing = after.checkpoint_hash
            return None
        return CheckpointSignature(after.round, after.checkpoint_hash, self.signer.key_id, self.signer.suite, signature)

    def _remember(self, plan: RoundPlan, next_offset: int) -> None:
        after, last = plan.after, self._last
        conflict = last is not None and (
            last.round > after.round or (last.round == after.round and last.checkpoint_hash != after.checkpoint_hash)
        )
        if conflict:
            assert last is not None, "there is no conflict without it"
            raise TaskDiverged(f"refused to sign round {after.round}: round {last.round} is signed already")
        heads = {shard: after.shards[shard].head for shard in after.advanced}
        for shard, head in heads.items():
            self._check_head(shard, head)
        blocks = {shard: SignedBlock(head.height, head.block_hash) for shard, head in heads.items()}
        self._memory.remember(plan.proposal, next_offset, blocks)
        self._last = SignedRound(after.round, after.checkpoint_hash, plan.proposal)

    def _check_head(self, shard: int, head: StateRoot) -> None:
        known = self._memory.head(shard)
        if known is None or known == SignedBlock(head.height, head.block_hash):
            return
        follows = head.height > known.height and (
            head.previous_height > known.height
            or (head.previous_height == known.height and head.previous_block_hash == known.block_hash)
        )
        # A head that was signed in a round which another proposal won is older than `previous`; `open_proposal` saw it.
        if not follows:
            raise TaskDiverged(
                f"shard {shard}: refused to sign block {head.height}, another history was signed up to {known.height}; "
                "audit the shard"
            )
