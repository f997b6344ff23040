"""Whether a cluster lets this client in, and whether it lets everyone in.

A cluster without an authorizer lets whoever reaches it write blocks, cut topics and end others' transactions. On
loopback that is a developer's machine; anywhere else it is refused, unless the operator says that it is meant so.

How it is seen. Brokers tell a client what it may do to the cluster. Who may not alter it meets an authorizer. Who may
is an administrator, or everyone: a client without identity is everyone; for the others, brokers without an authorizer
refuse to change access rules (SECURITY_DISABLED), even to take away one that never was. (To ask for the rules would
serve as well, but the client gives an empty list where the broker answered with an error.)
"""

import ipaddress
import socket
import time
from collections.abc import Callable
from typing import Final, NamedTuple
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from pipeline.config import KafkaConfig, SecurityProtocol
from pipeline.errors import ConfigError, Retryable
from pipeline.log.kafka.faults import error_in, usable_settings
from pipeline.log.kafka.settings import admin_settings

_ANSWER_S: Final = 15.0
_REFUSED_S: Final = 1.0
"""A broker that starts may refuse users for a moment; then it means it."""
_SLICE_S: Final = 0.005
_REFUSALS: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED})


class Cluster(NamedTuple):
    """What a cluster says of itself: hosts that it names to clients, and whether this client may alter it."""

    hosts: tuple[str, ...]
    may_alter: bool


class _Complaints:
    """What the client says about its connections while it waits."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None
        self.refused: KafkaError | None = None
        self._refused_s = 0.0

    def note(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            return  # says less than what it was told before
        self.last = error
        if error.code() in _REFUSALS and self.refused is None:
            self.refused, self._refused_s = error, time.monotonic()

    @property
    def is_decided(self) -> bool:
        return self.refused is not None and time.monotonic() - self._refused_s > _REFUSED_S


def require_access(config: KafkaConfig) -> None:
    """Return where the cluster lets this client in, and not everyone.

    Raises `ConfigError` where it refuses this client's identity, this client its certificate, or it is open to everyone
    and not on loopback (`config.insecure` allows that); `Retryable` where nobody answers in 15 s.
    """
    complaints = _Complaints()
    with usable_settings(config.hide):
        admin = AdminClient({**admin_settings(config), "error_cb": complaints.note})  # type: ignore[dict-item]
    cluster = _ask(config, admin, complaints)
    if config.insecure or not is_open(config, cluster, lambda: _lacks_authorizer(admin)):
        return
    host = next(host for host in cluster.hosts if not is_loopback(host))
    raise ConfigError(
        f"the cluster of {host} lets everyone write everything, and is not on loopback: set authorizer.class.name on "
        "its brokers and grant each role its rights (`python -m deploy.kafka acl`), or give --insecure to use it so"
    )


def is_open(config: KafkaConfig, cluster: Cluster, lacks_authorizer: Callable[[], bool]) -> bool:
    """Whether a cluster that is not on loopback lets everyone do everything. Asks only where it must."""
    if not cluster.may_alter or all(map(is_loopback, cluster.hosts)):
        return False
    return is_anonymous(config) or lacks_authorizer()


def is_anonymous(config: KafkaConfig) -> bool:
    """Whether brokers are told no name: the rights of this client are everyone's."""
    match config.security.protocol:
        case SecurityProtocol.PLAINTEXT:
            return True
        case SecurityProtocol.SSL:
            certified = {"ssl.certificate.location", "ssl.certificate.pem", "ssl.keystore.location"}
            return certified.isdisjoint(config.client_settings())
        case SecurityProtocol.SASL_PLAINTEXT | SecurityProtocol.SASL_SSL:
            return False


def is_loopback(host: str) -> bool:
    """Whether all addresses of a host are this machine's alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = {str(address[0]) for *_, address in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def _ask(config: KafkaConfig, admin: AdminClient, complaints: _Complaints) -> Cluster:
    asked = admin.describe_cluster(include_authorized_operations=True, request_timeout=_ANSWER_S)
    deadline = time.monotonic() + _ANSWER_S
    while not asked.done() and not complaints.is_decided and time.monotonic() < deadline:
        admin.poll(_SLICE_S)
    try:
        told = asked.result(0)
    except (KafkaException, TimeoutError) as exception:
        if complaints.refused is not None:
            raise ConfigError(
                f"no way into Kafka: {config.hide(complaints.refused.str())}; check kafka.security.*"
            ) from None
        why = complaints.last or (error_in(exception) if isinstance(exception, KafkaException) else None)
        reason = f" ({config.hide(why.str())})" if why is not None else ""
        raise Retryable(
            f"no answer from Kafka in {_ANSWER_S:.0f} s{reason}: are the brokers up, and is kafka.security.protocol "
            "theirs?"
        ) from None
    hosts = tuple(node.host for node in told.nodes)
    return Cluster(hosts, AclOperation.ALTER in (told.authorized_operations or ()))


def _lacks_authorizer(admin: AdminClient) -> bool:
    """Ask to take away a rule that nobody can have made."""
    name = f"hauptbuch-nobody-{uuid4().hex}"
    nothing = AclBindingFilter(
        ResourceType.TOPIC,
        name,
        ResourcePatternType.LITERAL,
        f"User:{name}",
        "*",
        AclOperation.READ,
        AclPermissionType.DENY,
    )
    try:
        admin.delete_acls([nothing], request_timeout=_ANSWER_S)[nothing].result(_ANSWER_S)
    except KafkaException as exception:
        return error_in(exception).code() == KafkaError.SECURITY_DISABLED
    except TimeoutError:
        raise Retryable(f"no answer from Kafka in {_ANSWER_S:.0f} s: are the brokers up?") from None
    return False
