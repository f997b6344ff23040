"""`make bench`: every figure measured side by side in one run, with the machine and the versions that it ran on."""

from rich.console import Console
from rich.table import Table

from benchmarks import audit, original, proofs, rates, recovery, tree
from benchmarks.report import machine, new_table


def main() -> None:
    """Print all tables."""
    console = Console(width=110)
    console.print(machine())
    console.print(_rates())
    console.print(_tree())
    console.print(_proofs())
    console.print(_recovery())
    console.print(_audit())
    console.print(_original())


def _rates() -> Table:
    table = new_table("One process, 4 shards, from the log to signed roots", "figure", "a second", "ratio", "aim")
    before = rates.signature_limit()
    single = rates.single_entry_rate()
    limit = (before + rates.signature_limit()) / 2
    table.add_row("ML-DSA-65 checks, all cores, nothing else", f"{limit:,.0f}", "1", "")
    table.add_row("single-entry transactions", f"{single:,.0f}", f"{single / limit:.2f} of the checks", "0.5")
    table.add_row("gateway entries, 100 a transaction", f"{rates.gateway_rate():,.0f}", "", "25,000")
    return table


def _tree() -> Table:
    columns = ("what", "collector", "leaves", "block", "update", "its hashes", "ratio", "aim")
    table = new_table("Tree, microseconds a changed key", *columns)
    for row in tree.run():
        table.add_row(
            row.what,
            "frozen" if row.frozen else "default",
            f"{row.leaves:,}",
            f"{row.block:,}",
            f"{row.micros:.2f}",
            f"{row.floor_micros:.2f}",
            f"{row.ratio:.2f}",
            "1.8",
        )
    return table


def _proofs() -> Table:
    figures = proofs.run()
    table = new_table(f"A proof among {figures.accounts:,} leaves", "bytes", "made in µs", "verified in µs")
    table.add_row(f"{figures.mean_bytes:,.0f}", f"{figures.prove_micros:.1f}", f"{figures.verify_micros:.1f}")
    return table


def _recovery() -> Table:
    figures = recovery.run()
    table = new_table(
        f"Recovery of 4 shards after {figures.transactions:,} transactions", "", "seconds", "transactions a second"
    )
    table.add_row("stores kept", f"{figures.with_store_seconds:.2f}", "")
    rate = figures.transactions / figures.from_log_seconds
    table.add_row("stores lost, from the log", f"{figures.from_log_seconds:.2f}", f"{rate:,.0f}")
    return table


def _audit() -> Table:
    rows = audit.run()
    table = new_table(
        f"Audit of {rows[0].records:,} records that took {rows[0].run_seconds:.1f} s to execute and sign on all cores",
        *("processes, a core each", "seconds", "µs a record", "ratio to the run"),
    )
    for row in rows:
        table.add_row(str(row.cores), f"{row.seconds:.2f}", f"{row.micros:.0f}", f"{row.ratio:.2f}")
    return table


def _original() -> Table:
    columns = ("operation", "stated ms", "measured", "stated gas", "measured", "stated MB", "measured")
    table = new_table("The original architecture's table, and this machine", *columns)
    rows, peak_mb = original.run()
    for row in rows:
        table.add_row(
            row.operation,
            str(row.stated_ms),
            f"{row.measured_ms:.1f}",
            f"{row.stated_gas:,}",
            f"{row.measured_gas:,}",
            str(row.stated_mb),
            f"{row.measured_mb:.1f}",
        )
    table.caption = (
        f"memory: what each kind of operation added to the process's peak, which was {peak_mb:.0f} MB in all"
    )
    return table


if __name__ == "__main__":
    main()
