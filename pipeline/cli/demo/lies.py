"""Damaged copies of the demo's log: each is audited, each must be caught where it was damaged."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from pipeline.audit import tamper
from pipeline.audit.findings import Finding
from pipeline.audit.tamper import Damage
from pipeline.cli.auditing import audit_directory
from pipeline.client.trust import Trust
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import ConfigError
from pipeline.ledger.chain import Chain

TOLD: Final = (
    "flip_block_byte",
    "remove_bundle",
    "raise_transaction_amount",
    "raise_bundle_amount",
    "hide_transaction",
    "resign_state_root",
    "second_checkpoint",
    "cut_history",
)
"""Lies of `tamper.LIES` that the demo tells."""
LEAST_LIES: Final = 5


@dataclass(frozen=True, slots=True)
class LieCheck:
    """A lie and what the audit made of it; `finding` is the one that names the damaged place, None where none does."""

    damage: Damage
    findings: int
    finding: Finding | None
    seconds: float

    @property
    def caught(self) -> bool:
        """Whether the audit said no, and where."""
        return self.finding is not None

    def to_json(self) -> dict[str, Any]:
        """Fields in a fixed order."""
        return {
            "damage": self.damage.description,
            "topic": self.damage.topic.topic_name,
            "shard": self.damage.shard,
            "height": self.damage.height,
            "offset": self.damage.offset,
            "caught": self.caught,
            "findings": self.findings,
            "finding": None if self.finding is None else self.finding.to_json(),
            "seconds": round(self.seconds, 3),
        }


def tell_lies(log: Path, chain: Chain, trust: Trust, tell: Callable[[str], None]) -> Iterator[LieCheck]:
    """Tell each lie to a copy of the log in directory `log`, which nobody may have open, and audit that.

    `trust` holds the last checkpoint that a subscriber saw: without it a log that ends earlier is a true one. A lie
    about what the log does not have (one shard has no relay) is left out.
    """
    for name in TOLD:
        tell(f"auditing a damaged copy: {name.replace('_', ' ')}")
        with tempfile.TemporaryDirectory(prefix="hauptbuch-lie-") as folder:
            copy = Path(folder) / "log"
            shutil.copytree(log, copy)
            started = perf_counter()
            try:
                damage = tamper.tell(copy, tamper.LIES[name], STANDARD_SUITES)
            except ConfigError as error:
                tell(f"left out: {error}")
                continue
            yield _check(copy, damage, chain, trust, started)


def _check(copy: Path, damage: Damage, chain: Chain, trust: Trust, started: float) -> LieCheck:
    report = audit_directory(copy, chain, trust)
    named = [finding for finding in report.findings if _names(finding, damage)]
    named.sort(key=lambda finding: (finding.offset != damage.offset, finding.height is None))
    return LieCheck(damage, len(report.findings), named[0] if named else None, perf_counter() - started)


def _names(finding: Finding, damage: Damage) -> bool:
    if finding.topic is not damage.topic or finding.shard != damage.shard:
        return False
    return finding.offset == damage.offset or (finding.height is not None and finding.height == damage.height)
