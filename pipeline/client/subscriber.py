"""Subscribing to signed state roots: only verified ones are ever yielded, from any offset on."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from pipeline.client.light import LightClient, VerifiedRoot
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.errors import PoisonRecord, VerificationFailed
from pipeline.ledger.checkpoints import SignedStateRoot
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
        self, log: EventLog, client: LightClient, partitions: Iterable[int], start: dict[int, int] | None = None
    ) -> None:
        """`start`: partition -> offset to begin at, 0 by default. `client` remembers the newest round."""
        self._log = log
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
        ends = {at: self._log.end_offset(TopicPartition(Topic.STATE_ROOTS, at)) for at in self.next_offsets}
        behind = [partition for partition, end in ends.items() if self.next_offsets[partition] < end]
        while behind:
            # One that has nothing to read has only an open transaction, or the mark of one, before its end.
            read = [partition for partition in behind if self._read_page(partition)]
            behind = [partition for partition in read if self.next_offsets[partition] < ends[partition]]
        return self._take()

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
            root = self._client.verify_root(SignedStateRoot.from_record(record.value))
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
