"""What an audit says: verdict, findings, figures, the conservation table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.audit.conservation import AssetLine
from pipeline.audit.findings import Finding
from pipeline.audit.relay_check import InFlight
from pipeline.audit.replay import Figures

_MOST_SHOWN = 50


@dataclass(frozen=True, slots=True)
class AuditReport:
    """`complete_up_to`: the last round, from 0 on, behind which everything held; -1 for none.

    `conserved`: the table; None where a shard could not be executed to its end, so that nothing can be summed.
    `checkpoint_hash`: of that round, to be kept for the next audit. `unsigned_blocks`: executed, not in any round yet.
    """

    chain_id: str
    findings: tuple[Finding, ...]
    figures: Figures
    rounds: int
    complete_up_to: int
    checkpoint_hash: str
    unsigned_blocks: int
    in_flight: tuple[InFlight, ...]
    conserved: tuple[AssetLine, ...] | None
    outside_checkpoint: int | None
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def verdict(self) -> str:
        """One line."""
        reach = f"complete up to round {self.complete_up_to}" if self.complete_up_to >= 0 else "no round is complete"
        if not self.ok:
            return f"{len(self.findings)} finding{'s' if len(self.findings) > 1 else ''}; {reach}"
        if self.outside_checkpoint is None:
            return f"all checks hold; {reach}; no outside checkpoint given"
        return f"all checks hold; {reach}; holds the checkpoint of round {self.outside_checkpoint} that was seen before"

    def to_json(self) -> dict[str, Any]:
        """All of it, fields in a fixed order."""
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "chain_id": self.chain_id,
            "complete_up_to": self.complete_up_to,
            "checkpoint_hash": self.checkpoint_hash,
            "outside_checkpoint": self.outside_checkpoint,
            "findings": [finding.to_json() for finding in self.findings],
            "figures": {
                **{name: getattr(self.figures, name) for name in Figures.__slots__},
                "rounds": self.rounds,
                "unsigned_blocks": self.unsigned_blocks,
                "in_flight": len(self.in_flight),
                "seconds": round(self.seconds, 3),
            },
            "conservation": None if self.conserved is None else [line.to_json() for line in self.conserved],
        }

    def to_text(self) -> str:
        """`to_json` as a file's text."""
        return json.dumps(self.to_json(), indent=2) + "\n"

    def render(self) -> list[str]:
        """Plain lines for people: chain, verdict, figures, findings, table."""
        figures = self.figures
        lines = [
            f"chain {self.chain_id or 'not known'}",
            self.verdict,
            f"{figures.blocks} blocks, {self.rounds} rounds, {figures.records} records, "
            f"{figures.transactions} transactions, {figures.signatures} signatures, {figures.bundles} bundles, "
            f"{figures.bytes} bytes in {self.seconds:.1f} s",
            f"{self.unsigned_blocks} blocks not signed yet, {len(self.in_flight)} bundles in flight",
        ]
        lines += [f"  {item.kind.value}: {item.place()}: {item.message}" for item in self.findings[:_MOST_SHOWN]]
        if len(self.findings) > _MOST_SHOWN:
            lines.append(f"  and {len(self.findings) - _MOST_SHOWN} more")
        return lines + _table(self.conserved)


def _table(conserved: Sequence[AssetLine] | None) -> list[str]:
    if conserved is None:
        return ["conservation: not judged, a shard could not be executed to its end"]
    return [line.render() for line in conserved]
