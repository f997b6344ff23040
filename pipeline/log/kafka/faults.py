"""What an error of the Kafka client means here: each maps to the exception that names its recovery."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from pipeline.errors import (
    ConfigError,
    HauptbuchError,
    OutcomeUnknown,
    Retryable,
    TaskDiverged,
    TaskFenced,
    TransactionAbortable,
)

# _FENCED is also what a sole owner gets that stalled past the transaction timeout.
_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
_FORBIDDEN: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
_UNKNOWN_USER: Final = frozenset({KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._AUTHENTICATION})
MISSING: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.INCONSISTENT_TOPIC_ID,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
OUT_OF_RANGE: Final = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET})
# _NOT_IMPLEMENTED is of batches in a format or compression that there is none of.
_DAMAGED: Final = frozenset(
    {KafkaError._BAD_MSG, KafkaError.INVALID_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED}
)


def error_in(exception: KafkaException) -> KafkaError:
    """The error that an exception carries."""
    error = exception.args[0]
    assert isinstance(error, KafkaError), f"an exception without its error: {exception!r}"
    return error


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise `KafkaException` for what the client raises out of a call that serves delivery reports.

    It raises a fatal error there, and calls the next report with the exception set, which Python makes a `SystemError`.
    """
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        raise


@contextmanager
def usable_settings(hide: Callable[[str], str] = str) -> Iterator[None]:
    """Raise `ConfigError` where a client can't be made of its settings, `Retryable` where it can't be made now.

    `hide` takes secrets out of what it says.
    """
    try:
        yield
    except KafkaException as exception:
        error = error_in(exception)
        said = " ".join(hide(error.str()).split())
        if error.code() != KafkaError._INVALID_ARG:
            raise Retryable(f"a Kafka client can't be made now: {said}; are there threads and memory for it?") from None
        raise ConfigError(f"librdkafka refuses its settings: {said}; change kafka.librdkafka") from None


def refusal(error: KafkaError, where: str = "") -> ConfigError | None:
    """Where the cluster refuses this client, or its configuration; None for anything else. `where`: what it asked for.

    A refusal is no reason to try again: rules change by an operator's hand.
    """
    if error.code() in _UNKNOWN_USER:
        return ConfigError(f"Kafka does not know this client: {error.str()}; check kafka.security.*")
    if error.code() in _FORBIDDEN:
        asked = f"{where}: " if where else ""
        return ConfigError(
            f"{asked}Kafka refuses this client: {error.str()}; grant its user the rights of its role with "
            "`python -m deploy.kafka acl`"
        )
    if error.code() == KafkaError.INVALID_TRANSACTION_TIMEOUT:
        return ConfigError(
            "the brokers allow shorter transactions only: set their transaction.max.timeout.ms to 15000, "
            "or lower transaction.timeout.ms"
        )
    return None


def is_fencing(error: KafkaError) -> bool:
    """Whether the coordinator no longer knows this writer's epoch."""
    return error.code() in _FENCED


def write_fault(error: KafkaError, writer_id: str, *, committing: bool) -> HauptbuchError:
    """What a failed transaction means. `committing`: its end had been asked for, so that it may have happened."""
    if is_fencing(error):
        return TaskFenced(f"writer {writer_id} was fenced by a newer one, or stalled too long: {error.str()}")
    refused = refusal(error, f"writer {writer_id}")
    if refused is not None:
        return refused
    if error.txn_requires_abort() or (not committing and not error.fatal()):
        return TransactionAbortable(f"writer {writer_id}: the transaction must be dropped: {error.str()}")
    return OutcomeUnknown(f"writer {writer_id}: nobody knows what became of the transaction: {error.str()}")


def read_fault(error: KafkaError, where: str) -> HauptbuchError:
    """What an error of a partition means. The client never says of one whether it may pass, so any other one may."""
    refused = refusal(error, where)
    if refused is not None:
        return refused
    if error.code() in _DAMAGED:
        return TaskDiverged(f"damaged records on {where}: {error.str()}; restore the partition from a copy")
    return Retryable(f"{where} can't be read now: {error.str()}")
