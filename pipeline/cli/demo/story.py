"""What the demo found, told section by section while it runs, and as one JSON document."""

import re
from collections.abc import Sequence
from typing import Any, Final

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline.audit.report import AuditReport
from pipeline.cli.assets import format_amount
from pipeline.cli.demo.evidence import ProofCheck
from pipeline.cli.demo.lies import LieCheck
from pipeline.cli.demo.payments import ASSET, DECIMALS
from pipeline.cli.demo.phases import Latency, Percentiles
from pipeline.cli.demo.play import Played

_WIDTH: Final = 110
_LABEL: Final = 12
_HASH: Final = re.compile("[0-9a-f]{64}")
_HASH_SHOWN: Final = 8
_FINDINGS_SHOWN: Final = 10


class Story:
    """Prints to standard output; silent where the figures are wanted as JSON."""

    def __init__(self, *, silent: bool) -> None:
        """Nothing is told yet."""
        self._console = Console(highlight=False, markup=False, quiet=silent)
        self._console.width = min(_WIDTH, self._console.width) if self._console.is_terminal else _WIDTH

    def section(self, label: str, *lines: str, good: bool | None = None) -> None:
        """A label and lines beside it; green or red where something was checked."""
        style = "bold" if good is None else "bold green" if good else "bold red"
        for index, line in enumerate(lines):
            head = Text(f"{label if index == 0 else '':{_LABEL}}", style=style)
            self._print(head.append(line, style="not bold default"))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
        """A table below a section."""
        grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in columns:
            grid.add_column(column, justify="right" if column in right else "left", overflow="fold")
        for row in rows:
            grid.add_row(*[Text(cell) for cell in row])
        self._print(Padding(grid, (0, 0, 1, _LABEL)))

    def _print(self, shown: RenderableType) -> None:
        """Without the spaces that tables leave at the ends of lines."""
        with self._console.capture() as capture:
            self._console.print(shown, soft_wrap=isinstance(shown, Text))
        for line in capture.get().splitlines():
            print(line.rstrip())

    def played(self, played: Played) -> None:
        """Both phases."""
        fast = played.throughput
        self.section(
            "Prepared",
            f"{len(played.addresses):,} accounts, funds minted, in {played.preparing_seconds:.1f} s; "
            f"{played.signatures:,} payments signed, {played.signatures_per_second:,.0f} signatures/s",
        )
        self.section(
            "Phase 1",
            f"{fast.transactions:,} transactions as fast as they go: {fast.rate:,.0f} tx/s",
            f"{fast.crossed / fast.transactions:.1%} of them crossed shards; {fast.blocks:,} blocks; all settled and "
            f"under signed roots after {fast.settled_seconds:.2f} s",
        )
        slow = played.latency
        self.section("Phase 2", f"{slow.transactions:,} transactions at half that rate, {slow.rate:,.0f} tx/s; in ms:")
        self.table(("from publishing to", "p50", "p99"), _latency_rows(slow), right=("p50", "p99"))

    def proof(self, proof: ProofCheck) -> None:
        """One proof."""
        if proof.balance is None:
            says = f"{proof.address} has no account"
        else:
            says = f"{proof.address} holds {_amount(proof.balance)} {ASSET}"
        refused = "refused" if proof.forgery_refused else "ACCEPTED"
        self.section(
            "Proof" if proof.balance is not None else "Absence",
            says,
            f"proved in {proof.file_bytes:,} bytes, {'verified' if proof.holds else 'NOT VERIFIED'} offline against "
            f"round {proof.round} (shard {proof.shard}, block {proof.height}); a forged copy was {refused}",
            good=proof.holds and proof.forgery_refused,
        )

    def audited(self, report: AuditReport) -> None:
        """The verdict, its figures and the conservation table."""
        figures = report.figures
        self.section("Audit", report.verdict, good=report.ok)
        self.section(
            "",
            f"{figures.blocks:,} blocks of {figures.records:,} records executed again, {figures.signatures:,} "
            f"signatures and {report.rounds:,} rounds checked, in {report.seconds:.1f} s",
        )
        for finding in report.findings[:_FINDINGS_SHOWN]:
            self.section("", f"{finding.place()}: {finding.kind.value}: {finding.message}")
        rows = [
            (
                line.symbol,
                *(_amount(amount) for amount in (line.balances, line.in_flight, line.issued - line.burned)),
                "equal" if line.holds else "DIFFERENT",
            )
            for line in report.conserved or ()
        ]
        self.table(
            ("asset", "balances", "in flight", "issued - burned", ""),
            rows,
            right=("balances", "in flight", "issued - burned"),
        )

    def lies(self, checks: Sequence[LieCheck]) -> None:
        """What became of the damaged copies."""
        caught = sum(check.caught for check in checks)
        self.section(
            "Lies", f"{len(checks)} damaged copies of the log audited, {caught} caught:", good=caught == len(checks)
        )
        self.table(("damage", "caught at"), [(check.damage.description, _caught_at(check)) for check in checks])


def _amount(minor: int) -> str:
    """Without the zeros at the end."""
    return format_amount(minor, DECIMALS).rstrip("0").rstrip(".")


def _caught_at(check: LieCheck) -> str:
    finding = check.finding
    if finding is None:
        return f"NOT CAUGHT ({check.findings} findings elsewhere)"
    message = _HASH.sub(lambda match: match[0][:_HASH_SHOWN] + "...", finding.message)
    return f"{finding.place()}: {finding.kind.value}\n{message}"


def _latency_rows(latency: Latency) -> list[tuple[str, str, str]]:
    named = (("receipt", latency.receipt), ("settlement", latency.settled), ("signed root", latency.root))
    return [(name, f"{times.p50:,.1f}", f"{times.p99:,.1f}") for name, times in named]


def played_json(played: Played) -> dict[str, Any]:
    """Figures of both phases; times as their names say."""
    fast, slow = played.throughput, played.latency
    return {
        "accounts": len(played.addresses),
        "signatures": played.signatures,
        "signatures_per_second": round(played.signatures_per_second, 1),
        "preparing_seconds": round(played.preparing_seconds, 3),
        "refused_roots": played.refused_roots,
        "phase_1": {
            "transactions": fast.transactions,
            "crossed_shards": fast.crossed,
            "blocks": fast.blocks,
            "seconds": round(fast.seconds, 3),
            "transactions_per_second": round(fast.rate, 1),
            "settled_and_signed_seconds": round(fast.settled_seconds, 3),
        },
        "phase_2": {
            "transactions": slow.transactions,
            "transactions_per_second": round(slow.rate, 1),
            "receipt_ms": _percentiles(slow.receipt),
            "settled_ms": _percentiles(slow.settled),
            "signed_root_ms": _percentiles(slow.root),
        },
    }


def _percentiles(times: Percentiles) -> dict[str, float]:
    return {"p50": round(times.p50, 3), "p99": round(times.p99, 3)}
