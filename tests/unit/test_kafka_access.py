"""Who is let into a cluster, and which clusters are refused: the decisions, without brokers."""

import socket
import time
from typing import Any

import pytest
from confluent_kafka import KafkaError

from pipeline.config import KafkaConfig, KafkaSecurity, SecurityProtocol
from pipeline.errors import ConfigError, Retryable
from pipeline.log.kafka import access
from pipeline.log.kafka.access import Cluster, is_anonymous, is_loopback, is_open, require_access
from pipeline.log.kafka.faults import read_fault, refusal, write_fault
from pipeline.log.kafka.settings import LOGGER, admin_settings

FAR, NEAR = ("10.1.2.3", "127.0.0.1"), ("127.0.0.1", "::1")
PLAIN = KafkaConfig(bootstrap="127.0.0.1:1", librdkafka={"log_level": 0})  # type: ignore[arg-type]
NAMED = KafkaConfig(
    bootstrap="127.0.0.1:1",
    security=KafkaSecurity(
        protocol=SecurityProtocol.SASL_SSL,
        mechanism="SCRAM-SHA-512",
        username="worker",
        password="geheim",  # type: ignore[arg-type]
    ),
    librdkafka={"log_level": 0},  # type: ignore[arg-type]
)


def never() -> bool:
    raise AssertionError("asked for nothing")


@pytest.mark.parametrize(
    ("config", "cluster", "lacks_authorizer", "verdict"),
    [
        (PLAIN, Cluster(FAR, may_alter=True), None, True),
        (PLAIN, Cluster(FAR, may_alter=False), None, False),
        (PLAIN, Cluster(NEAR, may_alter=True), None, False),
        (NAMED, Cluster(FAR, may_alter=True), True, True),
        (NAMED, Cluster(FAR, may_alter=True), False, False),
        (NAMED, Cluster(FAR, may_alter=False), None, False),
        (NAMED, Cluster(NEAR, may_alter=True), None, False),
    ],
)
def test_what_is_open_to_everyone(
    config: KafkaConfig, cluster: Cluster, lacks_authorizer: bool | None, verdict: bool
) -> None:
    ask = never if lacks_authorizer is None else lambda: bool(lacks_authorizer)
    assert is_open(config, cluster, ask) is verdict


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("fe80::1", False),
        ("home", True),
        ("both", False),
        ("away", False),
        ("scoped", False),
        ("nowhere", False),
        ("x" * 70 + ".y", False),
    ],
)
def test_loopback_is_what_a_name_means(monkeypatch: pytest.MonkeyPatch, host: str, found: bool) -> None:
    names = {
        "home": ["127.0.0.1", "::1"],
        "both": ["127.0.0.1", "10.0.0.1"],
        "away": ["10.0.0.1"],
        "scoped": ["fe80::1%eth0"],
    }

    def resolve(name: str, port: None) -> list[Any]:
        if name not in names:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 0)) for address in names[name]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert is_loopback(host) is found


def test_who_has_a_name() -> None:
    assert is_anonymous(PLAIN)
    assert not is_anonymous(NAMED)
    ssl = KafkaSecurity(protocol=SecurityProtocol.SSL)
    assert is_anonymous(KafkaConfig(bootstrap="a:1", security=ssl))
    certified = ssl.model_copy(update={"certificate_location": "mine.pem"})
    assert not is_anonymous(KafkaConfig(bootstrap="a:1", security=certified))


def test_an_open_cluster_elsewhere_is_refused_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_ask", lambda *_: Cluster(("127.0.0.1", "broker.example"), may_alter=True))
    with pytest.raises(ConfigError) as caught:
        require_access(PLAIN)
    message = str(caught.value)
    assert message.startswith("the cluster of broker.example lets everyone write everything")
    assert "authorizer.class.name" in message
    assert "--insecure" in message
    assert "\n" not in message
    assert require_access(PLAIN.model_copy(update={"insecure": True})) is None


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_ANSWER_S", 0.2)
    started = time.monotonic()
    with pytest.raises(Retryable, match="no answer from Kafka") as caught:
        require_access(PLAIN)
    assert time.monotonic() - started < 10
    assert "Connection refused" in str(caught.value)


def test_settings_that_no_client_takes() -> None:
    odd = NAMED.security.model_copy(update={"mechanism": "SCRAM-SHA-3"})
    with pytest.raises(ConfigError, match="librdkafka refuses its settings") as caught:
        require_access(NAMED.model_copy(update={"security": odd}))
    assert "geheim" not in str(caught.value)


def test_a_refusal_says_what_was_asked_for_and_who_can_help() -> None:
    denied = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    assert str(refusal(denied, "x.blocks")).startswith("x.blocks: Kafka refuses this client: ")
    assert "python -m deploy.kafka acl" in str(refusal(denied))
    assert isinstance(read_fault(denied, "x.blocks, partition 0"), ConfigError)
    assert "writer w: Kafka refuses" in str(
        write_fault(KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED), "w", committing=False)
    )
    assert "check kafka.security" in str(refusal(KafkaError(KafkaError._AUTHENTICATION)))
    assert refusal(KafkaError(KafkaError._TRANSPORT)) is None


def test_what_clients_say_of_their_settings_is_logged_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    admin_settings(NAMED)
    with caplog.at_level("INFO", logger=LOGGER.name):
        LOGGER.info("unrecognized: %s", "geheim=3")
        LOGGER.info("nothing to hide in %s", "this")
    assert [record.getMessage() for record in caplog.records] == ["unrecognized: ***=3", "nothing to hide in this"]
