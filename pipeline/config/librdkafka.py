"""Which librdkafka settings a configuration may pass through, and which it may not, each with the reason.

Exactly-once processing rests on the refused ones: a block's transaction is the only way into the log, positions come
from block headers, and the fence is one stable `transactional.id` a shard. Names and limits are those of librdkafka's
CONFIGURATION.md (2.x), aliases included.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import SecretStr

_SCALARS: Final = "text, an integer, a number or true/false"
Scalar = str | int | float | bool
Setting = Scalar | SecretStr

DEFAULT_TRANSACTION_TIMEOUT_MS: Final = 10_000
MIN_TRANSACTION_TIMEOUT_MS: Final = 1_000
MAX_TRANSACTION_TIMEOUT_MS: Final = 15_000
MAX_IN_FLIGHT: Final = 5
MAX_INTEGER_BITS: Final = 63
MAX_NAME: Final = 128

_NAME: Final = re.compile(r"[a-z][a-z0-9]*([._][a-z0-9]+)*", re.ASCII)
_SECRET_NAME: Final = re.compile(r"password|secret|\.pem$|oauthbearer\.config")

_IDEMPOTENT: Final = (
    "a block is written by an idempotent producer with acks=all, else a retry could write it twice or lose it"
)
_COMMITTED: Final = "only committed records may be executed"
_POSITIONS: Final = "positions come from block headers, never from committed offsets"
_FENCE: Final = "the stable id of each shard's writer is its fence"
_GROUP: Final = "the worker sets its group, so that one shard has one owner at a time"
_SLOTS: Final = "the slot map chooses the partition of every record"

REFUSED: Final[Mapping[str, str]] = {
    "enable.idempotence": _IDEMPOTENT,
    "acks": _IDEMPOTENT,
    "request.required.acks": _IDEMPOTENT,
    "retries": _IDEMPOTENT,
    "message.send.max.retries": _IDEMPOTENT,
    "queuing.strategy": _IDEMPOTENT,
    "isolation.level": _COMMITTED,
    "check.crcs": "a damaged record must be an error, never an input",
    "transactional.id": _FENCE,
    "enable.auto.commit": _POSITIONS,
    "auto.commit.enable": _POSITIONS,
    "auto.commit.interval.ms": _POSITIONS,
    "enable.auto.offset.store": _POSITIONS,
    "auto.offset.reset": "a position that is not in the log must halt the shard, never skip records",
    "group.id": _GROUP,
    "group.instance.id": _GROUP,
    "group.protocol": _GROUP,
    "group.remote.assignor": _GROUP,
    "partition.assignment.strategy": _GROUP,
    "partitioner": _SLOTS,
    "enable.ssl.certificate.verification": (
        "whoever is on the way could be the brokers; set kafka.security.ca_location to their authority"
    ),
    "allow.auto.create.topics": "topics are made with the partitions that genesis fixes",
    "test.mock.num.brokers": "the mock cluster neither isolates nor fences transactions",
    "bootstrap.servers": "set kafka.bootstrap",
    "metadata.broker.list": "set kafka.bootstrap",
    "security.protocol": "set kafka.security.protocol",
    "sasl.mechanism": "set kafka.security.mechanism",
    "sasl.mechanisms": "set kafka.security.mechanism",
    "sasl.username": "set kafka.security.username",
    "sasl.password": "set kafka.security.password",
    "ssl.ca.location": "set kafka.security.ca_location",
    "ssl.certificate.location": "set kafka.security.certificate_location",
    "ssl.key.location": "set kafka.security.key_location",
    "ssl.key.password": "set kafka.security.key_password",
}


def is_secret(key: str) -> bool:
    """Whether a setting of this name holds a secret."""
    return _SECRET_NAME.search(key) is not None


def flatten(settings: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """(dotted name, value) of every setting: in TOML an unquoted `a.b.c = 1` is a table in a table."""
    waiting: list[tuple[str, object]] = [("", settings)]  # no recursion: the file may nest as deep as it likes
    while waiting:
        prefix, value = waiting.pop()
        if isinstance(value, Mapping) and len(prefix) <= MAX_NAME:
            waiting += [(f"{prefix}.{name}" if prefix else name, inner) for name, inner in value.items()]
        else:
            yield prefix, value


def checked(settings: Mapping[str, object]) -> tuple[tuple[str, Setting], ...]:
    """The settings, given by dotted name, ascending by name, those that hold secrets wrapped.

    Raises `ValueError` whose one-line message begins with the offending name and never shows a value.
    """
    found: dict[str, Setting] = {}
    for name, value in settings.items():
        if len(name) > MAX_NAME or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r:.80} is not the name of a librdkafka setting; remove it")
        if name in REFUSED:
            raise ValueError(f"{name} can't be set here: {REFUSED[name]}")
        if not isinstance(value, Scalar):
            raise ValueError(f"{name} must be {_SCALARS}")  # noqa: TRY004 - pydantic reports ValueError only
        if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
            raise ValueError(f"{name} must be an integer of at most {MAX_INTEGER_BITS} bits")
        found[name] = SecretStr(str(value)) if is_secret(name) else value
    _check_limits(found)
    return tuple(sorted(found.items()))


def _check_limits(settings: Mapping[str, Setting]) -> None:
    transaction_ms = DEFAULT_TRANSACTION_TIMEOUT_MS
    if "transaction.timeout.ms" in settings:
        transaction_ms = _integer(settings, "transaction.timeout.ms")
        if not MIN_TRANSACTION_TIMEOUT_MS <= transaction_ms <= MAX_TRANSACTION_TIMEOUT_MS:
            raise ValueError(
                f"transaction.timeout.ms must be {MIN_TRANSACTION_TIMEOUT_MS} to {MAX_TRANSACTION_TIMEOUT_MS}: "
                "an open transaction hides all that is behind it from every reader"
            )
    for name in ("message.timeout.ms", "delivery.timeout.ms"):
        if name in settings and not 0 < _integer(settings, name) < transaction_ms:
            raise ValueError(
                f"{name} must be above 0 and below transaction.timeout.ms ({transaction_ms}), "
                "so that a message fails before its transaction does"
            )
    for name in ("max.in.flight", "max.in.flight.requests.per.connection"):
        if name in settings and not 1 <= _integer(settings, name) <= MAX_IN_FLIGHT:
            raise ValueError(f"{name} must be 1 to {MAX_IN_FLIGHT}: {_IDEMPOTENT}")


def _integer(settings: Mapping[str, Setting], name: str) -> int:
    value = settings[name]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{name} must be an integer")  # noqa: TRY004 - pydantic reports ValueError only
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]{1,10}", value):
            raise ValueError(f"{name} must be an integer")
        return int(value)
    return value
