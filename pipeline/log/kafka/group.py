"""Membership in the group of workers: which shards this process owns, and the probe that proves it.

Classic protocol, cooperative-sticky. The partitions of `transactions` are assigned here only to be owned: they stay
paused, since the log's own readers read them, from positions in block headers. What is committed to the group serves
the probe and lag tools; nobody starts from it.
"""

import time
from collections.abc import Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as Place

from pipeline.codec.topics import Topic
from pipeline.codec.types import ShardId
from pipeline.config import KafkaConfig
from pipeline.log.kafka.faults import error_in, refusal, usable_settings
from pipeline.log.kafka.roster import Roster
from pipeline.log.kafka.settings import LOGGER, Settings, consumer_settings
from pipeline.log.membership import Members, Revoked, inherits

SESSION_TIMEOUT_MS: Final = 6_000
"""A member that is silent for this long has lost its shards; the least that brokers allow by default."""
_HEARTBEAT_MS: Final = 300
"""The others hear of a lost member with their next heartbeat, so this is part of every takeover."""
_MAX_POLL_INTERVAL_MS: Final = 60_000
"""Opening a writer may wait 15 s for a cluster, several may follow each other."""
_SOCKET_TIMEOUT_MS: Final = 10_000


class ShardGroup:
    """One member. Not for several threads. Rebalances happen inside `poll` and `close`, nowhere else."""

    def __init__(
        self, config: KafkaConfig, prefix: str, on_revoked: Revoked, *, session_timeout_ms: int = SESSION_TIMEOUT_MS
    ) -> None:
        """Joins with the first `poll`. `on_revoked` runs before the shards go to others. Raises `ConfigError`."""
        self._topic = f"{prefix}.{Topic.TRANSACTIONS.topic_name}"
        self._on_revoked = on_revoked
        self._owned: frozenset[ShardId] = frozenset()
        self._positions: dict[ShardId, int] = {}
        self._closed = False
        self.rebalances = 0
        group = f"{prefix}-workers"
        self._roster = Roster(config, group, self._topic)
        self._inherits: tuple[Members, int, frozenset[ShardId]] = ({}, 0, frozenset())
        with usable_settings(config.hide):
            self._consumer = Consumer(_settings(config, group, session_timeout_ms))
            self._consumer.subscribe(
                [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )

    rebalances: int
    """How often something was assigned, be it nothing, or revoked."""

    @property
    def shards(self) -> frozenset[ShardId]:
        """The current assignment, idle partitions included."""
        return self._owned

    def copies(self, count: int) -> frozenset[ShardId]:
        """Shards of others of which this member is to keep a copy, where each has `count` of them. Waits for nobody.

        As of when the coordinator was last asked, some seconds ago. Idle partitions are among them.
        """
        self._roster.look(time.monotonic())
        members, counted, found = self._inherits
        if members is not self._roster.members or counted != count:
            members = self._roster.members
            found = inherits(self._consumer.memberid() or "", members, count)
            self._inherits = members, count, found
        return found - self._owned

    def poll(self) -> None:
        """Let rebalances happen. Raises `ConfigError` where the cluster refuses this client."""
        while (message := self._consumer.poll(0)) is not None:
            error = message.error()
            if error is None:
                continue  # fetched in the instant between assignment and pause
            refused = refusal(error)
            if refused is not None:
                raise refused
            LOGGER.warning("group of workers: %s", error.str())

    def owns(self, shard: ShardId) -> bool:
        """The probe: the shard is in the current assignment and the coordinator takes its position from this member.

        Waits for the coordinator. A member that was replaced, or is in the middle of a rebalance, gets False.
        """
        if shard not in self._owned:
            return False
        try:
            placed = self._consumer.commit(offsets=[self._place(shard)], asynchronous=False)
        except KafkaException as exception:
            LOGGER.info("shard %s: not proven to be ours: %s", shard, error_in(exception).str())
            return False
        return placed is not None and all(place.error is None for place in placed)

    def report(self, positions: Mapping[ShardId, int]) -> None:
        """Commit next offsets of owned shards for lag tools, without waiting; what fails is told the next time."""
        self._positions = {shard: position for shard, position in positions.items() if shard in self._owned}
        if not self._positions:
            return
        try:
            self._consumer.commit(offsets=[self._place(shard) for shard in self._positions], asynchronous=True)
        except KafkaException as exception:
            LOGGER.info("positions were not told: %s", error_in(exception).str())

    def close(self) -> None:
        """Leave, so that others take over at once. Idempotent."""
        if not self._closed:
            self._closed = True
            self._consumer.close()

    def _place(self, shard: ShardId) -> Place:
        return Place(self._topic, shard, self._positions.get(shard, 0))

    def _assigned(self, consumer: Consumer, places: list[Place]) -> None:
        # A position by hand: else the client would ask for one, and find none in a new group.
        paused = [Place(place.topic, place.partition, 0) for place in places]
        consumer.incremental_assign(paused)
        consumer.pause(paused)
        self._owned |= _shards(places)
        self._rebalanced("assigned", _shards(places))

    def _revoked(self, consumer: Consumer, places: list[Place]) -> None:
        self._give_up(consumer, places, lost=False)

    def _lost(self, consumer: Consumer, places: list[Place]) -> None:
        self._give_up(consumer, places, lost=True)

    def _give_up(self, consumer: Consumer, places: list[Place], *, lost: bool) -> None:
        gone = _shards(places)
        self._on_revoked(gone, lost)
        self._owned -= gone
        self._rebalanced("lost" if lost else "revoked", gone)
        consumer.incremental_unassign(places)

    def _rebalanced(self, what: str, shards: frozenset[ShardId]) -> None:
        self.rebalances += 1
        self._roster.soon(time.monotonic())
        LOGGER.info("group of workers: %s %s; now here: %s", what, sorted(shards), sorted(self._owned))


def _shards(places: list[Place]) -> frozenset[ShardId]:
    return frozenset(ShardId(place.partition) for place in places)


def _settings(config: KafkaConfig, group: str, session_timeout_ms: int) -> Settings:
    return {
        **consumer_settings(config, group, committed=True),
        "enable.partition.eof": False,
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_timeout_ms,
        "heartbeat.interval.ms": _HEARTBEAT_MS,
        "max.poll.interval.ms": max(_MAX_POLL_INTERVAL_MS, session_timeout_ms),
        "socket.timeout.ms": _SOCKET_TIMEOUT_MS,
    }
