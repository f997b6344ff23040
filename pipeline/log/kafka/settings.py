"""What each Kafka client of the log is told. Names are librdkafka's (CONFIGURATION.md).

Settings that a configuration may choose stand first, then the configuration's own, then those that exactly-once
needs, so that nothing overrides the last. Every timer at which a client would idle is short: their defaults (0.1 to
1 s) are made for throughput and would each stand in the way of a block.
"""

import logging
from typing import Final

from pipeline.config import KafkaConfig

Scalar = str | int | float | bool
Settings = dict[str, Scalar | logging.Logger]

TRANSACTION_TIMEOUT_MS: Final = 10_000
MESSAGE_TIMEOUT_MS: Final = 8_000
BATCH_HEADROOM: Final = 4_096
"""Bytes of a record's batch beyond key and value: headers of batch and record, varints, the worst of compression."""
FETCH_WAIT_MS: Final = 10
"""How long a broker keeps a fetch that has nothing to give. A new or moved position waits for the fetch before it."""

_RETRY_MAX_MS: Final = 5

LOGGER: Final = logging.getLogger("pipeline.log.kafka")
LOGGER.addFilter(lambda record: "and will be ignored by this" not in record.getMessage())  # meant for a sister client
_SECRETIVE: Final[set[KafkaConfig]] = set()
"""Configurations in use that hold secrets."""
_QUIET: Final = {"log_level": 2}  # of clients that nobody polls: their log lines would only pile up


def _hide_secrets(record: logging.LogRecord) -> bool:
    """Clients quote parts of their settings when they can't use them."""
    said = hidden = record.getMessage()
    for config in _SECRETIVE:
        hidden = config.hide(hidden)
    if hidden != said:
        record.msg, record.args = hidden, ()
    return True


LOGGER.addFilter(_hide_secrets)


def _client(config: KafkaConfig, refresh_ms: int = 50) -> dict[str, Scalar]:
    if config.secrets:
        _SECRETIVE.add(config)
    return {
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "topic.metadata.refresh.fast.interval.ms": refresh_ms,
        **config.client_settings(),
        "allow.auto.create.topics": False,
    }


def admin_settings(config: KafkaConfig) -> dict[str, Scalar]:
    """Topics: making, describing."""
    return {**_client(config), **_QUIET}


def consumer_settings(config: KafkaConfig, group: str, *, committed: bool) -> Settings:
    """A consumer with positions by hand. `group` is required by the client, and neither joined nor committed to.

    Not `committed`: asked for high watermarks, which a committed one answers with the last stable offset, or reads what
    was aborted too.
    """
    return {
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "fetch.queue.backoff.ms": 2,
        "fetch.error.backoff.ms": 50,
        "queued.max.messages.kbytes": 32 << 10,
        **_client(config),
        "group.id": group,
        "isolation.level": "read_committed" if committed else "read_uncommitted",
        "auto.offset.reset": "error",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "check.crcs": True,
        **({"logger": LOGGER} if committed else _QUIET),
    }


def producer_settings(
    config: KafkaConfig, max_message_bytes: int, message_timeout_ms: int = MESSAGE_TIMEOUT_MS
) -> Settings:
    """An idempotent producer. It does not compress: `transactions` is kept uncompressed, see `topics`."""
    return {
        "linger.ms": 0,
        "message.timeout.ms": message_timeout_ms,
        "queue.buffering.max.messages": 1_000_000,
        # After the end of a transaction the broker answers the next one's first request with CONCURRENT_TRANSACTIONS,
        # and the client sleeps this long: 105 ms a commit at the default of 100.
        "retry.backoff.ms": 1,
        "retry.backoff.max.ms": _RETRY_MAX_MS,
        **_client(config, _RETRY_MAX_MS),  # above it the client warns, and takes it anyway
        "enable.idempotence": True,
        "acks": "all",
        "message.max.bytes": max_message_bytes + BATCH_HEADROOM,
        "logger": LOGGER,
    }


def writer_settings(config: KafkaConfig, max_message_bytes: int, writer_id: str) -> Settings:
    """A transactional producer; `writer_id` is its fence.

    lz4, since most bytes are signatures and keys of post-quantum suites, which no codec makes smaller: it gives up on
    them soonest and still folds what repeats.
    """
    transaction_ms = int(config.client_settings().get("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS))
    message_ms = min(MESSAGE_TIMEOUT_MS, transaction_ms * 4 // 5)  # a message fails before its transaction does
    return {
        "transaction.timeout.ms": transaction_ms,
        "compression.type": "lz4",
        **producer_settings(config, max_message_bytes, message_ms),
        "transactional.id": writer_id,
    }
