"""Where a chain's log is on a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.config import Config
from pipeline.ledger.chain import Chain
from pipeline.log.kafka import KafkaLog
from pipeline.log.kafka.access import require_access
from pipeline.log.kafka.patience import REQUEST_S


def topic_prefix(chain: Chain) -> str:
    """What the names of a chain's topics and groups begin with: its id, so that no two chains ever share a topic."""
    return f"hauptbuch-{chain.chain_id.hex()[:16]}"


@contextmanager
def chain_log(chain: Chain, config: Config, *, patience_s: float = REQUEST_S) -> Iterator[KafkaLog]:
    """`kafka_log`, closed at the end."""
    log = kafka_log(chain, config, patience_s=patience_s)
    try:
        yield log
    finally:
        log.close()


def kafka_log(chain: Chain, config: Config, *, patience_s: float = REQUEST_S) -> KafkaLog:
    """The chain's log on the cluster of `config.kafka`, `patience_s` as it says.

    Raises `ConfigError`, and what `require_access` does.
    """
    if config.kafka.bootstrap:
        require_access(config.kafka)
    limit = chain.genesis.limits.message_bytes
    return KafkaLog(config.kafka, topic_prefix(chain), max_message_bytes=limit, patience_s=patience_s)
