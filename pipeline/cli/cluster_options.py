"""Options of every command that may meet a cluster: `--config`, `--set`, `--insecure`.

They act by the environment of this process, so that the processes that a command starts are told the same.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Final

import typer

from pipeline.errors import ConfigError

CONFIG_VARIABLE: Final = "HAUPTBUCH_CONFIG"
"""Names a file of settings that is laid over the directory's."""

_KEY: Final = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+", re.ASCII)

_Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings over those of DIR, such as a Kafka user's.")
]
_Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, as shard.linger_ms=10; repeatable.")
]
_Insecure = Annotated[
    bool, typer.Option("--insecure", help="Use a Kafka cluster elsewhere that lets everyone do everything.")
]


def with_cluster_options(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """The command, which takes these options too."""

    @wraps(function)
    def command(
        *args: object,
        config: Path | None = None,
        set_: list[str] | None = None,
        insecure: bool = False,
        **options: object,
    ) -> int | None:
        with _environment(_variables(config, set_ or [], insecure=insecure)):
            return function(*args, **options)

    own = signature(function)
    added = [
        Parameter("config", Parameter.KEYWORD_ONLY, default=None, annotation=_Config),
        Parameter("set_", Parameter.KEYWORD_ONLY, default=None, annotation=_Set),
        Parameter("insecure", Parameter.KEYWORD_ONLY, default=False, annotation=_Insecure),
    ]
    command.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    command.__annotations__ = {**function.__annotations__, **{item.name: item.annotation for item in added}}
    return command


def _variables(config: Path | None, settings: list[str], *, insecure: bool) -> dict[str, str]:
    """Raises `ConfigError`."""
    from pipeline.config.librdkafka import is_secret  # noqa: PLC0415 - slow to import, and help needs none of it
    from pipeline.config.sources import ENVIRONMENT_PREFIX  # noqa: PLC0415 - as above

    found = {CONFIG_VARIABLE: str(config.absolute())} if config else {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise ConfigError(f"--set {key!r:.80} is no KEY=VALUE, such as shard.linger_ms=10")
        name = ENVIRONMENT_PREFIX + key.replace(".", "__").upper()
        if is_secret(key):
            raise ConfigError(
                f"--set {key}: everyone on this machine can read command lines; set {name}, or give --config a file"
            )
        found[name] = value
    return found | ({f"{ENVIRONMENT_PREFIX}KAFKA__INSECURE": "true"} if insecure else {})


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
