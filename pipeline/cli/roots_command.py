"""`hauptbuch roots`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from pipeline.cli.output import flush, json_line, line, note, when
from pipeline.cli.surroundings import Json, Kafka, OptionalDirectory, cluster_client, reading_log
from pipeline.client.cluster import subscribe
from pipeline.client.light import LightClient, VerifiedRoot
from pipeline.client.subscriber import MAX_REFUSED, StateRootSubscriber
from pipeline.client.trust import Trust, load_trust
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier
from pipeline.log.port import EventLog
from pipeline.node.layout import NodeLayout

_WAIT_MS: Final = 200


def run(
    directory: OptionalDirectory = None,
    trust: Annotated[
        Path | None, typer.Option("--trust", metavar="FILE", help="The trust file; else that of DIR.")
    ] = None,
    from_round: Annotated[
        int | None,
        typer.Option("--from-round", min=0, help="Begin here; else at the last round that FILE knows, if any."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on as new roots appear, until interrupted.")] = False,
    kafka: Kafka = "",
    as_json: Json = False,
) -> int:
    """Print the state roots whose signatures hold. Works beside a running node; a cluster needs no directory.

    What does not hold is told on standard error, and the exit code is 1.
    """
    with _opened(directory, trust, kafka) as (trusted, log):
        if from_round is None:
            seen = trusted.last_checkpoint
            from_round = 0 if seen is None else seen.round
        subscriber = subscribe(log, LightClient(trusted, InlineVerifier(STANDARD_SUITES)), from_round)
        while True:
            for roots in subscriber.by_round():
                for root in roots:
                    _print(root, as_json=as_json)
                _tell_refused(subscriber)
            if not follow:
                return 1 if subscriber.refused_total else 0
            flush()
            log.wait(_WAIT_MS)


@contextmanager
def _opened(directory: Path | None, trust: Path | None, kafka: str) -> Iterator[tuple[Trust, EventLog]]:
    if directory is None:
        with cluster_client(trust, kafka) as client:
            yield client.trust, client.log
        return
    layout = NodeLayout(directory)
    layout.chain()  # first of all: whether this is a ledger
    trusted = load_trust(trust or layout.trust)
    with reading_log(directory, kafka) as log:
        yield trusted, log


def _tell_refused(subscriber: StateRootSubscriber) -> None:
    """One line each; of what is too many to be kept, how many there were in all."""
    for refused in subscriber.refused:
        note(f"refused: {' '.join(str(refused.error).split())}")
    if len(subscriber.refused) >= MAX_REFUSED:
        note(f"refused: {subscriber.refused_total} in all so far, not all of them shown")
    subscriber.refused.clear()


def _print(root: VerifiedRoot, *, as_json: bool) -> None:
    checkpoint, head = root.checkpoint, root.state_root
    if as_json:
        json_line(
            {
                "round": checkpoint.round,
                "shard": head.shard,
                "height": head.height,
                "state_root": head.state_root.hex(),
                "block_hash": head.block_hash.hex(),
                "ledger_root": checkpoint.ledger_root.hex(),
                "checkpoint": root.checkpoint_hash.hex(),
                "timestamp_ms": checkpoint.timestamp_ms,
                "assurance": checkpoint.assurance.name,
            }
        )
    else:
        line(
            f"round {checkpoint.round:>6}  shard {head.shard:>3}  height {head.height:>6}  "
            f"{when(checkpoint.timestamp_ms)}  {head.state_root.hex()}"
        )
