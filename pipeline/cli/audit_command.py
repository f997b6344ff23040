"""`hauptbuch audit`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline.audit.report import AuditReport
from pipeline.cli.auditing import audit_cluster, audit_directory, say_progress
from pipeline.cli.output import line
from pipeline.cli.surroundings import Kafka, OptionalDirectory, cluster_client, settings
from pipeline.client.trust import load_trust
from pipeline.errors import ConfigError
from pipeline.node.layout import NodeLayout


def run(
    directory: OptionalDirectory = None,
    trust: Annotated[
        Path | None,
        typer.Option(
            "--trust", metavar="FILE", help="A trust file: whether history was cut; without DIR, which genesis."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report here too.")] = None,
    kafka: Kafka = "",
) -> int:
    """Replay the log, recompute every root and check every signature, trusting genesis alone.

    A cluster needs no directory: --trust says which genesis. Exit code 1: something was found; each finding names
    shard, height and offset.
    """
    with _opened(directory, trust, kafka) as audit:
        if json is not None:
            _write(json, "")  # before an hour of work
        report = audit()
    for text in report.render():
        line(text)
    if json is not None:
        _write(json, report.to_text(), "w")
    return 0 if report.ok else 1


@contextmanager
def _opened(directory: Path | None, trust: Path | None, kafka: str) -> Iterator[Callable[[], AuditReport]]:
    """What audits the log of a directory, or of a cluster."""
    if directory is None:
        with cluster_client(trust, kafka) as client:
            yield partial(audit_cluster, client.log, client.chain, client.trust, say_progress())
        return
    layout = NodeLayout(directory)
    chain = layout.chain()
    trusted = None if trust is None else load_trust(trust)
    config = settings(layout, kafka)
    if not config.kafka.bootstrap:
        yield partial(audit_directory, layout.log, chain, trusted, say_progress())
        return
    from pipeline.node.places import chain_log  # noqa: PLC0415 - the Kafka client is slow to import

    with chain_log(chain, config) as log:
        yield partial(audit_cluster, log, chain, trusted, say_progress())


def _write(path: Path, text: str, mode: str = "a") -> None:
    """Appending nothing shows that the place will do, and leaves an older report until there is a new one."""
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}; give another place") from None
