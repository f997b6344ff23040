"""Who is in the group of workers and owns what, as the coordinator says: asked now and then, never waited for."""

from concurrent.futures import Future
from typing import Final

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient, ConsumerGroupDescription

from pipeline.codec.types import ShardId
from pipeline.config import KafkaConfig
from pipeline.log.kafka.faults import error_in
from pipeline.log.kafka.settings import LOGGER, admin_settings
from pipeline.log.membership import Members

_LOOK_S: Final = 3.0
_SOON_S: Final = 0.3
"""After a rebalance; while it lasts the answer is of no use."""
_REQUEST_S: Final = 3_600.0
"""The longest that there is. Where a question to a coordinator and its request time out together, as when a broker
stands still, librdkafka ends the whole process by an assertion (librdkafka#4605). Connections that break, and the
client's own timeout of a socket, answer long before."""


class Roster:
    """The last assignment of a group that was seen whole."""

    def __init__(self, config: KafkaConfig, group: str, topic: str) -> None:
        """Nothing seen yet. Connects when first looked at."""
        self._settings = admin_settings(config)
        self._group = group
        self._topic = topic
        self._admin: AdminClient | None = None
        self._asked: Future[ConsumerGroupDescription] | None = None
        self._next_s = 0.0
        self.members: Members = {}

    def soon(self, now_s: float) -> None:
        """Something has changed: look again before long. Times are of the monotonic clock."""
        self._next_s = min(self._next_s, now_s + _SOON_S)

    def look(self, now_s: float) -> None:
        """Ask where it is time, take the answer where it is there."""
        if self._asked is not None:
            if not self._asked.done():
                return
            self._take(self._asked)
            self._asked = None
        elif now_s >= self._next_s:
            if self._admin is None:
                self._admin = AdminClient(self._settings)
            self._next_s = now_s + _LOOK_S
            self._asked = self._admin.describe_consumer_groups([self._group], request_timeout=_REQUEST_S)[self._group]

    def _take(self, asked: "Future[ConsumerGroupDescription]") -> None:
        try:
            description = asked.result(0)
        except KafkaException as exception:
            LOGGER.info("the group of workers is not described: %s", error_in(exception).str())
            return
        if description.state is not ConsumerGroupState.STABLE:
            self._next_s = min(self._next_s, self._next_s - _LOOK_S + _SOON_S)
            return
        self.members = {
            member.member_id: frozenset(
                ShardId(place.partition)
                for place in (member.assignment.topic_partitions if member.assignment else ())
                if place.topic == self._topic
            )
            for member in description.members
        }
