"""What the long-running processes on a cluster are told: cluster, chain, directory, key; and how they are watched."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer

from pipeline.cli.surroundings import passphrase
from pipeline.config import Config
from pipeline.crypto.keystore import load_key
from pipeline.crypto.port import PrivateKey
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import ConfigError, HauptbuchError, PoisonRecord, VerificationFailed
from pipeline.ledger.chain import Chain
from pipeline.ledger.genesis import Genesis
from pipeline.node.places import kafka_log
from pipeline.watch.log_meter import LogMeter
from pipeline.watch.logs import LogFormat, LogLevel, set_up_logs
from pipeline.watch.process import ProcessWatch
from pipeline.watch.server import HttpAddress, WatchServer

_FETCH_WAIT_MS: Final = 500
_FALSE, _FAILED, _INTERRUPTED = 1, 2, 130  # exit codes as of `pipeline.cli.main`, which imports the commands

Bootstrap = Annotated[
    str,
    typer.Option(
        "--kafka", metavar="BOOTSTRAP", help="host:port of brokers, parted by commas; else what --config says."
    ),
]
GenesisFile = Annotated[Path, typer.Option("--genesis", metavar="FILE", help="DIR/genesis.avro of `hauptbuch init`.")]
Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="This process's own directory; made if need be.")]
LogAs = Annotated[LogFormat, typer.Option("--log", help="Sentences for people, or JSON lines, on standard error.")]
Http = Annotated[
    str,
    typer.Option(
        "--http",
        metavar="[HOST:]PORT",
        help="Serve /metrics, /healthz and /readyz there; HOST is loopback by default.",
    ),
]
Level = Annotated[LogLevel, typer.Option("--log-level", help="The least that is said; `debug`: every round too.")]


def read_chain(path: Path) -> Chain:
    """The chain of a genesis file. Raises `ConfigError`."""
    try:
        return Chain.of(Genesis.from_record(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}; give genesis.avro of `hauptbuch init`") from None
    except PoisonRecord as error:
        raise ConfigError(f"{path} is no genesis: {error}; give genesis.avro of `hauptbuch init`") from None


@contextmanager
def logging_as(form: LogFormat, level: LogLevel) -> Iterator[None]:
    """Log in this form meanwhile. Why the process ends is its last line: an object too, where the others are."""
    set_up_logs(form, level)
    log = structlog.get_logger("hauptbuch")
    try:
        yield
    except KeyboardInterrupt:
        if form is LogFormat.CONSOLE:
            raise
        log.info("interrupted")
        raise typer.Exit(_INTERRUPTED) from None
    except HauptbuchError as error:
        if form is LogFormat.CONSOLE:
            raise
        log.error(str(error))  # noqa: TRY400 - one line, as everywhere
        raise typer.Exit(_FALSE if isinstance(error, VerificationFailed) else _FAILED) from None


@contextmanager
def shown(watch: ProcessWatch, http: str, chain: Chain, config: Config) -> Iterator[None]:
    """Serve what `watch` knows at `http`, meanwhile; nothing where that is "". Raises `ConfigError`."""
    if not http:
        yield
        return
    server = WatchServer(HttpAddress.parse(http), watch)
    meter = watch.meter = LogMeter(lambda: kafka_log(chain, _unhurried(config)), watch.measure)
    try:
        yield
    finally:
        server.close()
        meter.close()


def _unhurried(config: Config) -> Config:
    """For a log that is read once a scrape: brokers keep a fetch that has nothing to give for longer."""
    fetch = ("fetch.wait.max.ms", _FETCH_WAIT_MS)
    kafka = config.kafka.model_copy(update={"librdkafka": (*config.kafka.librdkafka, fetch)})
    return config.model_copy(update={"kafka": kafka})


def read_key(path: Path) -> PrivateKey:
    """A key file. Raises `ConfigError` where it can't be used, or the passphrase is another."""
    return load_key(path, passphrase(), STANDARD_SUITES)
