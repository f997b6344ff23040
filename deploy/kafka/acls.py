"""Setting a role's access rules on a cluster. Only literal names, only `allow`, from any host."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from deploy.kafka.roles import Grant, Operation, Resource
from pipeline.config import KafkaConfig
from pipeline.errors import ConfigError, Retryable
from pipeline.log.kafka.faults import error_in, refusal
from pipeline.log.kafka.settings import admin_settings

_REQUEST_S: Final = 15.0
_ANY_HOST: Final = "*"
_RESOURCES: Final[Mapping[Resource, ResourceType]] = MappingProxyType(
    {
        Resource.TOPIC: ResourceType.TOPIC,
        Resource.GROUP: ResourceType.GROUP,
        Resource.TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
    }
)
_OPERATIONS: Final[Mapping[Operation, AclOperation]] = MappingProxyType(
    {
        Operation.READ: AclOperation.READ,
        Operation.WRITE: AclOperation.WRITE,
        Operation.DESCRIBE: AclOperation.DESCRIBE,
    }
)


def allow(config: KafkaConfig, user: str, grants: Sequence[Grant]) -> Iterator[tuple[str, Grant]]:
    """Set what is not set yet; yields ("+", grant) for each that was set, ("=", grant) for each that was there.

    Raises `ConfigError` where the cluster has no authorizer or refuses this client, `Retryable` without an answer.
    """
    admin = _admin(config, user)
    there = _bindings(admin, user)
    wanted = {grant: _binding(user, grant) for grant in grants}
    missing = [binding for binding in wanted.values() if binding not in there]
    if missing:
        for future in admin.create_acls(missing, request_timeout=_REQUEST_S).values():
            _answer(future)
    for grant, binding in wanted.items():
        yield ("=" if binding in there else "+"), grant


def revoke(config: KafkaConfig, user: str, grants: Sequence[Grant]) -> Iterator[tuple[str, Grant]]:
    """Take away what is set; yields ("-", grant) for each. Raises as `allow`."""
    admin = _admin(config, user)
    there = _bindings(admin, user)
    going = [grant for grant in grants if _binding(user, grant) in there]
    if going:
        filters = [_filter(user, grant) for grant in going]
        for future in admin.delete_acls(filters, request_timeout=_REQUEST_S).values():
            _answer(future)
    for grant in going:
        yield "-", grant


def _admin(config: KafkaConfig, user: str) -> AdminClient:
    if not config.bootstrap:
        raise ConfigError("kafka.bootstrap is not set: give --kafka, or --config with an administrator's settings")
    if not user or not user.isprintable() or user == "*":
        raise ConfigError(f"--user {user!r:.80} is nobody's name: give each process a user of its own")
    try:
        return AdminClient(admin_settings(config))
    except KafkaException as exception:
        raise ConfigError(f"librdkafka refuses its settings: {error_in(exception).str()}") from None


def _bindings(admin: AdminClient, user: str) -> frozenset[AclBinding]:
    every = AclBindingFilter(
        ResourceType.ANY,
        None,  # type: ignore[arg-type] # any: the client's types forbid what its documentation asks for
        ResourcePatternType.ANY,
        f"User:{user}",
        None,  # type: ignore[arg-type] # as above
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    return frozenset(_answer(admin.describe_acls(every, request_timeout=_REQUEST_S)))


def _binding(user: str, grant: Grant) -> AclBinding:
    return AclBinding(
        _RESOURCES[grant.resource],
        grant.name,
        ResourcePatternType.LITERAL,
        f"User:{user}",
        _ANY_HOST,
        _OPERATIONS[grant.operation],
        AclPermissionType.ALLOW,
    )


def _filter(user: str, grant: Grant) -> AclBindingFilter:
    return AclBindingFilter(
        _RESOURCES[grant.resource],
        grant.name,
        ResourcePatternType.LITERAL,
        f"User:{user}",
        _ANY_HOST,
        _OPERATIONS[grant.operation],
        AclPermissionType.ALLOW,
    )


def _answer(future: "Future[Any]") -> Any:
    try:
        return future.result(_REQUEST_S)
    except KafkaException as exception:
        error = error_in(exception)
        raise refusal(error) or Retryable(f"Kafka sets no access rules: {error.str()}; are the brokers up?") from None
    except TimeoutError:
        raise Retryable(f"no answer from Kafka in {_REQUEST_S:.0f} s: are the brokers up?") from None
