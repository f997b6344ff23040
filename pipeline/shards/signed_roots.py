"""The newest state roots on `state-roots` that a quorum signed; whatever else stands there is passed over.

Whoever has the right to write that topic could put anything on it: a record counts by its signatures only.
"""

from contextlib import suppress
from typing import Final, NamedTuple

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.crypto.verifier import Verifier
from pipeline.errors import PoisonRecord, TaskDiverged, VerificationFailed
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


class _Quorum(NamedTuple):
    head: SignedHead
    named_at: int
    """The control record that named its signers; 0: genesis."""


class _Electorate(NamedTuple):
    since: int
    """The control record that named it; 0: genesis."""
    attestors: tuple[SignerKey, ...]
    threshold: int


class _Electorates:
    """Who was ever to sign: as genesis and valid control records name them, in their sequence."""

    def __init__(self, chain: Chain, log: EventLog, verifier: Verifier) -> None:
        """Nothing read yet."""
        self._chain = chain
        self._log = log
        self._verifier = verifier
        self._state = ControlState.start(chain)
        self._named = [_Electorate(0, self._state.attestors, self._state.attestor_threshold)]
        self._next = 0
        self._was_at_end = False

    @property
    def active_shards(self) -> int:
        """As of what was read."""
        return self._state.active_shards

    def through(self, sequence: int) -> list[_Electorate]:
        """Those named up to control record `sequence`, the newest first.

        A round is signed by those in force at the round before, whose sequence the root does not tell: it is at most
        the root's own.
        """
        if self._state.sequence < sequence:
            self._read(sequence)
        return [electorate for electorate in reversed(self._named) if electorate.since <= sequence]

    def newest(self) -> _Electorate:
        """Named by the last control record as of the first call, or by a later one that a root made us read."""
        if not self._was_at_end:
            with suppress(TaskDiverged):  # a protocol that this version does not know: whom it names is not known
                self._read(None)
            self._was_at_end = True
        return self._named[-1]

    def _read(self, sequence: int | None) -> None:
        """To the end, or through a control record: a later one may be of a protocol that this version does not know."""
        self._log.end_offset(_CONTROL)  # from here on a read hides nothing that was published before
        while records := self._log.read(_CONTROL, self._next, _CONTROL_PAGE, _PAGE_BYTES):
            for record in records:
                self._admit(record)
                self._next = record.offset + 1
                if sequence is not None and self._state.sequence >= sequence:
                    return

    def _admit(self, record: LogRecord) -> None:
        try:
            self._state = admit(self._chain, self._state, record, self._verifier).state
        except PoisonRecord:
            return  # genesis, or a dead letter of shard 0
        named = _Electorate(self._state.sequence, self._state.attestors, self._state.attestor_threshold)
        if named[1:] != self._named[-1][1:]:
            self._named.append(named)


class SignedRoots:
    """Looks back from the end of `state-roots`, and at no record twice: ask the same one again and again.

    The newest is the one of the highest round. A copy of an older one, put behind it, is seen through where both stand
    on one page, or by whoever looked before.
    Attestors who were replaced sign nothing above a round that the newest ones signed: their keys may have leaked.
    """

    def __init__(self, chain: Chain, log: EventLog, verifier: Verifier) -> None:
        """Reads nothing yet. Belongs to the thread that drives `verifier`."""
        self._chain = chain
        self._log = log
        self._verifier = verifier
        self._electorates = _Electorates(chain, log, verifier)
        self._known: dict[int, _Quorum] = {}
        self._next: dict[int, int] = {}
        self._taken_over: dict[int, int] = {}
        """By `since` of an electorate that was the newest: the lowest round seen under it."""
        self._searched: set[int] = set()

    def newest(self, shard: int) -> StateRoot | None:
        """The newest signed state root of a shard; None before the first. Raises as the log."""
        head = self.newest_head(shard)
        return None if head is None else head.root

    def newest_head(self, shard: int) -> SignedHead | None:
        """The same with its round and its record."""
        source = TopicPartition(Topic.STATE_ROOTS, shard)
        end, first = self._log.end_offset(source), self._next.get(shard, 0)
        newest, seen, found = self._known.get(shard), first, False
        while end > first and not found:
            start = max(first, end - _PAGE)
            records = self._between(source, start, end)
            if records:
                # An open transaction may hide what stands behind the last record, but nothing before it.
                seen = max(seen, records[-1].offset + 1)
            for record in reversed(records):
                quorum = self._checked(shard, record, newest)
                if quorum is not None:
                    newest, found = quorum, True
            end = start
        if newest is not None:
            self._known[shard] = newest
        self._next[shard] = seen
        return None if newest is None else newest.head

    def last(self, shard: int, records: int) -> list[SignedHead]:
        """The signed ones among so many last records of a shard, in order. Raises as the log."""
        source = TopicPartition(Topic.STATE_ROOTS, shard)
        end = self._log.end_offset(source)
        found = [self._checked(shard, record) for record in self._between(source, max(0, end - records), end)]
        return [quorum.head for quorum in found if quorum is not None]

    def _between(self, source: TopicPartition, start: int, end: int) -> list[LogRecord]:
        found: list[LogRecord] = []
        while start < end and (records := self._log.read(source, start, end - start, _PAGE_BYTES)):
            found += [record for record in records if record.offset < end]
            start = records[-1].offset + 1
        return found

    def _checked(self, shard: int, record: LogRecord, older: _Quorum | None = None) -> _Quorum | None:
        """None where it is not signed, or not newer than `older`: that is cheap to see."""
        head = self._decoded(shard, record)
        if head is None:
            return None
        named = self._electorates.through(head.checkpoint.control_sequence)
        newest = self._electorates.newest()
        is_newer = older is None or _age(head) > _age(older.head)
        # It may show that `older` is a forgery of those who were replaced.
        may_replace = older is not None and older.named_at < newest.since <= head.checkpoint.control_sequence
        if not (is_newer or may_replace):
            return None
        signers = next((electorate for electorate in named if self._signed(head.signed, electorate)), None)
        if signers is None:
            return None
        quorum = _Quorum(head, signers.since)
        if signers.since == newest.since:
            self._take_over(newest, head.checkpoint.round)
        else:
            self._search(newest)
        if self._is_late(quorum):
            return None
        return quorum if is_newer or (older is not None and self._is_late(older)) else None

    def _is_late(self, quorum: _Quorum) -> bool:
        """Of attestors who had been replaced by then."""
        number = quorum.head.checkpoint.round
        return any(since > quorum.named_at and number > lowest for since, lowest in self._taken_over.items())

    def _decoded(self, shard: int, record: LogRecord) -> SignedHead | None:
        try:
            signed = SignedStateRoot.from_record(record.value)
            root, checkpoint = StateRoot.from_bytes(signed.state_root), Checkpoint.from_bytes(signed.checkpoint)
            if root.shard != shard or checkpoint.chain_id != self._chain.chain_id:
                return None
            check_place(signed, root, checkpoint)
        except (PoisonRecord, VerificationFailed):
            return None
        return SignedHead(root, checkpoint, signed)

    def _signed(self, signed: SignedStateRoot, by: _Electorate) -> bool:
        if len(signed.signatures) > MAX_SIGNATURES:
            return False
        return valid_signers(signed, by.attestors, by.threshold, self._verifier) >= by.threshold

    def _take_over(self, newest: _Electorate, number: int) -> None:
        self._taken_over[newest.since] = min(number, self._taken_over.get(newest.since, number))

    def _search(self, newest: _Electorate) -> None:
        """Look once at the end of every shard's partition for what the newest attestors signed: one may be idle."""
        if newest.since in self._searched:
            return
        self._searched.add(newest.since)
        for shard in range(self._electorates.active_shards):
            source = TopicPartition(Topic.STATE_ROOTS, shard)
            end = self._log.end_offset(source)
            for record in self._between(source, max(0, end - _PAGE), end):
                head = self._decoded(shard, record)
                if head is None or head.checkpoint.control_sequence < newest.since:
                    continue
                number = head.checkpoint.round
                if number < self._taken_over.get(newest.since, number + 1) and self._signed(head.signed, newest):
                    self._take_over(newest, number)


def _age(head: SignedHead) -> tuple[int, int]:
    return head.checkpoint.round, head.root.height
