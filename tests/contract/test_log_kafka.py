"""The Kafka log on a real broker: the contract of every log, and what only a cluster can do to one."""

import pytest
from kafka_fixture import Kafka
from log_contract import LogContract

from pipeline.log.kafka import KafkaLog
from pipeline.log.port import EventLog

pytestmark = pytest.mark.kafka


class TestKafkaLog(LogContract):
    @pytest.fixture(autouse=True)
    def cluster(self, kafka: Kafka) -> None:
        self.kafka = kafka

    def make_log(self) -> KafkaLog:
        self.prefix = self.kafka.new_prefix()
        return self.kafka.log(self.prefix)

    def reopen(self, log: EventLog) -> KafkaLog:
        log.close()
        return self.kafka.log(self.prefix)
