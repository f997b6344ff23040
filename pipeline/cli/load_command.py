"""`hauptbuch load`."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.assets import format_amount
from pipeline.cli.csv_source import Columns, CsvSource, RejectWriter
from pipeline.cli.loading import Loader, LoadReport
from pipeline.cli.names import KeyRing
from pipeline.cli.output import json_line, line, note, progress_bar
from pipeline.cli.surroundings import AcceptTime, Directory, Json, Kafka, passphrase, running_node
from pipeline.errors import ConfigError


def run(
    directory: Directory,
    file: Annotated[Path, typer.Argument(metavar="CSV", help="UTF-8 with a header line; plain or gzip.")],
    payer: Annotated[str, typer.Option("--from", metavar="COL", help="Column of payers' names.")],
    payee: Annotated[str, typer.Option("--to", metavar="COL", help="Column of payees' names.")],
    amount: Annotated[str, typer.Option("--amount", metavar="COL", help="Column of amounts, decimal.")],
    asset: Annotated[str | None, typer.Option("--asset", metavar="COL", help="Column of symbols; else UNIT.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", metavar="COL", help="Column of texts.")] = None,
    decimals: Annotated[int, typer.Option("--decimals", help="Decimal places that amounts may have.")] = 0,
    batch: Annotated[int, typer.Option("--batch", help="Payments of one payer in one transaction, at most.")] = 1,
    limit: Annotated[int | None, typer.Option("--limit", help="Read this many rows only.")] = None,
    delimiter: Annotated[
        str, typer.Option("--delimiter", metavar="CHAR", help="What parts the columns, such as ';'; tab is named so.")
    ] = ",",
    no_mint: Annotated[
        bool, typer.Option("--no-mint", help="Issue nothing: rows of payers that don't have enough are not taken.")
    ] = False,
    rejects: Annotated[
        Path | None, typer.Option("--rejects", metavar="FILE", help="Rows not taken; else DIR/rejects-TIME.csv.")
    ] = None,
    accept_time: AcceptTime = False,
    kafka: Kafka = "",
    as_json: Json = False,
) -> int:
    """Play a CSV of payments: one account for each name.

    The treasury first issues (mints) to each payer just what its rows add up to, and the output says how much that was;
    with --no-mint payers spend what they have. Names are those of the file; the ledger's own keys are none of them.

    Runs the node until everything is settled and under a signed root. Exit code 1 where a receipt is not OK, or no row
    could be taken. A load that was interrupted is not resumed: what it published stays, and loading the file again
    pays all again.
    """
    if not file.is_file():
        what = "a directory" if file.is_dir() else "no regular file" if file.exists() else "no such file"
        raise ConfigError(f"{file}: {what}; give a CSV file (it is read twice, so no pipe)")
    mark = "\t" if delimiter in ("tab", "\\t") else delimiter
    columns = Columns(payer, payee, amount, asset, reference)
    if rejects is not None and rejects.exists() and rejects.samefile(file):
        raise ConfigError(f"--rejects {rejects} is the CSV itself; give another place")
    rejects = rejects or directory / f"rejects-{time.strftime('%Y%m%d-%H%M%S')}.csv"
    with (
        running_node(directory, accept_time=accept_time, kafka=kafka) as node,
        RejectWriter(rejects) as writer,
        progress_bar() as progress,
    ):
        limits = node.chain.genesis.limits
        source = CsvSource(file, columns, decimals, limit, limits.reference_bytes, limits.symbol_bytes, mark)
        ring = KeyRing(node.layout, passphrase())
        try:
            report = Loader(node, ring, source, batch, progress, mint=not no_mint).run(writer.write)
        finally:
            ring.close()
    if report.rejected:
        note(f"{report.rejected} rows were not taken; {rejects} says why")
    if as_json:
        json_line(asdict(report))
    else:
        _print(report, decimals)
    none_taken = report.rejected > 0 and report.payments == 0
    if none_taken:
        note("no row was taken, so nothing was paid")
    return 0 if report.all_ok and not none_taken else 1


def _print(report: LoadReport, decimals: int) -> None:
    share = 100 * report.crossed / report.payments if report.payments else 0.0
    rate = report.payments / report.paying_s if report.paying_s else 0.0
    line(f"payments      {report.payments:,} by {report.names:,} names, {share:.1f} % crossed shards")
    line(f"rejected      {report.rejected:,} rows")
    for symbol, amount in report.minted.items():
        line(f"minted        {format_amount(int(amount), decimals)} {symbol} by the treasury for the payers")
    line(f"transactions  {report.transactions:,}, and {report.funding_transactions:,} of the treasury")
    line(f"blocks        {report.blocks:,} in {report.rounds:,} signed rounds")
    line(f"rate          {rate:,.0f} payments/s over {report.paying_s:.1f} s")
    line(f"time          {report.seconds:.1f} s in all, {report.signing_s:.1f} s of them for signing")
    for problem in report.problems:
        line(f"not OK        {problem}")
    line("receipts all OK" if report.all_ok else "receipts NOT all OK")
