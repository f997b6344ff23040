"""Where a chain's log is on a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from pipeline.codec.types import ChainId
from pipeline.config import Config, KafkaConfig
from pipeline.ledger.chain import Chain
from pipeline.log.kafka import KafkaLog
from pipeline.log.kafka.access import require_access
from pipeline.log.kafka.patience import REQUEST_S

_ANY_RECORD_BYTES: Final = 256 << 20


class Identified(Protocol):
    """What knows its chain: a `Chain`, or the trust file of one whose genesis was not read."""

    @property
    def chain_id(self) -> ChainId:
        """Of the chain."""


def topic_prefix(chain: Identified) -> str:
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
    return _log(chain, config.kafka, chain.genesis.limits.message_bytes, patience_s)


def client_log(chain: Identified, config: KafkaConfig) -> KafkaLog:
    """As `kafka_log`, for who need not have the genesis, which bounds what is published: producers check it."""
    return _log(chain, config, _ANY_RECORD_BYTES, REQUEST_S)


def _log(chain: Identified, config: KafkaConfig, max_message_bytes: int, patience_s: float) -> KafkaLog:
    if config.bootstrap:
        require_access(config)
    return KafkaLog(config, topic_prefix(chain), max_message_bytes=max_message_bytes, patience_s=patience_s)
