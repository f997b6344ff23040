"""What a demo's ledger runs on: one node in this process, or (in `cluster`) processes on a Kafka cluster."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pipeline.cli.surroundings import passphrase
from pipeline.ledger.chain import Chain
from pipeline.log.port import EventLog
from pipeline.node.layout import NodeLayout
from pipeline.node.node import Node
from pipeline.shards.progress import Idle


class DemoNode(Protocol):
    """A ledger that runs."""

    @property
    def layout(self) -> NodeLayout:
        """Its directory."""

    @property
    def chain(self) -> Chain:
        """Its chain."""

    @property
    def log(self) -> EventLog:
        """Its log."""

    def step(self) -> bool:
        """Let it go on where that needs this process; False where it has nothing to do. Raises what halted it."""

    def run_until(self, condition: Callable[[], bool], timeout_ms: int) -> bool:
        """Let it go on until `condition` holds; False where `timeout_ms` passed first."""

    def heights(self) -> list[int]:
        """The last committed block of each shard, -1 before the first."""

    def rest(self) -> None:
        """Make no more blocks where that can be; those that are there are still signed."""

    def close(self) -> None:
        """Stop it. Idempotent."""


class OwnNode:
    """A `Node` of this process."""

    def __init__(self, root: Path) -> None:
        """Raises as `Node.open`."""
        self._node = Node.open(root, passphrase())

    @property
    def layout(self) -> NodeLayout:
        """As the protocol."""
        return self._node.layout

    @property
    def chain(self) -> Chain:
        """As the protocol."""
        return self._node.chain

    @property
    def log(self) -> EventLog:
        """As the protocol."""
        return self._node.log

    def step(self) -> bool:
        """As the protocol."""
        return not isinstance(self._node.step(), Idle)

    def run_until(self, condition: Callable[[], bool], timeout_ms: int) -> bool:
        """As the protocol."""
        return self._node.run_until(condition, timeout_ms)

    def heights(self) -> list[int]:
        """As the protocol."""
        return [int(task.committed.height) for task in self._node.tasks]

    def rest(self) -> None:
        """Nothing to do: blocks are only made while this process steps."""

    def close(self) -> None:
        """As the protocol."""
        self._node.close()
