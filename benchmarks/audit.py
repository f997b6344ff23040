"""How fast an audit is, beside the run that made the log: a record of it, on one processor and on all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from benchmarks.bed import bed, play, publish, sample_rows, transfers
from pipeline.audit.run import audit_log
from pipeline.audit.tools import directory_tools, memory_kv
from pipeline.ledger.chain import Chain

SHARDS = 4
ROWS = 16_000


@dataclass(frozen=True, slots=True)
class AuditFigures:
    """One audit: input records, seconds, and its ratio to the run from the log to signed roots on all cores."""

    cores: int
    records: int
    seconds: float
    run_seconds: float

    @property
    def micros(self) -> float:
        """Microseconds a record."""
        return 1e6 * self.seconds / self.records

    @property
    def ratio(self) -> float:
        """Of the audit's time to the run's."""
        return self.seconds / self.run_seconds


def run(count: int = ROWS) -> list[AuditFigures]:
    """Play single-entry payments with real signatures, then audit the log with one process and with one a core."""
    rows = sample_rows()[:count]
    funds: dict[str, int] = {}
    for row in rows:
        funds[row.payer] = funds.get(row.payer, 0) + row.amount
    with bed(SHARDS, funds) as (node, wallet, asset):
        known = [*dict.fromkeys(row.payee for row in rows)]
        to = {name: wallet.address(name) for name in known}
        publish(
            node, wallet.sign([wallet.body(row.payer, transfers(asset, [(to[row.payee], row.amount)])) for row in rows])
        )
        started = perf_counter()
        play(node)
        run_seconds = perf_counter() - started
        chain, log = node.chain, node.layout.log
        return [_audit(log, chain, cores, run_seconds) for cores in dict.fromkeys((1, os.cpu_count() or 1))]


def _audit(log: Path, chain: Chain, cores: int, run_seconds: float) -> AuditFigures:
    with directory_tools(log, workers=cores) as tools, _processors(cores):
        report = audit_log(tools._replace(new_kv=memory_kv), chain=chain, workers=cores)
    assert report.ok, report.verdict
    return AuditFigures(cores, report.figures.records, report.seconds, run_seconds)


@contextmanager
def _processors(count: int) -> Iterator[None]:
    """This process and its children on so many processors, where the system lets one choose."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(allowed)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
