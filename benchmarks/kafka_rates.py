"""How many transactions and entries a second a ledger on a real broker takes from publishing to signed roots.

The synchronizer executes every block again, on the same cores, and so do broker and client share them.
"""

import json
from dataclasses import dataclass

from benchmarks.bed import receiver, sample_rows
from benchmarks.kafka_bed import Bed, bed
from benchmarks.rates import BATCH, SHARDS, gateway_rows, outgoing
from benchmarks.timed import BLOCKS, EVERYTHING
from pipeline.client.producer import Unsigned

SINGLE = 4_000
GATEWAY_REPETITIONS = 4


@dataclass(frozen=True)
class Rate:
    """`received`: a second until the last receipt; `signed`: until all is settled and under signed roots."""

    received: float
    signed: float
    parts: dict[str, dict[str, float]]
    """By process: seconds of each part while it ran; empty where not asked for."""


def single_entry(bootstrap: str, workers: int, count: int = SINGLE, *, timed: bool = False) -> Rate:
    """Transactions of the packaged sample, one entry each."""
    rows = sample_rows()[:count]
    with bed(bootstrap, SHARDS, workers, timed=timed) as ledger:
        ledger.fund(outgoing(rows))
        unsigned = [
            ledger.pay(
                row.payer,
                [
                    (
                        ledger.sender(row.payee).address if ledger.holds_key(row.payee) else receiver(row.payee),
                        row.amount,
                    )
                ],
            )
            for row in rows
        ]
        return _play(ledger, unsigned, len(rows))


def gateway(bootstrap: str, workers: int, repetitions: int = GATEWAY_REPETITIONS) -> Rate:
    """Entries of `gateway`: custodians pay the sample's receivers, 100 entries a transaction."""
    rows = gateway_rows(repetitions)
    with bed(bootstrap, SHARDS, workers) as ledger:
        ledger.fund(outgoing(rows))
        waiting: dict[str, list[tuple[bytes, int]]] = {}
        unsigned = []
        for row in rows:
            entries = waiting.setdefault(row.payer, [])
            entries.append((receiver(row.payee), row.amount))
            if len(entries) == BATCH:
                unsigned.append(ledger.pay(row.payer, waiting.pop(row.payer)))
        unsigned += [ledger.pay(name, entries) for name, entries in waiting.items()]
        return _play(ledger, unsigned, len(rows))


def _play(ledger: Bed, unsigned: list[Unsigned], count: int) -> Rate:
    received_s, signed_s = ledger.play(ledger.producer.sign(unsigned))
    ledger.processes.close()  # then they write what they have timed
    parts = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in ledger.timings().items()}
    return Rate(count / received_s, count / signed_s, parts)


def shares(parts: dict[str, float]) -> tuple[dict[str, float], float, int]:
    """Milliseconds a block of each part, those of nothing else, and how many blocks."""
    blocks = int(parts[BLOCKS])
    named = {name: 1000 * spent / blocks for name, spent in parts.items() if name not in (BLOCKS, EVERYTHING)}
    rest = 1000 * parts[EVERYTHING] / blocks - sum(ms for name, ms in named.items() if "another thread" not in name)
    return named, rest, blocks
