"""What an audit can find, and where."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pipeline.codec.topics import Topic


class FindingKind(Enum):
    """The lie or damage that a finding is about."""

    STORAGE_DAMAGED = "storage damaged"
    """The log itself says that stored bytes are not what was written."""
    GENESIS = "genesis"
    TOPICS = "topics"
    BLOCK_UNREADABLE = "block unreadable"
    BLOCK_FORK = "two blocks of a height"
    BLOCK_MISSING = "block missing"
    CHAIN_BROKEN = "header chain broken"
    BLOCK_DIVERGED = "block contradicted"
    """Executing the block again gives something else."""
    INPUT_ALTERED = "input altered"
    INPUT_MISSING = "input missing"
    INPUT_INSERTED = "input inserted"
    OUTPUT_ALTERED = "output altered"
    OUTPUT_MISSING = "output missing"
    OUTPUT_FOREIGN = "output that nothing produced"
    BUNDLE_ALTERED = "bundle altered"
    BUNDLE_MISSING = "bundle missing"
    BUNDLE_FORGED = "bundle forged"
    BUNDLE_ORDER = "bundles out of order"
    CHECKPOINT_CHAIN = "checkpoint chain broken"
    CHECKPOINT_FOREIGN = "no record of checkpoints"
    BAD_SIGNATURE = "signature does not hold"
    NO_QUORUM = "no quorum"
    EQUIVOCATION = "equivocation"
    ROOT_MISMATCH = "signed root contradicted"
    CUT_INCONSISTENT = "inconsistent cut"
    HISTORY_CUT = "history cut"
    CONSERVATION = "value not conserved"
    UNEXPECTED = "audit stopped here"
    """The library refused something in a way that no check foresaw."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    `shard`: whose partition of `topic` it is in (None for control and checkpoints). `height`: the block concerned; for
    relay the block that sent, or should have sent, the bundle. `offset`: in that partition.
    """

    kind: FindingKind
    message: str
    shard: int | None = None
    height: int | None = None
    topic: Topic | None = None
    offset: int | None = None

    def place(self) -> str:
        """Where, for people."""
        parts = []
        if self.shard is not None:
            parts.append(f"shard {self.shard}")
        if self.height is not None:
            parts.append(f"height {self.height}")
        if self.topic is not None:
            parts.append(self.topic.topic_name)
        if self.offset is not None:
            parts.append(f"offset {self.offset}")
        return " ".join(parts) or "whole log"

    def to_json(self) -> dict[str, Any]:
        """Fields in a fixed order."""
        return {
            "kind": self.kind.name.lower(),
            "shard": self.shard,
            "height": self.height,
            "topic": None if self.topic is None else self.topic.topic_name,
            "offset": self.offset,
            "message": self.message,
        }


Report = Callable[[Finding], None]
"""Takes what a check found."""


def ignore(finding: Finding) -> None:
    """For readers of what another check has reported already."""


def one_line(error: BaseException) -> str:
    """What an exception says, fit for a finding."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
