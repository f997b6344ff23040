"""`hauptbuch audit`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.auditing import audit_cluster, audit_directory, say_progress
from pipeline.cli.output import line
from pipeline.cli.surroundings import Directory, Kafka, settings
from pipeline.client.trust import load_trust
from pipeline.errors import ConfigError
from pipeline.node.layout import NodeLayout


def run(
    directory: Directory,
    trust: Annotated[
        Path | None, typer.Option("--trust", metavar="FILE", help="A trust file: tells whether history was cut.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report here too.")] = None,
    kafka: Kafka = "",
) -> int:
    """Replay the log, recompute every root and check every signature, trusting genesis alone.

    Exit code 1: something was found; each finding names shard, height and offset.
    """
    layout = NodeLayout(directory)
    chain = layout.chain()
    trusted = None if trust is None else load_trust(trust)
    config = settings(layout, kafka)
    if json is not None:
        _write(json, "")  # before an hour of work
    if config.kafka.bootstrap:
        report = audit_cluster(config, chain, trusted, say_progress())
    else:
        report = audit_directory(layout.log, chain, trusted, say_progress())
    for text in report.render():
        line(text)
    if json is not None:
        _write(json, report.to_text(), "w")
    return 0 if report.ok else 1


def _write(path: Path, text: str, mode: str = "a") -> None:
    """Appending nothing shows that the place will do, and leaves an older report until there is a new one."""
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}; give another place") from None
