"""A secured loopback cluster: TLS everywhere, SCRAM for clients, and an authorizer that allows only what was granted.

Clients come in by SASL_SSL and SCRAM-SHA-512. Brokers and controllers know each other by their certificates, so that no
password is needed to start: the runner makes the first user over the brokers' own listener.
"""

import secrets
import time
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from deploy.kafka.certificates import BROKER_NAME, authority_file, broker_file, write_private
from deploy.kafka.settings import BrokerPlace
from pipeline.errors import ConfigError, Fatal

ADMINISTRATOR: Final = "admin"
_MECHANISM: Final = "SCRAM-SHA-512"
_ITERATIONS: Final = 4096  # the least that Kafka takes; passwords are random, so that more would protect nothing
_NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_REQUEST_S: Final = 10.0
_READY_S: Final = 60.0


def secure_settings(root: Path, place: BrokerPlace) -> dict[str, object]:
    """What a broker's properties become where the cluster is secured."""
    return {
        "listeners": (
            f"CLIENTS://{place.address},INTERNAL://127.0.0.1:{place.internal_port},"
            f"CONTROLLER://127.0.0.1:{place.controller_port}"
        ),
        "advertised.listeners": f"CLIENTS://{place.address},INTERNAL://127.0.0.1:{place.internal_port}",
        "listener.security.protocol.map": "CLIENTS:SASL_SSL,INTERNAL:SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "INTERNAL",
        "listener.name.internal.ssl.client.auth": "required",
        "listener.name.controller.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": broker_file(root, place.node_id),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": authority_file(root),
        "sasl.enabled.mechanisms": _MECHANISM,
        "listener.name.clients.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": f"User:CN={BROKER_NAME};User:{ADMINISTRATOR}",
    }


def settings_file(root: Path, name: str) -> Path:
    """What `hauptbuch --config` takes to be this user."""
    return root / "clients" / f"{name}.toml"


def add_user(root: Path, places: list[BrokerPlace], name: str) -> Path:
    """Give a user a new random password, and write the settings file that holds it; its path.

    Raises `ConfigError` for a name that can't be one, `Fatal` where the cluster does not take it.
    """
    if not 1 <= len(name) <= 64 or not _NAME_CHARACTERS.issuperset(name) or name.startswith("."):
        raise ConfigError(f"{name!r:.80} can't be a user: use letters, digits, '.', '_', '-'")
    password = secrets.token_urlsafe(24)
    _upsert(root, places, name, password)
    path = settings_file(root, name)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    bootstrap = ",".join(place.address for place in places)
    write_private(
        path,
        f"""\
# User {name}: whoever reads this is this user.
[kafka]
bootstrap = "{bootstrap}"

[kafka.security]
protocol = "SASL_SSL"
mechanism = "{_MECHANISM}"
username = "{name}"
password = "{password}"
ca_location = "{authority_file(root)}"
""".encode(),
    )
    return path


def _upsert(root: Path, places: list[BrokerPlace], name: str, password: str) -> None:
    mine = str(broker_file(root, places[0].node_id))
    admin = AdminClient(
        {
            "bootstrap.servers": ",".join(f"127.0.0.1:{place.internal_port}" for place in places),
            "security.protocol": "SSL",
            "ssl.ca.location": str(authority_file(root)),
            "ssl.certificate.location": mine,
            "ssl.key.location": mine,
            "log_level": 0,
        }
    )
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS)
    wanted = UserScramCredentialUpsertion(name, info, password.encode())
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            admin.alter_user_scram_credentials([wanted], request_timeout=_REQUEST_S)[name].result(_REQUEST_S)
        except (KafkaException, TimeoutError) as exception:
            if time.monotonic() > deadline:
                raise Fatal(f"the cluster takes no user {name}: {_reason(exception)}; is it running?") from None
            time.sleep(0.2)  # its controller has just been started
        else:
            return


def _reason(exception: Exception) -> str:
    error = exception.args[0] if exception.args else None
    return error.str() if isinstance(error, KafkaError) else "no answer"
