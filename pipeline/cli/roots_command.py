"""`hauptbuch roots`."""

from typing import Annotated, Final

import typer

from pipeline.cli.output import flush, json_line, line, when
from pipeline.cli.surroundings import Directory, Json, Kafka, reading_log
from pipeline.client.light import LightClient, VerifiedRoot
from pipeline.client.subscriber import StateRootSubscriber
from pipeline.client.trust import load_trust
from pipeline.codec.topics import Topic
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import VerificationFailed
from pipeline.node.bootstrap import require_topics
from pipeline.node.layout import NodeLayout

_WAIT_MS: Final = 200


def run(
    directory: Directory,
    follow: Annotated[bool, typer.Option("--follow", help="Go on as new roots appear, until interrupted.")] = False,
    kafka: Kafka = "",
    as_json: Json = False,
) -> None:
    """Print the state roots whose signatures hold for DIR/trust.json. Works beside a running node.

    Exit code 1 where one does not hold.
    """
    with reading_log(directory, kafka) as log:
        require_topics(log, Topic.STATE_ROOTS)
        client = LightClient(load_trust(NodeLayout(directory).trust), InlineVerifier(STANDARD_SUITES))
        subscriber = StateRootSubscriber(log, client, range(log.partitions(Topic.STATE_ROOTS)))
        while True:
            for root in sorted(subscriber.catch_up(), key=lambda root: (root.checkpoint.round, root.state_root.shard)):
                _print(root, as_json=as_json)
            if subscriber.refused:
                raise VerificationFailed(str(subscriber.refused[0].error))
            if not follow:
                return
            flush()
            log.wait(_WAIT_MS)


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
