"""Topics and the records that stand on them."""

from enum import IntEnum
from typing import NamedTuple


class Topic(IntEnum):
    """The topics of a chain; the numbers 0 to 2 appear in block headers."""

    CONTROL = 0
    RELAY = 1
    TRANSACTIONS = 2
    BLOCKS = 3
    RECEIPTS = 4
    DEAD_LETTERS = 5
    CHECKPOINTS = 6
    STATE_ROOTS = 7

    @property
    def topic_name(self) -> str:
        """Name on the log: lower case with dashes."""
        return self.name.lower().replace("_", "-")


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: Topic
    partition: int


class LogRecord(NamedTuple):
    """A committed record. `key` and `value` are None where Kafka has null."""

    offset: int
    key: bytes | None
    value: bytes | None
