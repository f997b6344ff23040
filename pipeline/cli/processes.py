"""What the long-running processes on a cluster are told: cluster, chain, directory, key."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.surroundings import passphrase
from pipeline.crypto.keystore import load_key
from pipeline.crypto.port import PrivateKey
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import ConfigError, PoisonRecord
from pipeline.ledger.chain import Chain
from pipeline.ledger.genesis import Genesis
from pipeline.watch.logs import LogFormat, LogLevel

Bootstrap = Annotated[str, typer.Option("--kafka", metavar="BOOTSTRAP", help="host:port of brokers, parted by commas.")]
GenesisFile = Annotated[Path, typer.Option("--genesis", metavar="FILE", help="DIR/genesis.avro of `hauptbuch init`.")]
Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="This process's own directory; made if need be.")]
LogAs = Annotated[LogFormat, typer.Option("--log", help="Sentences for people, or JSON lines, on standard error.")]
Level = Annotated[LogLevel, typer.Option("--log-level", help="The least that is said; `debug`: every round too.")]


def read_chain(path: Path) -> Chain:
    """The chain of a genesis file. Raises `ConfigError`."""
    try:
        return Chain.of(Genesis.from_record(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}; give genesis.avro of `hauptbuch init`") from None
    except PoisonRecord as error:
        raise ConfigError(f"{path} is no genesis: {error}; give genesis.avro of `hauptbuch init`") from None


def read_key(path: Path) -> PrivateKey:
    """A key file. Raises `ConfigError` where it can't be used, or the passphrase is another."""
    return load_key(path, passphrase(), STANDARD_SUITES)
