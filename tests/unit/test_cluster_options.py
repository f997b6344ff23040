"""`--config`, `--set` and `--insecure`: what a command and the processes that it starts are told."""

import inspect
import os
from importlib import import_module
from pathlib import Path

import pytest

from pipeline.cli.cluster_options import CONFIG_VARIABLE, with_cluster_options
from pipeline.cli.main import COMMANDS, run
from pipeline.cli.surroundings import settings
from pipeline.config import Config
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import ConfigError
from pipeline.node.bootstrap import new_chain
from pipeline.node.layout import NodeLayout


def told(layout: NodeLayout | None = None, **options: object) -> Config:
    """What a command that is given these options works with."""
    seen: list[Config] = []

    def command() -> None:
        seen.append(settings(layout, "127.0.0.1:9"))

    with_cluster_options(command)(**options)
    return seen[0]


def test_options_reach_the_settings_and_nothing_stays_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HAUPTBUCH_SHARD__LINGER_MS", "7")
    before = dict(os.environ)
    assert told().shard.linger_ms == 7
    assert not told().kafka.insecure
    config = told(insecure=True, set_=["shard.linger_ms=9", "kafka.librdkafka.socket.keepalive.enable=true"])
    assert config.kafka.insecure
    assert config.shard.linger_ms == 9
    assert config.kafka.librdkafka == (("socket.keepalive.enable", "true"),)
    assert dict(os.environ) == before


def test_a_file_lies_over_the_directorys(tmp_path: Path) -> None:
    layout = NodeLayout(tmp_path)
    layout.config.write_text("[shard]\nlinger_ms = 1\n[sync]\nround_linger_ms = 1\n")
    over = tmp_path / "user.toml"
    over.write_text('[sync]\nround_linger_ms = 2\n[kafka]\nbootstrap = "10.0.0.1:1"\n')
    config = told(layout, config=over)
    assert (config.shard.linger_ms, config.sync.round_linger_ms) == (1, 2)
    assert config.kafka.bootstrap == "127.0.0.1:9", "flags win"
    over.write_text("[sync]\nround_linger_ms = -1\n")
    with pytest.raises(ConfigError, match=r"user\.toml: sync\.round_linger_ms"):
        told(layout, config=over)


def test_processes_that_a_command_starts_are_told_the_same(tmp_path: Path) -> None:
    seen: dict[str, str] = {}
    with_cluster_options(lambda: seen.update(os.environ))(config=tmp_path / "a.toml", insecure=True)
    assert seen[CONFIG_VARIABLE] == str(tmp_path / "a.toml")
    assert seen["HAUPTBUCH_KAFKA__INSECURE"] == "true"


@pytest.mark.parametrize("text", ["linger=3", "shard.linger_ms", "=3", "shard.linger-ms=3", "SHARD.X=1", "shard..x=1"])
def test_what_is_no_setting_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no KEY=VALUE"):
        told(set_=[text])


@pytest.mark.parametrize(
    "key", ["kafka.security.password", "kafka.security.key_password", "kafka.librdkafka.ssl.keystore.password"]
)
def test_no_secret_stands_on_a_command_line(key: str) -> None:
    with pytest.raises(ConfigError, match="everyone on this machine can read command lines") as caught:
        told(set_=[f"{key}=geheim"])
    assert "geheim" not in str(caught.value)


def test_every_command_that_may_meet_a_cluster_takes_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, command in COMMANDS.items():
        parameters = inspect.signature(import_module(command.module).run).parameters
        assert command.cluster or "kafka" not in parameters, name
    for name in ("worker", "account"):
        assert run([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert all(option in shown for option in ("--config", "--set", "--insecure"))
    assert run(["status", str(tmp_path), "--set", "x"]) == 2
    assert capsys.readouterr().err == "hauptbuch: --set 'x' is no KEY=VALUE, such as shard.linger_ms=10\n"


def test_brokers_are_named_by_flag_or_settings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    genesis, settings_file = tmp_path / "genesis.avro", tmp_path / "user.toml"
    genesis.write_bytes(new_chain(STANDARD_SUITES, "x", 1, 1, seed=bytes(32)).chain.genesis.to_record())
    options = ["worker", "--genesis", str(genesis), "--data", str(tmp_path / "data")]
    assert run(options) == 2
    assert "kafka.bootstrap is not set" in capsys.readouterr().err
    settings_file.write_text('[kafka]\nbootstrap = "127.0.0.1:1"\n[kafka.security]\nprotocol = "SASL_SSL"\n')
    assert run([*options, "--config", str(settings_file)]) == 2
    shown = capsys.readouterr().err
    assert "user.toml: kafka.security: mechanism is not set" in shown
    assert shown.count("\n") == 1
