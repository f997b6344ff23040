"""Configuration: layers, types, refusals; every hostile input ends in one line."""

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from pipeline.config import AssuranceName, Config, Durability, KafkaConfig, SecurityProtocol, ShardConfig, load_config
from pipeline.config.librdkafka import REFUSED, checked, flatten
from pipeline.config.sources import MAX_FILE_BYTES
from pipeline.errors import ConfigError


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "hauptbuch.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "secret", ['[kafka.security]\npassword = "geheim"\n', '[kafka.librdkafka]\n"ssl.key.pem" = "x"\n']
)
@pytest.mark.parametrize("mode", [0o604, 0o602])
def test_a_secret_in_a_file_for_everybody_is_refused(tmp_path: Path, secret: str, mode: int) -> None:
    path = written(tmp_path, secret)
    path.chmod(mode)
    for sources in ({"path": path}, {"over": path}):
        message = refusal(**sources)
        assert "everybody here may read or change kafka." in message
        assert f"run `chmod 600 {path}`" in message
        assert "geheim" not in message


def test_a_file_for_everybody_without_a_secret_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "[shard]\nlinger_ms = 7\n")
    path.chmod(0o666)
    assert load_config(path).shard.linger_ms == 7


def test_a_file_laid_over_that_is_not_there_is_named_as_what_it_is(tmp_path: Path) -> None:
    assert "--config (HAUPTBUCH_CONFIG) must name a TOML file" in refusal(over=tmp_path / "none.toml")


def refusal(**sources: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(**sources)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.isprintable(), message
    assert len(message) < 500
    return message


def test_defaults_are_those_of_the_original_text() -> None:
    config = load_config()
    assert config == Config()
    system = config.system
    assert (system.max_shards, system.shard_creation_timeout_s, system.transaction_processing_timeout_s) == (
        1000,
        60,
        30,
    )
    assert (system.cross_shard_communication_timeout_s, system.state_synchronization_timeout_s) == (120, 180)
    assert system.enable_parallel_processing
    assert system.enable_sharding_optimization
    assert (config.shard.linger_ms, config.sync.round_linger_ms, config.sync.max_clock_ahead_ms) == (5, 5, 10_000)
    assert config.store.durability is Durability.SYNC
    assert config.sync.assurance is None


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "[shard]\nlinger_ms = 1\n"
        '[sync]\nround_linger_ms = 1\nassurance = "execution"\n[store]\ncache_bytes = 1_048_576\n',
    )
    environ = {"HAUPTBUCH_SYNC__ROUND_LINGER_MS": "2", "HAUPTBUCH_STORE__CACHE_BYTES": "2097152", "PATH": "/bin"}
    config = load_config(path, environ, {"store.cache_bytes": 4_194_304, "store.durability": "process"})
    assert config.shard.linger_ms == 1
    assert config.sync.round_linger_ms == 2
    assert config.store.cache_bytes == 4_194_304
    assert config.store.durability is Durability.PROCESS
    assert config.sync.assurance is AssuranceName.EXECUTION


def test_text_is_read_as_the_settings_type() -> None:
    environ = {"HAUPTBUCH_SYSTEM__ENABLE_PARALLEL_PROCESSING": "false", "HAUPTBUCH_SYSTEM__MAX_SHARDS": "12"}
    security = {"protocol": "SASL_SSL", "mechanism": "GSSAPI", "username": "17"}
    config = load_config(None, environ, {f"kafka.security.{name}": value for name, value in security.items()})
    assert config.system.enable_parallel_processing is False
    assert config.system.max_shards == 12
    assert config.kafka.security.username == "17"


def test_librdkafka_settings_pass_through_from_every_source(tmp_path: Path) -> None:
    path = written(tmp_path, '[kafka.librdkafka]\nsocket.keepalive.enable = true\n"compression.type" = "zstd"\n')
    environ = {"HAUPTBUCH_KAFKA__LIBRDKAFKA__COMPRESSION_TYPE": "lz4"}
    config = load_config(path, environ, {"kafka.librdkafka.linger.ms": 3, "kafka.bootstrap": "a:9092,[::1]:9093"})
    assert config.kafka.librdkafka == (("compression.type", "lz4"), ("linger.ms", 3), ("socket.keepalive.enable", True))
    assert config.kafka.client_settings() == {
        "bootstrap.servers": "a:9092,[::1]:9093",
        "security.protocol": "PLAINTEXT",
        "compression.type": "lz4",
        "linger.ms": 3,
        "socket.keepalive.enable": True,
    }


def test_secrets_are_hidden_but_reach_the_client(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[kafka.security]\nprotocol = "SASL_SSL"\nmechanism = "PLAIN"\nusername = "u"\npassword = "geheim-1"\n'
        'key_password = "geheim-2"\n[kafka.librdkafka]\n'
        'sasl.oauthbearer.client.secret = "geheim-3"\nssl.key.pem = "geheim-4"\n',
    )
    config = load_config(path)
    assert config.kafka.security.protocol is SecurityProtocol.SASL_SSL
    for shown in (repr(config), str(config), json.dumps(config.model_dump(mode="json"))):
        assert "geheim" not in shown
    settings_of_client = config.kafka.client_settings()
    assert settings_of_client["sasl.password"] == "geheim-1"
    assert settings_of_client["ssl.key.password"] == "geheim-2"
    assert settings_of_client["sasl.oauthbearer.client.secret"] == "geheim-3"
    assert settings_of_client["ssl.key.pem"] == "geheim-4"
    assert pickle.loads(pickle.dumps(config)) == config, "worker processes get it by pickle"


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        ({"username": "u"}, "protocol PLAINTEXT tells no username: set kafka.security.protocol to SASL_SSL"),
        ({"password": "geheim"}, "protocol PLAINTEXT tells no username"),
        ({"protocol": "SSL", "mechanism": "PLAIN"}, "protocol SSL tells no username"),
        ({"protocol": "SASL_SSL"}, "mechanism is not set"),
        ({"protocol": "SASL_SSL", "mechanism": "PLAIN", "password": "geheim"}, "PLAIN needs username and password"),
        ({"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-512", "username": "u", "password": ""}, "set both"),
        ({"ca_location": "ca.pem"}, "protocol PLAINTEXT uses no certificates"),
        ({"protocol": "SASL_PLAINTEXT", "mechanism": "GSSAPI", "key_password": "geheim"}, "uses no certificates"),
    ],
)
def test_an_identity_that_would_not_be_told_is_refused(tmp_path: Path, security: dict[str, str], expected: str) -> None:
    lines = "".join(f'{name} = "{value}"\n' for name, value in security.items())
    for message in (
        refusal(path=written(tmp_path, "[kafka.security]\n" + lines)),
        refusal(environ={f"HAUPTBUCH_KAFKA__SECURITY__{name.upper()}": text for name, text in security.items()}),
    ):
        assert expected in message
        assert "geheim" not in message
        assert message.startswith(("hauptbuch.toml: kafka.security: ", "environment HAUPTBUCH_KAFKA__SECURITY__"))


def test_whatever_a_client_says_its_secrets_can_be_taken_out(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[kafka.security]\nprotocol = "SASL_SSL"\nmechanism = "PLAIN"\nusername = "u"\npassword = "geheim"\n'
        '[kafka.librdkafka]\nsasl.oauthbearer.config = "scope=geheim-2"\n',
    )
    kafka = load_config(path).kafka
    assert kafka.hide("bad geheim, bad scope=geheim-2") == "bad ***, bad ***"
    assert KafkaConfig().hide("as it is") == "as it is"


def test_a_wrong_secret_is_not_shown(tmp_path: Path) -> None:
    message = refusal(path=written(tmp_path, "[kafka.security]\npassword = 987654\n"))
    assert message == "hauptbuch.toml: kafka.security.password: must be a valid string"


def test_groups_are_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError):
        config.shard.linger_ms = 3
    with pytest.raises(ValidationError):
        ShardConfig(linger_ms=3, block_records=1)  # type: ignore[call-arg]
    assert not dataclasses.is_dataclass(config)
    assert hash(config) == hash(Config())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[shard]\nlinger_ms = -1", "hauptbuch.toml: shard.linger_ms: must be greater than or equal to 0, not -1"),
        ('[shard]\nlinger_ms = "5"', "hauptbuch.toml: shard.linger_ms: must be a valid integer, not '5'"),
        ("[shard]\nlinger_ms = 5.0", "hauptbuch.toml: shard.linger_ms: must be a valid integer, not 5.0"),
        ("[shard]\nlinger_ms = true", "hauptbuch.toml: shard.linger_ms: must be a valid integer, not True"),
        ("[shard]\nlinger = 5", "hauptbuch.toml: shard.linger: no such setting; there are: linger_ms"),
        ("[shrad]", "hauptbuch.toml: shrad: no such setting; there are: kafka, shard, store, sync, system"),
        ("shard = 1", "hauptbuch.toml: shard: must be a table, written [shard]"),
        (
            "[store]\ncache_bytes = 1",
            "hauptbuch.toml: store.cache_bytes: must be greater than or equal to 1048576, not 1",
        ),
        ('[store]\ndurability = "x"', "hauptbuch.toml: store.durability: must be 'sync' or 'process', not 'x'"),
        ("[system]\nmax_shards = 1001", "system.max_shards: must be less than or equal to 1000, not 1001"),
        ("[system]\nenable_parallel_processing = 1", "must be a valid boolean, not 1"),
        ('[kafka]\nbootstrap = "broker"', 'kafka.bootstrap: must be "host:port", more of them parted by commas'),
        ('[kafka]\nbootstrap = "broker:65536"', "kafka.bootstrap: must be"),
        ("[kafka]\nlibrdkafka = 3", "kafka.librdkafka: must be a table, written [kafka.librdkafka]"),
        ("[kafka.librdkafka]\nx = [1]", "kafka.librdkafka: x must be text, an integer"),
        ("[kafka.librdkafka]\nX = 1", "kafka.librdkafka: 'X' is not the name of a librdkafka setting"),
        ('[kafka.librdkafka]\na.b = 1\n"a.b" = 2', "hauptbuch.toml: kafka.librdkafka.a.b: set twice; keep one"),
        ("[kafka.librdkafka]\nx = 0x" + "f" * 50_000, "x must be an integer of at most 63 bits"),
        (
            "[store]\ncache_bytes = 0x" + "f" * 50_000,
            "must be less than or equal to 1099511627776, not a number of that size",
        ),
        ("[store]\ncache_bytes = " + "9" * 5_000, "not TOML: nested too deeply or number too long"),
        ("[sync]\nassurance = 1979-05-27", "must be 'headers' or 'execution', not datetime.date(1979, 5, 27)"),
        ("a = " + "[" * 5_000, "not TOML: nested too deeply or number too long"),
        ("[kafka.librdkafka." + ".".join("b" * 5_000) + "]\nx = 1", "is not the name of a librdkafka setting"),
        ('"\\u001b[31m" = 1', "?[31m: no such setting"),
        ("shard = {", "not TOML: "),
        ("[shard]\nlinger_ms = 1\nlinger_ms = 2", "not TOML: "),
        (b"\xff\xfe", "not UTF-8; save it as UTF-8 text"),
        (b"a = \x00", "not TOML: "),
        (b"#" * (MAX_FILE_BYTES + 1), "this is no configuration file"),
    ],
)
def test_hostile_files_end_in_one_line(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert expected in refusal(path=written(tmp_path, text))


def test_a_missing_or_unreadable_file_says_what_to_do(tmp_path: Path) -> None:
    assert "no such file; give a directory that `hauptbuch init` made" in refusal(path=tmp_path / "none.toml")
    assert "no such file" in refusal(path=tmp_path)
    assert "can't be read: File name too long" in refusal(path=tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("HAUPTBUCH_SHARD_LINGER_MS", "7", "no such setting; write HAUPTBUCH_SHARD__LINGER_MS"),
        ("HAUPTBUCH_SHARD__X", "7", "shard.x: no such setting; there are: linger_ms"),
        ("HAUPTBUCH_SHARD__LINGER_MS", "x", "shard.linger_ms: must be a valid integer, not 'x'"),
        ("HAUPTBUCH_SHARD__LINGER_MS", "9" * 400, "shard.linger_ms: must be a valid integer"),
        ("HAUPTBUCH_SHARD__LINGER_MS__X", "1", "shard.linger_ms is a value"),
        ("HAUPTBUCH_KAFKA__SECURITY", "x", "kafka.security: is a group; set one of: protocol, mechanism"),
        ("HAUPTBUCH_KAFKA__LIBRDKAFKA__ACKS", "1", "kafka.librdkafka: acks can't be set here"),
        ("HAUPTBUCH_KAFKA__LIBRDKAFKA", "1", "kafka.librdkafka: is a group; set kafka.librdkafka and"),
        ("HAUPTBUCH_SYSTEM__ENABLE_PARALLEL_PROCESSING", "yes", "must be a valid boolean, not 'yes'"),
    ],
)
def test_variables_that_cannot_be_used(name: str, text: str, expected: str) -> None:
    message = refusal(environ={name: text})
    assert message.startswith(f"environment {name}: ")
    assert expected in message


def test_variables_that_are_not_ours_are_left_alone() -> None:
    assert load_config(None, {"HAUPTBUCH_SERVICE_HOST": "10.0.0.1", "HAUPTBUCH_PORT": "tcp://10.0.0.1:80"}) == Config()


def test_unknown_flags_are_refused() -> None:
    assert refusal(flags={"shard.nope": 1}).startswith("flag shard.nope: shard.nope: no such setting")
    assert refusal(flags={"": 1}).startswith("flag : : no such setting")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_every_setting_that_exactly_once_needs_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(ConfigError, match="can't be set here"):
        load_config(flags={f"kafka.librdkafka.{name}": "1"})
    with pytest.raises(ValidationError) as caught:
        KafkaConfig(librdkafka={name: "1"})  # type: ignore[arg-type]
    assert REFUSED[name] in str(caught.value)


@pytest.mark.parametrize(
    ("settings_of_client", "reason"),
    [
        ({"transaction.timeout.ms": 999}, "must be 1000 to 15000"),
        ({"transaction.timeout.ms": 15_001}, "must be 1000 to 15000"),
        ({"transaction.timeout.ms": True}, "must be an integer"),
        ({"transaction.timeout.ms": "soon"}, "must be an integer"),
        ({"message.timeout.ms": 10_000}, "below transaction.timeout.ms"),
        ({"message.timeout.ms": 0}, "above 0"),
        ({"transaction.timeout.ms": 12_000, "delivery.timeout.ms": "12000"}, "below transaction.timeout.ms"),
        ({"max.in.flight": 6}, "must be 1 to 5"),
        ({"max.in.flight.requests.per.connection": 0}, "must be 1 to 5"),
    ],
)
def test_limits_of_librdkafka_settings(settings_of_client: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        checked(settings_of_client)


def test_settings_within_the_limits_are_kept() -> None:
    given_settings = {"transaction.timeout.ms": 12_000, "message.timeout.ms": "11999", "max.in.flight": 5}
    assert dict(checked(given_settings)) == given_settings


T = TypeVar("T")
names = st.text(st.sampled_from("abc.\n_"), max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


def value_or_message(call: Callable[[], T]) -> T | ConfigError | ValueError:
    try:
        return call()
    except (ConfigError, ValueError) as error:
        return error


@given(st.dictionaries(names, values, max_size=4))
@settings(deadline=None)
def test_checked_settings_are_ordered_scalars_or_one_line(table: dict[str, object]) -> None:
    flat = dict(flatten(table))
    pairs = value_or_message(lambda: checked(flat))
    if isinstance(pairs, Exception):
        assert str(pairs).isprintable()
    else:
        assert [name for name, _ in pairs] == sorted(flat)
        assert all(isinstance(value, str | int | float | bool | SecretStr) for _, value in pairs)


@given(st.text(max_size=60))
@settings(deadline=None)
def test_any_text_is_a_configuration_or_one_line(text: str) -> None:
    config = value_or_message(lambda: load_config(flags={"kafka.bootstrap": text, "kafka.security.mechanism": text}))
    if isinstance(config, Exception):
        assert isinstance(config, ConfigError)
        assert str(config).isprintable()
    else:
        assert config.kafka.security.mechanism == text


def test_librdkafka_as_a_value_is_refused_when_built_in_code() -> None:
    with pytest.raises(ValidationError, match="must be a table of librdkafka settings"):
        KafkaConfig(librdkafka=3)  # type: ignore[arg-type]
