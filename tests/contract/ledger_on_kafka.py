"""Shards and a synchronizer over one Kafka log, driven as a node drives them, by a clock that tests begin."""

import time
from itertools import pairwise

from audit_net import names_on
from sync_net import Net

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.receipts import ReceiptChunk, decode_receipt
from pipeline.log.kafka import KafkaLog
from pipeline.shards.progress import Progress
from pipeline.sync.synchronizer import Synchronizer

__all__ = ["KafkaNet", "names_on"]

_QUIET_MS = 400
_LIMIT_S = 60.0


class KafkaNet(Net):
    def __init__(self, log: KafkaLog, after: "KafkaNet | None" = None) -> None:
        super().__init__(shards=2, log=log)  # type: ignore[arg-type]
        if after is not None:
            self.now_ms, self.nonces, self._keyed = after.now_ms, dict(after.nonces), set(after._keyed)

    def drive(self, *others: Synchronizer) -> None:
        """Until everything published is consumed and nothing was done for a while; time passes as it does."""
        started = last = time.monotonic()
        quiet_since = started
        while time.monotonic() - quiet_since < _QUIET_MS / 1000 or not self._consumed():
            assert time.monotonic() - started < _LIMIT_S, [task.error for task in self.tasks]
            answers = [task.step(self.now_ms) for task in (*self.tasks, *others)]
            for driven in (*self.tasks, *others):
                assert driven.error is None, driven.error
            if any(isinstance(answer, Progress) for answer in answers):
                quiet_since = time.monotonic()
            else:
                self.log.wait(5)
            now = time.monotonic()
            self.now_ms += max(1, int(1000 * (now - last)))
            last = now

    def _consumed(self) -> bool:
        return all(
            not self.log.read(task.committed.source(topic), position, 1, 1)
            for task in self.tasks
            for topic, position in zip(
                (Topic.CONTROL, Topic.RELAY, Topic.TRANSACTIONS), task.committed.positions, strict=True
            )
        )

    def read(self, topic: Topic, partition: int = 0) -> list[LogRecord]:
        records: list[LogRecord] = []
        source = TopicPartition(topic, partition)
        self.log.end_offset(source)
        while found := self.log.read(source, records[-1].offset + 1 if records else 0, 10_000, 1 << 26):
            records += found
        return records

    def heights(self, shard: int) -> list[int]:
        return [BlockHeader.from_record(record.value)[0].height for record in self.read(Topic.BLOCKS, shard)]

    def repeats(self, shard: int) -> int:
        """Headers that a new leader published once more."""
        heights = self.heights(shard)
        return sum(a == b for a, b in pairwise(heights))

    def receipts(self) -> int:
        """Transactions with a receipt, on both shards."""
        chunks: dict[tuple[int, int, int], ReceiptChunk] = {}
        for shard in range(2):
            for record in self.read(Topic.RECEIPTS, shard):
                chunk = ReceiptChunk.from_record(record.value)
                chunks[shard, chunk.height, chunk.first_index] = chunk
        return sum(hasattr(decode_receipt(datum), "tx_id") for chunk in chunks.values() for datum in chunk.receipts)
