"""The first half of the demo: a new ledger, real payments in two phases, everything under a signed root."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from pipeline.cli import init_command
from pipeline.cli.csv_source import Payment
from pipeline.cli.demo.ledger import DemoLedger
from pipeline.cli.demo.own_node import DemoNode, OwnNode
from pipeline.cli.demo.phases import PACE, Latency, Throughput, play_fast, play_paced
from pipeline.cli.demo.tracker import Tracker
from pipeline.client.light import LightClient
from pipeline.client.trust import load_trust, save_trust
from pipeline.codec.types import Address, AssetId
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier

_FAST_PARTS = (5, 7)
"""Of seven payments five are played in phase 1."""


@dataclass(frozen=True, slots=True)
class Played:
    """What was played and what was measured. `preparing_seconds`: keys, directory and funding, without signing."""

    addresses: dict[str, Address]
    asset: AssetId
    signatures: int
    signatures_per_second: float
    preparing_seconds: float
    throughput: Throughput
    latency: Latency
    refused_roots: int


def play(root: Path, payments: Sequence[Payment], shards: int, tell: Callable[[str], None], kafka: str = "") -> Played:
    """Make a ledger in `root`, its log on the cluster `kafka` if given, and play all payments; `tell` takes progress.

    Whatever ran it is stopped afterwards.
    """
    tell("making a ledger, keys and funds")
    started = perf_counter()
    # As many partitions as shards, so that the group gives each worker its share.
    init_command.create(root, shards, "demo", partitions=shards if kafka else None, kafka=kafka)
    ledger = DemoLedger(_node(root, kafka), payments)
    try:
        ledger.fund(payments)
        preparing_s = perf_counter() - started
        split = max(1, len(payments) * _FAST_PARTS[0] // _FAST_PARTS[1])
        tell(f"signing {len(payments)} payments")
        batch = ledger.sign(payments)
        client = LightClient(load_trust(ledger.node.layout.trust), InlineVerifier(STANDARD_SUITES))
        tracker = Tracker(ledger.node.log, ledger.chain, ledger.watcher, client)
        tell("phase 1: as fast as it goes")
        throughput = play_fast(ledger, tracker, batch.transactions[:split])
        tell("phase 2: at half that rate")
        latency = play_paced(ledger, tracker, batch.transactions[split:], PACE * throughput.rate)

        def is_all_signed() -> bool:
            tracker.poll(perf_counter())
            return tracker.covers(ledger.heights())

        ledger.node.rest()
        ledger.run_until(is_all_signed)
        save_trust(ledger.node.layout.trust, client.trust)  # a subscriber keeps the newest round that it has seen
        return Played(
            ledger.addresses,
            ledger.asset,
            len(batch.transactions),
            batch.signatures_per_second,
            preparing_s,
            throughput,
            latency,
            tracker.refused_roots,
        )
    finally:
        ledger.close()


def _node(root: Path, kafka: str) -> DemoNode:
    if not kafka:
        return OwnNode(root)
    from pipeline.cli.demo.cluster import ClusterNode  # noqa: PLC0415 - the Kafka client is slow to import

    return ClusterNode(root)
