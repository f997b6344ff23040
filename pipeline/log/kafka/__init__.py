"""The event log on a Kafka cluster."""

from pipeline.log.kafka.log import KafkaLog

__all__ = ["KafkaLog"]
