"""What an error of the Kafka client means here: each maps to the exception that names its recovery."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from pipeline.errors import ConfigError, Fatal, HauptbuchError, OutcomeUnknown, TaskFenced, TransactionAbortable

# _FENCED is also what a sole owner gets that stalled past the transaction timeout.
_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
_FORBIDDEN: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
    }
)
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
_DAMAGED: Final = frozenset({KafkaError._BAD_MSG, KafkaError.INVALID_MSG, KafkaError._BAD_COMPRESSION})


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


def refusal(error: KafkaError) -> ConfigError | None:
    """Where the cluster refuses this client, or its configuration; None for anything else."""
    if error.code() in _FORBIDDEN:
        return ConfigError(f"Kafka refuses this client: {error.str()}; grant it what SECURITY.md lists")
    if error.code() == KafkaError.INVALID_TRANSACTION_TIMEOUT:
        return ConfigError(
            "the brokers allow shorter transactions only: set their transaction.max.timeout.ms to 15000, "
            "or lower transaction.timeout.ms"
        )
    return None


def write_fault(error: KafkaError, writer_id: str, *, committing: bool) -> HauptbuchError:
    """What a failed transaction means. `committing`: its end had been asked for, so that it may have happened."""
    if error.code() in _FENCED:
        return TaskFenced(f"writer {writer_id} was fenced by a newer one, or stalled too long: {error.str()}")
    refused = refusal(error)
    if refused is not None:
        return refused
    if error.txn_requires_abort() or (not committing and not error.fatal()):
        return TransactionAbortable(f"writer {writer_id}: the transaction must be dropped: {error.str()}")
    return OutcomeUnknown(f"writer {writer_id}: nobody knows what became of the transaction: {error.str()}")


def read_fault(error: KafkaError, where: str) -> HauptbuchError:
    """What an error of a partition means that no waiting mends."""
    refused = refusal(error)
    if refused is not None:
        return refused
    if error.code() in _DAMAGED:
        return Fatal(f"damaged records on {where}: {error.str()}; restore the partition from a replica or a backup")
    return Fatal(f"{where} can't be read: {error.str()}")
