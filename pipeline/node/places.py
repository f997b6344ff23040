"""Where a chain's log is on a cluster."""

from pipeline.codec.topics import Topic
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.ledger.chain import Chain
from pipeline.log.kafka import KafkaLog


def topic_prefix(chain: Chain) -> str:
    """What the names of a chain's topics and groups begin with: its id, so that no two chains ever share a topic."""
    return f"hauptbuch-{chain.chain_id.hex()[:16]}"


def kafka_log(chain: Chain, config: Config) -> KafkaLog:
    """The chain's log on the cluster of `config.kafka`. Raises `ConfigError`."""
    return KafkaLog(config.kafka, topic_prefix(chain), max_message_bytes=chain.genesis.limits.message_bytes)


def require_topics(log: KafkaLog) -> None:
    """Raise `ConfigError` where the cluster has nothing of the chain."""
    if not log.partitions(Topic.CONTROL):
        raise ConfigError("the cluster has no topics of this chain: `hauptbuch init --kafka` makes them")
