"""docker-compose.yml and the image, as far as they can be judged without a container engine."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from deploy.kafka.settings import BrokerPlace, server_properties
from pipeline.cli.main import COMMANDS, build_app
from pipeline.config import load_config
from pipeline.data import SAMPLE_FILE
from pipeline.watch.logs import LogFormat
from pipeline.watch.server import HttpAddress

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
BROKERS = sorted(name for name in SERVICES if name.startswith("kafka-"))
OURS = sorted(set(SERVICES) - set(BROKERS))


def arguments(service: dict[str, Any]) -> list[str]:
    """What follows `hauptbuch`."""
    command = service["command"]
    if isinstance(command, list):
        return shlex.split(command[0].partition("|| hauptbuch ")[2])
    return shlex.split(command)


@pytest.mark.parametrize("name", OURS)
def test_commands_and_their_options_exist(name: str) -> None:
    command, *rest = arguments(SERVICES[name])
    assert command in COMMANDS
    parameters = typer.main.get_command(build_app([command])).commands[command].params  # type: ignore[attr-defined]
    known = {option for parameter in parameters for option in parameter.opts}
    given = {argument for argument in rest if argument.startswith("--")}
    assert given <= known
    assert {
        parameter.opts[0] for parameter in parameters if parameter.required and parameter.opts[0][0] == "-"
    } <= given


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_services_name_is_there(name: str) -> None:
    service = SERVICES[name]
    mounts = dict(mount.split(":")[:2] for mount in service["volumes"])
    assert set(mounts) <= set(COMPOSE["volumes"])
    for other, wanted in service.get("depends_on", {}).items():
        assert other in SERVICES
        assert wanted["condition"] in ("service_healthy", "service_completed_successfully")
        assert wanted["condition"] != "service_healthy" or "healthcheck" in SERVICES[other]
    if "build" in service:
        assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_no_two_processes_share_a_directory_or_a_key() -> None:
    data = [mount for name in OURS for mount in SERVICES[name]["volumes"] if mount.endswith(":/data")]
    assert len(data) == len(set(data)) == 5
    keys = [key for name in OURS for key in re.findall(r"--key (\S+)", str(SERVICES[name]["command"]))]
    assert keys == ["/ledger/main/keys/attestor.json", "/ledger/main/keys/attestor-2.json"]


def test_ours_say_that_these_brokers_are_open() -> None:
    assert "KAFKA_AUTHORIZER_CLASS_NAME" not in SERVICES["kafka-1"]["environment"]
    for name in OURS:
        assert load_config(None, SERVICES[name]["environment"]).kafka.insecure, name


def test_all_connect_to_all_brokers() -> None:
    wanted = ",".join(f"{name}:9092" for name in BROKERS)
    for name in OURS:
        given = arguments(SERVICES[name])
        assert name == "loader" or given[given.index("--kafka") + 1] == wanted
    for name in BROKERS:
        assert SERVICES[name]["environment"]["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{name}:9092"
    assert sorted(SERVICES[name]["environment"]["KAFKA_NODE_ID"] for name in BROKERS) == ["1", "2", "3"]


def test_who_is_asked_for_its_health_serves_it() -> None:
    watched = [name for name in OURS if "healthcheck" in SERVICES[name]]
    assert watched == ["attestor-1", "attestor-2", "sync", "worker-1", "worker-2"]
    for name in watched:
        given = arguments(SERVICES[name])
        address = HttpAddress.parse(given[given.index("--http") + 1])
        assert f"http://127.0.0.1:{address.port}/readyz" in SERVICES[name]["healthcheck"]["test"][-1]
        assert given[given.index("--log") + 1] in list(LogFormat)


def test_brokers_are_set_as_the_native_ones() -> None:
    places = [BrokerPlace(number, 1, 2, Path("x")) for number in (1, 2, 3)]
    native = dict(line.split("=", 1) for line in server_properties(places[0], places).splitlines())
    environment = SERVICES["kafka-1"]["environment"]
    shared = [name for name in native if f"KAFKA_{name.replace('.', '_').upper()}" in environment]
    differing = {"node.id", "controller.quorum.voters", "listeners", "advertised.listeners", "log.dirs"}
    assert len(shared) > 12
    for name in set(shared) - differing:
        assert environment[f"KAFKA_{name.replace('.', '_').upper()}"] == native[name], name


def test_the_image_has_what_it_copies() -> None:
    text = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for copied in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists()
            assert name in kept
    assert f"pipeline/data/{SAMPLE_FILE} /sample/payments.csv.gz" in text
