"""What publishes to a ledger needs of it: a node that runs its shards, or a replica that follows them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline.codec.types import ShardId
from pipeline.config import Config
from pipeline.crypto.verifier import Verifier
from pipeline.ledger.chain import Chain
from pipeline.ledger.cursor import ShardCursor
from pipeline.log.port import EventLog
from pipeline.node.layout import NodeLayout
from pipeline.state.store import StateStore


class RunningShard(Protocol):
    """One active shard."""

    @property
    def shard(self) -> ShardId:
        """Which."""

    @property
    def store(self) -> StateStore:
        """Its state as of `committed`."""

    @property
    def committed(self) -> ShardCursor:
        """Where it stands."""


class RunningLedger(Protocol):
    """As `pipeline.node.node.Node` and `pipeline.node.replica.Replica`."""

    @property
    def layout(self) -> NodeLayout:
        """Its directory."""

    @property
    def chain(self) -> Chain:
        """Its chain."""

    @property
    def config(self) -> Config:
        """Its settings."""

    @property
    def log(self) -> EventLog:
        """Its log."""

    @property
    def verifier(self) -> Verifier:
        """Belongs to the thread that drives it."""

    @property
    def tasks(self) -> Sequence[RunningShard]:
        """Every active shard, index = shard."""

    def run_until(self, condition: Callable[[], bool], timeout_ms: int | None = None) -> bool:
        """Go on until `condition` holds; False where `timeout_ms` passed first."""
