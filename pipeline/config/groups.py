"""The groups of the configuration: immutable, checked when made, printable without secrets."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from pipeline.config.librdkafka import Setting, checked

_BROKER: Final = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")


def _brokers(text: str) -> str:
    for broker in filter(None, text.split(",")):
        found = _BROKER.fullmatch(broker.strip())
        if found is None or not 0 < int(found[2]) < 1 << 16:
            raise ValueError('must be "host:port", more of them parted by commas')
    return text


def _librdkafka(value: object) -> object:
    if isinstance(value, Mapping):
        return checked(value)
    raise ValueError("must be a table of librdkafka settings")


Millis = Annotated[int, Field(strict=True, ge=0, le=60_000)]
Seconds = Annotated[int, Field(strict=True, ge=1, le=86_400)]
Flag = Annotated[bool, Field(strict=True)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Durability(StrEnum):
    """When a commit of the embedded log has happened."""

    SYNC = "sync"
    """On disk: survives loss of power."""
    PROCESS = "process"
    """With the operating system: survives the end of the process."""


class AssuranceName(StrEnum):
    """What the synchronizer checks before it signs."""

    HEADERS = "headers"
    """Headers and their chains; the execution is the worker's word."""
    EXECUTION = "execution"
    """Every block, executed again."""


class SecurityProtocol(StrEnum):
    """How clients talk to brokers, in Kafka's names."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"


_SASL: Final = frozenset({SecurityProtocol.SASL_PLAINTEXT, SecurityProtocol.SASL_SSL})
_TLS: Final = frozenset({SecurityProtocol.SSL, SecurityProtocol.SASL_SSL})


class KafkaSecurity(_Group):
    """Transport and identity towards brokers; None leaves librdkafka's default."""

    protocol: SecurityProtocol = SecurityProtocol.PLAINTEXT
    mechanism: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    ca_location: str | None = None
    certificate_location: str | None = None
    key_location: str | None = None
    key_password: SecretStr | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        """What would not do what it looks like is refused, above all an identity that is never told."""
        if self.protocol not in _SASL and (self.mechanism or self.username or self.password):
            raise ValueError(f"protocol {self.protocol} tells no username: set kafka.security.protocol to SASL_SSL")
        if self.protocol in _SASL and not self.mechanism:
            raise ValueError("mechanism is not set: give the brokers' one, such as SCRAM-SHA-512")
        with_password = (self.mechanism or "").upper().startswith(("PLAIN", "SCRAM-"))
        if self.protocol in _SASL and with_password and not (self.username and self.password):
            raise ValueError(f"{self.mechanism} needs username and password: set both")
        tls = self.ca_location or self.certificate_location or self.key_location or self.key_password
        if self.protocol not in _TLS and tls:
            raise ValueError(f"protocol {self.protocol} uses no certificates: set kafka.security.protocol to SASL_SSL")
        return self


class KafkaConfig(_Group):
    """The cluster. `bootstrap` is a comma-separated list of host:port, empty for a node on the embedded log."""

    bootstrap: Annotated[str, AfterValidator(_brokers)] = ""
    insecure: Flag = False
    """Use a cluster that lets everyone do everything, though it is not on loopback."""
    security: KafkaSecurity = KafkaSecurity()
    librdkafka: Annotated[tuple[tuple[str, Setting], ...], BeforeValidator(_librdkafka)] = ()

    def client_settings(self) -> dict[str, str | int | float | bool]:
        """Settings for a client, **secrets in the clear**: hand them to librdkafka, never to a log."""
        security = self.security
        named = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": security.protocol.value,
            "sasl.mechanism": security.mechanism,
            "sasl.username": security.username,
            "sasl.password": security.password,
            "ssl.ca.location": security.ca_location,
            "ssl.certificate.location": security.certificate_location,
            "ssl.key.location": security.key_location,
            "ssl.key.password": security.key_password,
        }
        settings = {**named, **dict(self.librdkafka)}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in settings.items()
            if value is not None
        }

    def hide(self, text: str) -> str:
        """`text` without any secret of this configuration: for what a client says."""
        for secret in sorted(self.secrets, key=len, reverse=True):  # one may be part of another
            text = text.replace(secret, "***")
        return text

    @property
    def secrets(self) -> frozenset[str]:
        """Values that nobody may be shown, **in the clear**."""
        values = [self.security.password, self.security.key_password, *dict(self.librdkafka).values()]
        return frozenset(value.get_secret_value() for value in values if isinstance(value, SecretStr)) - {""}


class ShardConfig(_Group):
    """How a shard fills blocks; their limits in records, bytes and gas are genesis's."""

    linger_ms: Millis = 5
    """A block closes this long after its first input."""
    standby_copies: Annotated[int, Field(strict=True, ge=0, le=64)] = 1
    """How many other workers keep a warm copy of each shard, each executing its blocks too."""


class StoreConfig(_Group):
    """The state store and the embedded log."""

    cache_bytes: Annotated[int, Field(strict=True, ge=1 << 20, le=1 << 40)] = 256 << 20
    """Memory for slot trees that were touched."""
    durability: Durability = Durability.SYNC


class SyncConfig(_Group):
    """The synchronizer."""

    round_linger_ms: Millis = 5
    """A round closes this long after its first unsigned block."""
    assurance: AssuranceName | None = None
    """None: `headers` in a node of one process, whose signer is its own worker, `execution` elsewhere."""
    max_clock_ahead_ms: Annotated[int, Field(strict=True, ge=0, le=600_000)] = 10_000
    """A header further ahead of the signer's clock waits."""


class ShardingSystemConfig(_Group):
    """The original architecture's settings. Timeouts raise in façade futures and never change state."""

    max_shards: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1000
    shard_creation_timeout_s: Seconds = 60
    transaction_processing_timeout_s: Seconds = 30
    cross_shard_communication_timeout_s: Seconds = 120
    state_synchronization_timeout_s: Seconds = 180
    enable_parallel_processing: Flag = True
    enable_sharding_optimization: Flag = True


class Config(_Group):
    """All of it."""

    kafka: KafkaConfig = KafkaConfig()
    shard: ShardConfig = ShardConfig()
    store: StoreConfig = StoreConfig()
    sync: SyncConfig = SyncConfig()
    system: ShardingSystemConfig = ShardingSystemConfig()
