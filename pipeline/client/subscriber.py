"""Subscribing to signed state roots: only verified ones are ever yielded, from any offset on."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from pipeline.client.light import LightClient, VerifiedRoot
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.errors import PoisonRecord, VerificationFailed
from pipeline.ledger.checkpoints import Checkpoint, SignedStateRoot
from pipeline.log.port import EventLog

_PAGE: Final = 256
_PAGE_BYTES: Final = 16 * 2**20
MAX_REFUSED: Final = 1000
"""Whoever may write to `state-roots` must not fill its readers' memory."""


class RefusedRoot(NamedTuple):
    """A record of `state-roots` that does not verify."""

    partition: int
    offset: int
    error: VerificationFailed


class StateRootSubscriber:
    """Follows `state-roots` of some shards.

    What does not verify is kept in `refused` for the caller to take away, up to `MAX_REFUSED`; all of it is counted in
    `refused_total`.
    """

    def __init__(
        self,
        log: EventLog,
        client: LightClient,
        partitions: Iterable[int],
        start: Mapping[int, int] | None = None,
        from_round: int = 0,
    ) -> None:
        """`start`: partition -> offset to begin at, 0 by default. `client` remembers the newest round.

        Roots of rounds before `from_round` are passed over without a look at their signatures; `starts_of` tells where
        to begin so that few have to be.
        """
        self._log = log
        self._from_round = from_round
        self._client = client
        self.next_offsets = {partition: (start or {}).get(partition, 0) for partition in partitions}
        self._newest: dict[int, int] = {}
        self._found: list[VerifiedRoot] = []  # kept where a later read fails: the next call yields it
        self.refused: list[RefusedRoot] = []
        self.refused_total = 0

    def poll(self) -> list[VerifiedRoot]:
        """New roots of at most one page of each partition, in order within each shard; repeats of a round are left out.

        So [] does not say that there is nothing more: a page may be all repeats or refused. `catch_up` reads on.
        """
        for partition in self.next_offsets:
            self._read_page(partition)
        return self._take()

    def catch_up(self) -> list[VerifiedRoot]:
        """As `poll`, page by page in turn, to the ends that the partitions have now: what comes later is left."""
        for _ in self._turns():
            pass
        return self._take()

    def by_round(self) -> Iterator[list[VerifiedRoot]]:
        """As `catch_up`, by round and shard; given away page by page, so that a long history need not fit in memory.

        A turn that found nothing to give yet gives []: its `refused` can be taken away.
        """
        for behind in self._turns():
            # What is still to come of a partition is of later rounds than the newest that it showed.
            seen = min([self._newest.get(partition, -1) for partition in behind], default=-1)
            ready = [root for root in self._found if root.checkpoint.round <= seen]
            self._found = [root for root in self._found if root.checkpoint.round > seen]
            yield sorted(ready, key=_by_round)
        yield sorted(self._take(), key=_by_round)

    def _turns(self) -> Iterator[list[int]]:
        """Read a page of each partition, in turn, to the ends of now; after each turn those that are still behind."""
        ends = {at: self._log.end_offset(TopicPartition(Topic.STATE_ROOTS, at)) for at in self.next_offsets}
        behind = [partition for partition, end in ends.items() if self.next_offsets[partition] < end]
        while behind:
            # One that has nothing to read has only an open transaction, or the mark of one, before its end.
            read = [partition for partition in behind if self._read_page(partition)]
            behind = [partition for partition in read if self.next_offsets[partition] < ends[partition]]
            yield behind

    def _take(self) -> list[VerifiedRoot]:
        found, self._found = self._found, []
        return found

    def _read_page(self, partition: int) -> bool:
        """False where there is nothing to read."""
        source = TopicPartition(Topic.STATE_ROOTS, partition)
        records = self._log.read(source, self.next_offsets[partition], _PAGE, _PAGE_BYTES)
        for record in records:
            root = self._verify(partition, record)
            if root is not None:
                self._found.append(root)
            self.next_offsets[partition] = record.offset + 1
        return bool(records)

    def _verify(self, partition: int, record: LogRecord) -> VerifiedRoot | None:
        try:
            signed = SignedStateRoot.from_record(record.value)
            if Checkpoint.from_bytes(signed.checkpoint).round < self._from_round:
                return None
            root = self._client.verify_root(signed)
        except (PoisonRecord, VerificationFailed) as error:
            self._refuse(partition, record.offset, str(error))
            return None
        if root.state_root.shard != partition:
            self._refuse(partition, record.offset, f"a root of shard {root.state_root.shard} among another's")
            return None
        if root.checkpoint.round <= self._newest.get(partition, -1):
            return None
        self._newest[partition] = root.checkpoint.round
        return root

    def _refuse(self, partition: int, offset: int, reason: str) -> None:
        self.refused_total += 1
        if len(self.refused) >= MAX_REFUSED:
            return
        message = f"state-roots partition {partition} offset {offset}: {reason}"
        self.refused.append(RefusedRoot(partition, offset, VerificationFailed(message)))


def _by_round(root: VerifiedRoot) -> tuple[int, int]:
    return root.checkpoint.round, root.state_root.shard


def starts_of(log: EventLog, partitions: Iterable[int], number: int) -> dict[int, int]:
    """Partition -> an offset of `state-roots` at most a page before the first root of round `number` or a later one.

    Rounds ascend along a partition, so few records are looked at, and none of them is verified: who may write there and
    puts old roots behind newer ones can make a subscriber begin too late, which he could as well by withholding them.
    Raises as `EventLog.read`.
    """
    return {partition: _start_of(log, TopicPartition(Topic.STATE_ROOTS, partition), number) for partition in partitions}


def _start_of(log: EventLog, source: TopicPartition, number: int) -> int:
    low, high = 0, log.end_offset(source) if number > 0 else 0
    while high - low > _PAGE:
        middle = (low + high) // 2
        found = _next_round(log, source, middle, high)
        if found is None or found[1] >= number:
            high = middle
        else:
            low = found[0] + 1
    return low


def _next_round(log: EventLog, source: TopicPartition, start: int, end: int) -> tuple[int, int] | None:
    """Offset and round of the first record from `start` on, before `end`, that has a round."""
    while start < end:
        records = log.read(source, start, 1, _PAGE_BYTES)
        if not records or records[0].offset >= end:
            return None
        start = records[0].offset + 1
        try:
            checkpoint = Checkpoint.from_bytes(SignedStateRoot.from_record(records[0].value).checkpoint)
        except PoisonRecord:
            continue
        return records[0].offset, checkpoint.round
    return None
