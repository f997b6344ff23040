"""`make bench-kafka`: latency and throughput on one real broker, with the machine and the versions that they ran on.

Broker, workers, synchronizer and client share the machine. Other work on it shows first of all in latencies, so the
best of several windows is shown beside the median of all.
"""

import argparse
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks import kafka_latency, kafka_rates, rates
from benchmarks.kafka_bed import broker
from benchmarks.kafka_latency import Window
from benchmarks.kafka_rates import Rate
from benchmarks.report import PACKAGES, machine, new_table
from deploy.kafka.distribution import KAFKA_VERSION
from pipeline.cli.demo.phases import Percentiles

SECONDS = 4.0
WINDOWS = 5
WARM_UP_S = {2: 60.0, 4: 10.0}
"""By shards, in their order. A broker that was started a moment ago compiles itself first, at the others' expense."""

RATES = {2: (kafka_latency.RATE, kafka_latency.CALM_RATE), 4: (kafka_latency.RATE,)}
"""Payments a second, by shards."""


@dataclass(frozen=True)
class Aim:
    """Milliseconds; p99 may be four times as long."""

    name: str
    field: str
    p50: float

    def of(self, window: Window) -> Percentiles:
        """The window's percentiles of this one."""
        found: Percentiles = getattr(window, self.field)
        return found


AIMS = (
    Aim("receipt", "receipt", 15),
    Aim("settled on another shard", "settled", 30),
    Aim("verified signed root", "root", 30),
)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kafka", description="Latency and throughput on Kafka.")
    parser.add_argument("--kafka", default="", metavar="BOOTSTRAP", help="brokers; else one is started for this")
    parser.add_argument("--latency-only", action="store_true", help="no throughput")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started here ends here
    console = Console(width=110)
    console.print(machine((*PACKAGES, "confluent-kafka")) + f", Apache Kafka {KAFKA_VERSION}")
    with broker(arguments.kafka) as bootstrap:
        for shards, warm_up_s in WARM_UP_S.items():
            measured = kafka_latency.run(bootstrap, shards, SECONDS, WINDOWS, warm_up_s, RATES[shards])
            for rate, windows in measured.items():
                console.print(_latency(shards, rate, windows))
        if arguments.latency_only:
            return
        timed = kafka_rates.single_entry(bootstrap, 1, timed=True)
        console.print(_rates(bootstrap))
        console.print(_profile(timed))


def _latency(shards: int, rate: float, windows: Sequence[Window]) -> Table:
    title = f"Latency in ms at {rate:.0f} single-entry transactions/s, one broker, {shards} shards, 1 worker"
    table = new_table(title, "from publishing to", "best p50", "its p99", "median p50", "median p99", "aim p50", "p99")
    for aim in AIMS:
        best = min((aim.of(window) for window in windows), key=lambda found: found.p50)
        p50, p99 = (median(getattr(aim.of(window), name) for window in windows) for name in ("p50", "p99"))
        table.add_row(
            aim.name,
            *(f"{value:,.1f}" for value in (best.p50, best.p99, p50, p99)),
            f"{aim.p50:.0f}",
            f"{4 * aim.p50:.0f}",
        )
    table.caption = f"{len(windows)} windows of {SECONDS:.0f} s; from when each was due to be published"
    return table


def _rates(bootstrap: str) -> Table:
    title = f"From publishing to signed roots, {rates.SHARDS} shards, a second"
    table = new_table(title, "workload", "where", "received", "settled and signed")
    table.add_row("single-entry transactions", "embedded log, one process", "", f"{rates.single_entry_rate():,.0f}")
    for workers in (1, 2):
        _add(table, "", workers, kafka_rates.single_entry(bootstrap, workers))
    table.add_row("gateway entries", "embedded log, one process", "", f"{rates.gateway_rate():,.0f}")
    for workers in (1, 2):
        _add(table, "", workers, kafka_rates.gateway(bootstrap, workers))
    table.caption = "on Kafka publishing is part of it, and the synchronizer executes every block again"
    return table


def _add(table: Table, name: str, workers: int, rate: Rate) -> None:
    where = f"Kafka, {workers} worker{'s' if workers > 1 else ''}"
    table.add_row(name, where, f"{rate.received:,.0f}", f"{rate.signed:,.0f}")


def _profile(rate: Rate) -> Table:
    names = list(rate.parts)
    found = {name: kafka_rates.shares(parts) for name, parts in rate.parts.items()}
    table = new_table("Where the time of a block goes, ms (single-entry transactions, 1 worker)", "part", *names)
    parts = dict.fromkeys(part for named, _, _ in found.values() for part in named)
    for part in parts:
        table.add_row(part, *(f"{found[name][0].get(part, 0):.2f}" for name in names))
    table.add_row("all else", *(f"{found[name][1]:.2f}" for name in names))
    table.caption = ", ".join(f"{name}: {found[name][2]:,} blocks" for name in names)
    return table


if __name__ == "__main__":
    main()
