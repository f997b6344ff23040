"""A signer, and the guard that keeps it from ever signing twice.

A signature is never issued for two checkpoints of one round nor for two blocks of one (shard, height), whatever was
restored from whichever backup. Two things remember: the log, which holds own signatures, and a local store, which is
written and synced before the key is used. After a crash the body that may have been signed is used again byte for byte.
"""

from struct import Struct
from typing import Final, NamedTuple

from pipeline.codec.types import Hash32
from pipeline.crypto import contexts
from pipeline.crypto.addresses import key_id
from pipeline.crypto.signing_process import SigningProcess
from pipeline.crypto.suites import PrivateKey
from pipeline.crypto.verifier import Verifier, VerifyJob
from pipeline.errors import Fatal, PoisonRecord, Retryable, TaskDiverged
from pipeline.kv.port import KeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Checkpoint, CheckpointProposal, CheckpointSignature, checkpoint_hash
from pipeline.ledger.writers import signer_writer
from pipeline.log.port import EventLog, TransactionalWriter
from pipeline.sync.kept import check_directory
from pipeline.sync.round_book import CHECKPOINTS
from pipeline.sync.rounds import RoundPlan
from pipeline.sync.signed_heads import newest_state_roots

_SIGNED: Final = b"g/signed"
_NEXT_OFFSET: Final = b"g/next-offset"
_HEAD: Final = Struct(">q32s")
_OFFSET: Final = Struct(">Q")
_MOST_KEPT: Final = 64


class Signer:
    """A key that signs checkpoints, one at a time. A `SigningProcess` signs while its caller goes on."""

    def __init__(self, key: PrivateKey) -> None:
        """`key` is an attestor's."""
        self._key = key
        self._signature: bytes | None = None
        self._pending = False
        self.suite: Final = key.suite_id
        self.public_key: Final = key.public_key
        self.key_id: Final = key_id(key.suite_id, key.public_key)

    def begin(self, checkpoint: bytes) -> None:
        """Start to sign a checkpoint's datum. Only `SignerGuard` calls this. Raises `Retryable` while still busy."""
        if not isinstance(self._key, SigningProcess):
            self._signature = self._key.sign(checkpoint, contexts.CHECKPOINT)
            return
        if self._pending and self.poll() is None:
            raise Retryable("the signer is busy with a checkpoint that was given up")
        self._key.begin(checkpoint, contexts.CHECKPOINT)
        self._pending = True

    def poll(self) -> bytes | None:
        """The signature, once; None while it is being made. Raises `Retryable` where it must be begun again."""
        if isinstance(self._key, SigningProcess):
            self._pending, pending = False, self._pending
            assert pending, "nothing was begun"
            self._signature = self._key.poll()
            self._pending = self._signature is None
        signature, self._signature = self._signature, None
        return signature


class _Signed(NamedTuple):
    """The newest round that may have been signed; its proposal where it is known."""

    round: int
    checkpoint_hash: Hash32
    proposal: CheckpointProposal | None


class SignerGuard:
    """Lets a signer sign each round once. Create one anew after every fencing, then `recover`."""

    def __init__(self, chain: Chain, log: EventLog, kv: KeyValue, signer: Signer, verifier: Verifier) -> None:
        """`kv`: where the local memory is kept, under keys beginning with `g/`."""
        self._chain = chain
        self._log = log
        self._kv = kv
        self._verifier = verifier
        self.signer = signer
        self._last: _Signed | None = None
        self._next_offset = 0
        self._signing: Hash32 | None = None
        self._proposals: dict[Hash32, CheckpointProposal] = {}
        self._own: set[Hash32] = set()

    def recover(self) -> TransactionalWriter:
        """Fence older writers of this signer, then adopt what it ever signed. Returns the writer."""
        name = signer_writer(self._chain.chain_id, self.signer.key_id)
        writer = self._log.writer(name)  # first: what an older instance commits must be on the log before it is read
        try:
            check_directory(self._kv)  # an attestor's first write to its directory may be the guard's
            self._log.settle(CHECKPOINTS)  # the open transaction of another signer could hide own signatures
            self._read_local()
            self._read_log()
            self._adopt_state_roots()
            self._proposals.clear()
            self._own.clear()
        except BaseException:
            writer.close()
            raise
        return writer

    def _read_local(self) -> None:
        raw = self._kv.get(_SIGNED)
        if raw is not None:
            try:
                proposal = CheckpointProposal.from_record(raw)
                checkpoint = Checkpoint.from_bytes(proposal.checkpoint)
            except PoisonRecord as error:
                raise _damaged(str(error)) from None
            if checkpoint.chain_id != self._chain.chain_id:
                raise TaskDiverged("the signer's local memory belongs to another chain: give each chain a directory")
            self._last = _Signed(checkpoint.round, checkpoint_hash(proposal.checkpoint), proposal)
        offset = self._kv.get(_NEXT_OFFSET)
        if offset is not None and len(offset) != _OFFSET.size:
            raise _damaged(f"an offset of {len(offset)} bytes")
        self._next_offset = 0 if offset is None else _OFFSET.unpack(offset)[0]

    def _read_log(self) -> None:
        """Adopt own signatures. They stand in the order of rounds, so what is older than the newest is let go.

        Only an own signature that holds says what is old: anybody can make up proposals of rounds to come. Of proposals
        with one checkpoint the first is the true one: nobody can copy what does not stand there yet. A signature whose
        transaction was aborted binds like any other: it stood where anybody could read it.
        """
        most = _MOST_KEPT
        for record in self._log.read_uncommitted(CHECKPOINTS, self._next_offset):
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
        oldest = -1 if self._last is None else self._last.round - 1
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
        key = self.signer
        job = VerifyJob(key.suite, key.public_key, datum, contexts.CHECKPOINT, signature)
        return signer == key.key_id and self._verifier.verify(job)

    def _adopt(self, number: int, digest: Hash32) -> None:
        """A round that this key signed."""
        self._own.add(digest)
        last = self._last
        if last is not None and last.round == number and last.checkpoint_hash != digest:
            raise TaskDiverged(
                f"round {number}: this signer's key signed two checkpoints, {last.checkpoint_hash.hex()[:16]} and "
                f"{digest.hex()[:16]}; the key is used elsewhere, replace it"
            )
        if last is None or last.round < number:
            self._last = _Signed(number, digest, self._proposals.get(digest))

    def _adopt_state_roots(self) -> None:
        """Remember the rounds and blocks under own signatures that the local memory and `checkpoints` have lost."""
        lost: dict[bytes, bytes | None] = {}
        for shard in range(self._chain.genesis.partitions):
            key = _head_key(shard)
            known_height, known_hash = self._known_head(shard, key) or (-1, b"")
            height, block_hash = self._newest_own_head(shard, known_height)
            if height > known_height:
                lost[key] = _HEAD.pack(height, block_hash)
            elif height == known_height and block_hash != known_hash:
                raise _two_blocks(shard, height)
        if lost:
            self._kv.write(lost, sync=True)

    def _newest_own_head(self, shard: int, known_height: int) -> tuple[int, bytes]:
        """(height, hash) of the highest block of a shard under an own signature; (-1, b""): there is none.

        Not simply of the last record: whoever may write there could put an old one behind it. The local memory has all
        that was ever signed, so where it has a block nothing older is looked for.
        """
        highest, found = -1, b""
        for signed, checkpoint, root in newest_state_roots(self._log, shard):
            digest = checkpoint_hash(signed.checkpoint)
            if digest not in self._own:
                if not any(self._signed(signed.checkpoint, one.signer, one.signature) for one in signed.signatures):
                    continue
                self._adopt(checkpoint.round, digest)
            if root is None:
                continue
            if root.height == highest and root.block_hash != found:
                raise _two_blocks(shard, highest)
            if root.height > highest:
                highest, found = root.height, root.block_hash
            if root.height <= known_height:
                break
        return highest, found

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
        batch: dict[bytes, bytes | None] = {
            _SIGNED: plan.proposal.to_record(),
            _NEXT_OFFSET: _OFFSET.pack(next_offset),
        }
        for shard in after.advanced:
            head = after.shards[shard].head
            key = _head_key(shard)
            self._check_head(shard, key, head.height, head.block_hash, head.previous_height, head.previous_block_hash)
            batch[key] = _HEAD.pack(head.height, head.block_hash)
        self._kv.write(batch, sync=True)
        self._last = _Signed(after.round, after.checkpoint_hash, plan.proposal)

    def _check_head(
        self, shard: int, key: bytes, height: int, block_hash: bytes, previous_height: int, previous_hash: bytes
    ) -> None:
        known = self._known_head(shard, key)
        if known is None:
            return
        known_height, known_hash = known
        same = height == known_height and block_hash == known_hash
        follows = height > known_height and (
            previous_height > known_height or (previous_height == known_height and previous_hash == known_hash)
        )
        # A head that was signed in a round which another proposal won is older than `previous`; `open_proposal` saw it.
        if not same and not follows:
            raise TaskDiverged(
                f"shard {shard}: refused to sign block {height}, another history was signed up to {known_height}; "
                "audit the shard"
            )

    def _known_head(self, shard: int, key: bytes) -> tuple[int, bytes] | None:
        raw = self._kv.get(key)
        if raw is None:
            return None
        if len(raw) != _HEAD.size:
            raise _damaged(f"the head of shard {shard} has {len(raw)} bytes")
        height, block_hash = _HEAD.unpack(raw)
        return height, block_hash


def _round_of(proposal: CheckpointProposal) -> int:
    """The round; one before all rounds where it is of none."""
    try:
        return Checkpoint.from_bytes(proposal.checkpoint).round
    except PoisonRecord:
        return -2


def _head_key(shard: int) -> bytes:
    return b"g/head/" + shard.to_bytes(2, "big")


def _two_blocks(shard: int, height: int) -> TaskDiverged:
    return TaskDiverged(
        f"shard {shard}: this signer's key signed two blocks of height {height}; the key is used elsewhere, replace it"
    )


def _damaged(what: str) -> Fatal:
    return Fatal(f"the signer's local memory is damaged ({what}): restore its directory")
