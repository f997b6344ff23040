"""Where a configuration comes from: a TOML file, the environment, flags; and errors that name the source."""

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Final

from pydantic import BaseModel, ValidationError

from pipeline.config.groups import Config
from pipeline.config.librdkafka import flatten, is_secret
from pipeline.errors import ConfigError

MAX_FILE_BYTES: Final = 1 << 20
ENVIRONMENT_PREFIX: Final = "HAUPTBUCH_"
_LIBRDKAFKA: Final = ("kafka", "librdkafka")
_SECURITY: Final = ("kafka", "security")
_EVERYBODY: Final = stat.S_IROTH | stat.S_IWOTH
_SHOWN: Final = 60
_LINE: Final = 300


class _Layers:
    """Settings of every source laid over each other, each remembering whence it came."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.origins: dict[tuple[str, ...], str] = {}

    def put(self, path: tuple[str, ...], value: object, origin: str) -> None:
        """Set one leaf."""
        table = self.values
        for name in path[:-1]:
            inner = table.setdefault(name, {})
            assert isinstance(inner, dict), "leaves are put at leaf keys only"
            table = inner
        table[path[-1]] = value
        self.origins[path] = origin

    def origin(self, path: tuple[str, ...]) -> str:
        """Where the leaf at `path`, or else one beside it, was set."""
        inside = (origin for leaf, origin in self.origins.items() if leaf[: len(path) - 1] == path[:-1])
        return self.origins.get(path) or next(inside, "configuration")


def load_config(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str | int | bool] | None = None,
    *,
    over: Path | None = None,
) -> Config:
    """The configuration of a process: defaults, the files `path` and `over`, `environ`, then `flags` by dotted key.

    Text of environment and flags is read as the setting's type. Raises `ConfigError`, one line naming the source, the
    key and what to do: file missing, too large, not TOML, or open to everybody with a secret in it; unknown key; wrong
    type; value out of its range; librdkafka setting that exactly-once processing needs otherwise.
    """
    layers = _Layers()
    if path is not None:
        _put_file(layers, path, path.name, "give a directory that `hauptbuch init` made")
    if over is not None:
        _put_file(layers, over, str(over), "--config (HAUPTBUCH_CONFIG) must name a TOML file")
    for name, text in sorted((environ or {}).items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            _put_variable(layers, name, text)
    for key, value in (flags or {}).items():
        _put_text(layers, tuple(key.split(".")), value, f"flag {key}")
    try:
        return Config.model_validate(layers.values)
    except ValidationError as error:
        raise ConfigError(_one_line(error, layers)) from None


def _put_file(layers: _Layers, path: Path, origin: str, expected: str) -> None:
    table, mode = _read_toml(path, expected)
    _put_table(layers, Config, (), table, origin)
    secret = next((leaf for leaf, source in layers.origins.items() if source == origin and is_secret(leaf[-1])), None)
    if secret is not None and mode & _EVERYBODY:
        raise ConfigError(
            f"{path}: everybody here may read or change {_dotted(secret)} in it; run `chmod 600 {quote(str(path))}`"
        )


def _read_toml(path: Path, expected: str) -> tuple[dict[str, object], int]:
    """The file's content and mode."""
    try:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; {expected}")
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: over {MAX_FILE_BYTES} bytes; this is no configuration file")
        return tomllib.loads(data.decode()), mode
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8; save it as UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "nested too deeply or number too long"
        raise ConfigError(f"{path}: not TOML: {_printable(reason, _LINE)}") from None


def _put_table(
    layers: _Layers, model: type[BaseModel], path: tuple[str, ...], table: Mapping[str, object], origin: str
) -> None:
    for name, value in table.items():
        here = (*path, name)
        inner = _field(model, here, origin)
        if here != _LIBRDKAFKA and inner is None:
            layers.put(here, value, origin)
        elif not isinstance(value, Mapping):
            raise ConfigError(f"{origin}: {_dotted(here)}: must be a table, written [{_dotted(here)}]")
        elif inner is not None:
            _put_table(layers, inner, here, value, origin)
        else:
            _put_librdkafka(layers, value, origin)


def _put_librdkafka(layers: _Layers, table: Mapping[str, object], origin: str) -> None:
    for setting, value in flatten(table):
        path = (*_LIBRDKAFKA, setting)
        if layers.origins.get(path) == origin:
            raise ConfigError(f"{origin}: {_dotted(path)}: set twice; keep one")
        layers.put(path, value, origin)


def _field(model: type[BaseModel], path: tuple[str, ...], origin: str) -> type[BaseModel] | None:
    """The group at `path`, whose last name is a field of `model`, or None where a value stands."""
    field = model.model_fields.get(path[-1])
    if field is None:
        raise ConfigError(f"{origin}: {_dotted(path)}: no such setting; there are: {', '.join(model.model_fields)}")
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _put_variable(layers: _Layers, name: str, text: str) -> None:
    """Take a variable of the environment that has our form; others (a service's address, say) are not ours."""
    rest = name.removeprefix(ENVIRONMENT_PREFIX).lower()
    if "__" not in rest:
        for known in _leaf_paths(Config, ()):
            if rest == "_".join(known):
                right = ENVIRONMENT_PREFIX + "__".join(known).upper()
                raise ConfigError(f"environment {name}: no such setting; write {right}")
        return
    path = tuple(rest.split("__"))
    if path[:2] == _LIBRDKAFKA and len(path) > 2:
        path = (*_LIBRDKAFKA, ".".join(path[2:]).replace("_", "."))
    _put_text(layers, path, text, f"environment {name}")


def _leaf_paths(model: type[BaseModel], path: tuple[str, ...]) -> list[tuple[str, ...]]:
    paths: list[tuple[str, ...]] = []
    for name in model.model_fields:
        inner = _field(model, (*path, name), "")
        paths += [(*path, name)] if inner is None else _leaf_paths(inner, (*path, name))
    return paths


def _put_text(layers: _Layers, path: tuple[str, ...], value: str | int | bool, origin: str) -> None:
    """Set one leaf from text: integers and true/false are read where the setting has that type."""
    if path[:2] == _LIBRDKAFKA and len(path) > 2:
        layers.put((*_LIBRDKAFKA, ".".join(path[2:])), value, origin)
        return
    if path == _LIBRDKAFKA:
        raise ConfigError(f"{origin}: {_dotted(path)}: is a group; set {_dotted(path)} and the name of a setting")
    model: type[BaseModel] = Config
    for depth in range(1, len(path) + 1):
        inner = _field(model, path[:depth], origin)
        if inner is None and depth < len(path):
            raise ConfigError(f"{origin}: {_dotted(path)}: no such setting; {_dotted(path[:depth])} is a value")
        if inner is not None:
            if depth == len(path):
                names = ", ".join(inner.model_fields)
                raise ConfigError(f"{origin}: {_dotted(path)}: is a group; set one of: {names}")
            model = inner
    layers.put(path, _typed(model, path[-1], value), origin)


def _typed(model: type[BaseModel], name: str, value: str | int | bool) -> str | int | bool:
    kind = model.model_fields[name].annotation
    if kind is int and isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value):
        return int(value)
    if kind is bool and value in ("true", "false"):
        return value == "true"
    return value


def _one_line(error: ValidationError, layers: _Layers) -> str:
    """The first error as one line; its value only where no secret can stand."""
    first = error.errors(include_url=False, include_context=False)[0]
    path = tuple(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if path[:2] == _LIBRDKAFKA:
        origin = layers.origin((*_LIBRDKAFKA, message.split(" ", 1)[0].strip("'")))
        return _printable(f"{origin}: {_dotted(_LIBRDKAFKA)}: {message}", _LINE)
    if path == _SECURITY:
        return _printable(f"{layers.origin((*path, message.split(' ', 1)[0]))}: {_dotted(path)}: {message}", _LINE)
    shown = "" if "password" in path[-1] else f", not {_shown(first['input'])}"
    return _printable(f"{layers.origin(path)}: {_dotted(path)}: {message}", _LINE) + shown


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of that size"  # Python refuses to print very long ones
    return _printable(repr(value))


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(_printable(part) for part in path)


def _printable(text: str, limit: int = _SHOWN) -> str:
    """At most `limit` characters, none of which can break the line or the terminal."""
    kept = "".join(c if c.isprintable() else "?" for c in text[:limit])
    return kept if len(text) <= limit else kept + "..."
