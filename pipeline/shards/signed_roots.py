"""The newest state roots on `state-roots` that a quorum signed; whatever else stands there is passed over.

Whoever has the right to write that topic could put anything on it: a record counts by its signatures only.
"""

from typing import Final, NamedTuple

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.crypto.verifier import Verifier
from pipeline.errors import PoisonRecord, VerificationFailed
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Checkpoint, SignedStateRoot, StateRoot
from pipeline.ledger.control_state import ControlState, admit
from pipeline.ledger.genesis import SignerKey
from pipeline.ledger.signed_root import MAX_SIGNATURES, check_place, valid_signers
from pipeline.log.port import EventLog

_CONTROL: Final = TopicPartition(Topic.CONTROL, 0)
_CONTROL_PAGE: Final = 256
_PAGE: Final = 64
_PAGE_BYTES: Final = 8 << 20


class SignedHead(NamedTuple):
    """A shard's head under a quorum, and the record that shows it."""

    root: StateRoot
    checkpoint: Checkpoint
    signed: SignedStateRoot


class _Electorate(NamedTuple):
    attestors: tuple[SignerKey, ...]
    threshold: int


class _Electorates:
    """Who was ever to sign: as genesis and valid control records name them, in their sequence."""

    def __init__(self, chain: Chain, log: EventLog, verifier: Verifier) -> None:
        """Nothing read: genesis alone will do for most chains."""
        self._chain = chain
        self._log = log
        self._verifier = verifier
        self._state = ControlState.start(chain)
        self._named = [(0, _Electorate(self._state.attestors, self._state.attestor_threshold))]
        self._next = 0

    def through(self, sequence: int) -> list[_Electorate]:
        """Those named up to control record `sequence`, the newest first.

        A round is signed by those in force at the round before, whose sequence the root does not tell: it is at most
        the root's own.
        """
        if self._state.sequence < sequence:
            self._read(sequence)
        return [electorate for since, electorate in reversed(self._named) if since <= sequence]

    def _read(self, sequence: int) -> None:
        self._log.end_offset(_CONTROL)  # from here on a read hides nothing that was published before
        while records := self._log.read(_CONTROL, self._next, _CONTROL_PAGE, _PAGE_BYTES):
            for record in records:
                self._admit(record)
                self._next = record.offset + 1
                if self._state.sequence >= sequence:
                    return  # a later record may be of a protocol that this version does not know

    def _admit(self, record: LogRecord) -> None:
        try:
            self._state = admit(self._chain, self._state, record, self._verifier).state
        except PoisonRecord:
            return  # genesis, or a dead letter of shard 0
        named = _Electorate(self._state.attestors, self._state.attestor_threshold)
        if named != self._named[-1][1]:
            self._named.append((self._state.sequence, named))


class SignedRoots:
    """Looks back from the end of `state-roots`, and at no record twice: ask the same one again and again."""

    def __init__(self, chain: Chain, log: EventLog, verifier: Verifier) -> None:
        """Reads nothing yet. Belongs to the thread that drives `verifier`."""
        self._chain = chain
        self._log = log
        self._verifier = verifier
        self._electorates = _Electorates(chain, log, verifier)
        self._known: dict[int, SignedHead] = {}
        self._next: dict[int, int] = {}

    def newest(self, shard: int) -> StateRoot | None:
        """The newest signed state root of a shard; None before the first. Raises as the log."""
        head = self.newest_head(shard)
        return None if head is None else head.root

    def newest_head(self, shard: int) -> SignedHead | None:
        """The same with its round and its record."""
        source = TopicPartition(Topic.STATE_ROOTS, shard)
        end, first = self._log.end_offset(source), self._next.get(shard, 0)
        found, seen = None, first
        while found is None and end > first:
            start = max(first, end - _PAGE)
            records = self._between(source, start, end)
            if records:
                # An open transaction may hide what stands behind the last record, but nothing before it.
                seen = max(seen, records[-1].offset + 1)
            found = next((head for record in reversed(records) if (head := self._checked(shard, record))), None)
            end = start
        known = self._known.get(shard)
        if found is not None and (known is None or found.root.height >= known.root.height):
            self._known[shard] = found
        self._next[shard] = seen
        return self._known.get(shard)

    def last(self, shard: int, records: int) -> list[SignedHead]:
        """The signed ones among so many last records of a shard, in order. Raises as the log."""
        source = TopicPartition(Topic.STATE_ROOTS, shard)
        end = self._log.end_offset(source)
        found = [self._checked(shard, record) for record in self._between(source, max(0, end - records), end)]
        return [head for head in found if head is not None]

    def _between(self, source: TopicPartition, start: int, end: int) -> list[LogRecord]:
        found: list[LogRecord] = []
        while start < end and (records := self._log.read(source, start, end - start, _PAGE_BYTES)):
            found += [record for record in records if record.offset < end]
            start = records[-1].offset + 1
        return found

    def _checked(self, shard: int, record: LogRecord) -> SignedHead | None:
        try:
            signed = SignedStateRoot.from_record(record.value)
            root, checkpoint = StateRoot.from_bytes(signed.state_root), Checkpoint.from_bytes(signed.checkpoint)
            if root.shard != shard or checkpoint.chain_id != self._chain.chain_id:
                return None
            check_place(signed, root, checkpoint)
        except (PoisonRecord, VerificationFailed):
            return None
        holds = len(signed.signatures) <= MAX_SIGNATURES and any(
            valid_signers(signed, attestors, threshold, self._verifier) >= threshold
            for attestors, threshold in self._electorates.through(checkpoint.control_sequence)
        )
        return SignedHead(root, checkpoint, signed) if holds else None
