"""How many transactions and entries a one-process node executes, beside the machine's limit of signature checks."""

import os
import threading
from hashlib import sha256
from time import perf_counter

from benchmarks.bed import SUITE, Row, bed, play, publish, receiver, sample_rows, transfers
from pipeline.codec.types import Address
from pipeline.crypto import contexts
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.node.bootstrap import derive_seed

SHARDS = 4
CUSTODIANS = 64
BATCH = 100


def signature_limit(seconds: float = 3.0) -> float:
    """ML-DSA-65 verifications a second with every core doing nothing else."""
    suite = STANDARD_SUITES[SUITE]
    key = suite.generate(derive_seed(b"limit", "key"))
    message = bytes(300)
    signature = key.sign(message, contexts.TRANSACTION)
    counts: list[int] = []

    def work() -> None:
        count, end = 0, perf_counter() + seconds
        while perf_counter() < end:
            for _ in range(50):
                assert suite.verify(key.public_key, message, contexts.TRANSACTION, signature)
            count += 50
        counts.append(count)

    threads = [threading.Thread(target=work) for _ in range(os.cpu_count() or 1)]
    started = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (perf_counter() - started)


def single_entry_rate(count: int = 16_000) -> float:
    """Transactions a second of the packaged sample, one entry each, from the log to a signed root."""
    rows = sample_rows()[:count]
    with bed(SHARDS, outgoing(rows)) as (node, wallet, asset):
        bodies = [
            wallet.body(row.payer, transfers(asset, [(_payee(wallet.keys, wallet.address, row.payee), row.amount)]))
            for row in rows
        ]
        publish(node, wallet.sign(bodies))
        started = perf_counter()
        play(node)
        return len(rows) / (perf_counter() - started)


def gateway_rate(repetitions: int = 10) -> float:
    """Entries a second of `gateway`: 64 custodians pay the sample's receivers, 100 entries a transaction."""
    rows = gateway_rows(repetitions)
    with bed(SHARDS, outgoing(rows)) as (node, wallet, asset):
        waiting: dict[str, list[tuple[bytes, int]]] = {}
        bodies = []
        for row in rows:
            entries = waiting.setdefault(row.payer, [])
            entries.append((receiver(row.payee), row.amount))
            if len(entries) == BATCH:
                bodies.append(wallet.body(row.payer, transfers(asset, entries)))
                waiting[row.payer] = []
        bodies += [wallet.body(name, transfers(asset, entries)) for name, entries in waiting.items() if entries]
        publish(node, wallet.sign(bodies))
        started = perf_counter()
        play(node)
        return len(rows) / (perf_counter() - started)


def gateway_rows(repetitions: int) -> list[Row]:
    """The sample's payments, each payer's by one of the custodians, so many times over to other receivers."""
    return [
        Row(_custodian(row.payer), f"{row.payee}/{repetition}", row.amount)
        for repetition in range(repetitions)
        for row in sample_rows()
    ]


def _custodian(name: str) -> str:
    return f"custodian-{int.from_bytes(sha256(name.encode()).digest()[:4], 'big') % CUSTODIANS}"


def outgoing(rows: list[Row]) -> dict[str, int]:
    """What each payer pays in all."""
    totals: dict[str, int] = {}
    for row in rows:
        totals[row.payer] = totals.get(row.payer, 0) + row.amount
    return totals


def _payee(keys: dict, address, name: str) -> Address:  # type: ignore[no-untyped-def, type-arg]
    return address(name) if name in keys else receiver(name)
