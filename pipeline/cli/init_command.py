"""`hauptbuch init`."""

import secrets
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from pipeline.cli.names import NameBook, NamedAccount, demo_seed_path
from pipeline.cli.output import json_line, line, note
from pipeline.cli.surroundings import Json, passphrase, settings
from pipeline.client.trust import Trust, save_trust
from pipeline.codec.types import MAX_SHARDS
from pipeline.crypto.addresses import address_of
from pipeline.crypto.private_file import write_new
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import ConfigError
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance
from pipeline.node.bootstrap import NewChain, derive_seed, new_chain
from pipeline.node.init import Cluster, create_directory
from pipeline.node.layout import NodeLayout
from pipeline.node.node import wall_clock_ms

PUBLIC_SEED: Final = b"hauptbuch: everybody knows this seed".ljust(32, b".")


class Signers(NamedTuple):
    """How many keys may sign state roots, and how many of them must."""

    attestors: int = 1
    threshold: int = 1


_ONE_SIGNER: Final = Signers()


def run(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to make it; must not exist, or be empty.")],
    shards: Annotated[int, typer.Option("--shards", help="Number of shards, 1 to 1000.")],
    name: Annotated[str, typer.Option("--name", help="Name of the ledger, in its genesis.")] = "",
    partitions: Annotated[
        int | None,
        typer.Option("--partitions", help="Shards that there can ever be; as many as shards spreads workers evenly."),
    ] = None,
    attestors: Annotated[int, typer.Option("--attestors", help="How many keys may sign state roots.")] = 1,
    threshold: Annotated[int, typer.Option("--threshold", help="How many of them must.")] = 1,
    kafka: Annotated[
        str | None,
        typer.Option("--kafka", metavar="BOOTSTRAP", help="Keep the log on this cluster: host:port of brokers."),
    ] = None,
    seed_demo: Annotated[
        bool, typer.Option("--seed-demo", help="Derive all keys from a public seed: for demonstrations only.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the directory of a new ledger: keys, genesis, settings, trust file, empty log and stores.

    Keys are encrypted under the passphrase in the environment variable HAUPTBUCH_PASSPHRASE. With --kafka the topics
    are made on the cluster instead; `worker`, `sync` and `attest` then run the ledger.
    """
    if kafka is not None and not kafka.strip():  # such as a variable of the shell that is not set
        raise ConfigError("--kafka is empty; give host:port of brokers, or leave it out to keep the log in DIR")
    signers = Signers(attestors, threshold)
    chain = create(
        directory,
        shards,
        name or directory.absolute().name,
        signers,
        partitions=partitions,
        seed_demo=seed_demo,
        kafka=kafka or "",
    )
    secret = passphrase()
    if seed_demo:
        note("all keys follow from a public seed: for demonstrations only")
    elif not secret:
        note("keys are not encrypted: set HAUPTBUCH_PASSPHRASE before `init` to encrypt them")
    note(_governance(directory, signers))
    if as_json:
        json_line({"directory": str(directory), "chain_id": chain.chain_id.hex(), "shards": shards})
        return
    line(f"{directory}: chain {chain.chain_id.hex()}, {shards} shard{'s' if shards != 1 else ''}")


def _governance(directory: Path, signers: Signers) -> str:
    """Who decides alone: keys of one hand prove nothing to others about that hand."""
    if signers.threshold == 1:
        root = f"any one attestor key signs state roots (1 of {signers.attestors})"
    else:
        root = f"{signers.threshold} of {signers.attestors} attestor keys sign state roots"
    return f"one operator key governs (1 of 1), {root}; all of them are in {directory}/keys until you take them apart"


def create(
    directory: Path,
    shards: int,
    name: str,
    signers: Signers = _ONE_SIGNER,
    *,
    partitions: int | None = None,
    seed_demo: bool = False,
    kafka: str = "",
) -> Chain:
    """Make the directory. Raises `ConfigError`."""
    if not 1 <= shards <= MAX_SHARDS:
        raise ConfigError(f"--shards must be 1 to {MAX_SHARDS}, not {shards}")
    if partitions is not None and not shards <= partitions <= MAX_SHARDS:
        raise ConfigError(f"--partitions must be {shards} (--shards) to {MAX_SHARDS}, not {partitions}")
    if not name.isprintable():
        raise ConfigError("--name has characters that can't be shown; give it in printable UTF-8")
    if not 1 <= signers.threshold <= signers.attestors:
        raise ConfigError(f"--threshold {signers.threshold} does not fit --attestors {signers.attestors}")
    if signers.attestors > 1 and not kafka:
        raise ConfigError("--attestors needs --kafka: each attestor is a process of its own")
    seed = PUBLIC_SEED if seed_demo else None
    new = new_chain(
        STANDARD_SUITES,
        name,
        shards,
        wall_clock_ms(),
        partitions=partitions,
        attestors=signers.attestors,
        attestor_threshold=signers.threshold,
        seed=seed,
    )
    accounts_seed = derive_seed(seed, "accounts") if seed else None

    def furnish(layout: NodeLayout, chain: Chain) -> None:
        # The synchronizer of a one-process node checks headers: it is the process that executed the blocks.
        save_trust(layout.trust, Trust.of(chain, Assurance.EXECUTION if kafka else Assurance.HEADERS))
        write_new(demo_seed_path(layout), (accounts_seed or secrets.token_bytes(32)).hex().encode() + b"\n")
        _name_roles(layout, new)

    create_directory(directory, new, passphrase(), STANDARD_SUITES, furnish, _cluster(kafka) if kafka else None)
    return new.chain


def _cluster(kafka: str) -> Cluster:
    from pipeline.node.places import kafka_log  # noqa: PLC0415 - the Kafka client is slow to import

    config = settings(None, kafka)
    return Cluster(config.kafka.bootstrap, lambda chain: kafka_log(chain, config))


def _name_roles(layout: NodeLayout, new: NewChain) -> None:
    book = NameBook(layout.names, create=True)
    try:
        book.add(NamedAccount(role, address_of(key.suite_id, key.public_key), None) for role, key in new.keys.items())
    finally:
        book.close()
