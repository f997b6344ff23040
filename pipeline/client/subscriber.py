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


class RefusedRoot(NamedTuple):
    """A record of `state-roots` that does not verify."""

    partition: int
    offset: int
    error: VerificationFailed


class StateRootSubscriber:
    """Follows `state-roots` of some shards. What does not verify is kept in `refused` for the caller to take away."""

    def __init__(
        self, log: EventLog, client: LightClient, partitions: Iterable[int], start: dict[int, int] | None = None
    ) -> None:
        """`start`: partition -> offset to begin at, 0 by default. `client` remembers the newest round."""
        self._log = log
        self._client = client
        self.next_offsets = {partition: (start or {}).get(partition, 0) for partition in partitions}
        self._newest: dict[int, int] = {}
        self.refused: list[RefusedRoot] = []

    def poll(self) -> list[VerifiedRoot]:
        """New roots, in order within each shard; repeats of a round are left out. [] where there is nothing new."""
        found: list[VerifiedRoot] = []
        for partition in self.next_offsets:
            source = TopicPartition(Topic.STATE_ROOTS, partition)
            while records := self._log.read(source, self.next_offsets[partition], _PAGE, _PAGE_BYTES):
                found += [root for record in records if (root := self._verify(partition, record)) is not None]
                self.next_offsets[partition] = records[-1].offset + 1
        return found

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
        message = f"state-roots partition {partition} offset {offset}: {reason}"
        self.refused.append(RefusedRoot(partition, offset, VerificationFailed(message)))
