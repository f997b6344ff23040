"""What commands take from around them: passphrase, settings, where the log is, the ledger that runs on it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Annotated, Final

import typer

from pipeline.cli.cluster_options import CONFIG_VARIABLE
from pipeline.client.cluster import LedgerClient
from pipeline.client.trust import load_trust
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError
from pipeline.log.port import EventLog
from pipeline.node.layout import NodeLayout
from pipeline.node.node import Node
from pipeline.node.reader import LedgerReader, LedgerView
from pipeline.node.running import RunningLedger

PASSPHRASE_VARIABLE: Final = "HAUPTBUCH_PASSPHRASE"  # noqa: S105 - the name of a variable

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A directory that `hauptbuch init` made.")]
OptionalDirectory = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="A directory that `hauptbuch init` made; none with --kafka and --trust."),
]
AcceptTime = Annotated[
    bool, typer.Option("--accept-time", help="This machine's clock is right, however far it is ahead of the ledger.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line; amounts in minor units, as strings.")]
Kafka = Annotated[
    str, typer.Option("--kafka", metavar="BOOTSTRAP", help="host:port of brokers; else what DIR/hauptbuch.toml says.")
]


def passphrase() -> str:
    """The passphrase of key files; "" where none is set."""
    return os.environ.get(PASSPHRASE_VARIABLE, "")


def settings(layout: NodeLayout | None, kafka: str = "") -> Config:
    """Of a directory (None: of a process without one), `--config`, environment and flags. Raises `ConfigError`."""
    flags = {"kafka.bootstrap": kafka} if kafka else {}
    over = os.environ.get(CONFIG_VARIABLE)
    path = None if layout is None else layout.config
    return load_config(path, os.environ, flags, over=Path(over) if over else None)


def cluster_client(trust: Path | None, kafka: str = "") -> LedgerClient:
    """A ledger on a cluster by its trust file alone. Raises `ConfigError` where that or the brokers are not given."""
    if trust is None:
        raise ConfigError("give a directory, or --kafka BOOTSTRAP and --trust FILE")
    trusted, config = load_trust(trust), settings(None, kafka)
    if not config.kafka.bootstrap:
        raise ConfigError("no brokers are set: give --kafka BOOTSTRAP, or a directory")
    return LedgerClient.of(trusted, config.kafka)


@contextmanager
def running_node(root: Path, *, accept_time: bool, kafka: str = "") -> Iterator[RunningLedger]:
    """Run the node of a directory in this process; for a chain on a cluster, follow it there.

    Raises `ConfigError` where another process holds the directory's lock.
    """
    layout = NodeLayout(root)
    chain = layout.chain()  # first of all: whether this is a ledger
    config = settings(layout, kafka)
    if config.kafka.bootstrap:
        if accept_time:
            raise ConfigError("--accept-time is for processes that make blocks: give it to `hauptbuch worker`")
        from pipeline.node.places import chain_log  # noqa: PLC0415 - the Kafka client is slow to import
        from pipeline.node.replica import Replica  # noqa: PLC0415 - so is this

        with chain_log(chain, config) as log:
            replica = Replica(layout, config, log)
            try:
                yield replica
            finally:
                replica.close()
        return
    node = Node.open(root, passphrase(), config=config, accept_time=accept_time)
    try:
        yield node
    finally:
        node.close()


def reading(root: Path, kafka: str = "") -> LedgerView:
    """The ledger of a directory to read from: beside its node, or for a chain on a cluster caught up from there.

    Raises `ConfigError` where there is none.
    """
    layout = NodeLayout(root)
    chain = layout.chain()
    config = settings(layout, kafka)
    if not config.kafka.bootstrap:
        return LedgerReader(root)
    from pipeline.node.places import kafka_log  # noqa: PLC0415 - the Kafka client is slow to import
    from pipeline.node.replica import ReplicaReader  # noqa: PLC0415 - so is this

    log = kafka_log(chain, config)
    try:
        return ReplicaReader(layout, config, log)
    except BaseException:
        log.close()
        raise


@contextmanager
def reading_log(root: Path, kafka: str = "") -> Iterator[EventLog]:
    """The log of a directory's ledger alone: on a cluster nothing of it is executed, or read before it is asked for.

    Raises `ConfigError` where there is none.
    """
    layout = NodeLayout(root)
    chain = layout.chain()
    config = settings(layout, kafka)
    if config.kafka.bootstrap:
        from pipeline.node.places import chain_log  # noqa: PLC0415 - the Kafka client is slow to import

        with chain_log(chain, config) as log:
            yield log
    else:
        with LedgerReader(root) as reader:
            yield reader.log


@contextmanager
def until_stopped() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM came, for processes that finish what they are at. Raises `KeyboardInterrupt` then."""
    stop = Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.is_set():
        raise KeyboardInterrupt
