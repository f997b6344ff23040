"""What the system is driven by, and for how long it waits."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from pipeline.crypto.verifier import Verifier
from pipeline.errors import Fatal, HauptbuchError, ShardingError, StateSynchronizationFailed
from pipeline.ledger.chain import Chain
from pipeline.log.port import EventLog
from pipeline.shards.allocator import ShardAllocator
from pipeline.shards.manager import ShardManager
from pipeline.shards.task import ShardTask
from pipeline.sync.round_task import RoundTask

_SECOND_MS: Final = 1_000


class Driver(Protocol):
    """What the system needs of a `pipeline.node.Node`: it owns the parts and steps them."""

    @property
    def chain(self) -> Chain:
        """The chain it runs."""

    @property
    def log(self) -> EventLog:
        """Its log."""

    @property
    def verifier(self) -> Verifier:
        """Shared with the shards, so that a signature checked here need not be checked there."""

    @property
    def tasks(self) -> Sequence[ShardTask]:
        """One task for each active shard, index = shard; it grows when a shard is created."""

    @property
    def allocator(self) -> ShardAllocator:
        """Opens the stores of new shards."""

    @property
    def synchronizer(self) -> RoundTask:
        """Checks blocks and signs state roots."""

    def run_until(self, condition: Callable[[], bool], timeout_ms: int | None = None) -> bool:
        """Step everything until `condition` holds; False where `timeout_ms` passed first."""


class Deadline(NamedTuple):
    """How long to wait, and what to say where that was too short."""

    timeout_s: int
    error: type[ShardingError]
    complaint: str


class Patience:
    """Drives for a limited time, and counts what took longer. A timeout changes nothing but this count."""

    def __init__(self, driver: Driver, manager: ShardManager) -> None:
        """`manager` knows which shards halted."""
        self._driver = driver
        self._manager = manager
        self.timeouts: dict[str, int] = {}

    def until(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Drive. Raises `ShardManagementFailed` or `StateSynchronizationFailed` where a shard or the signer stops."""
        try:
            return self._driver.run_until(condition, deadline.timeout_s * _SECOND_MS)
        except (Fatal, ShardingError):
            raise
        except HauptbuchError as error:
            self._manager.require_no_halt(self._manager.halts)
            raise StateSynchronizationFailed(f"the synchronizer stopped: {error}") from error

    def late(self, deadline: Deadline, what: str) -> ShardingError:
        """The error to raise where `until` was False."""
        timeout_s, error, complaint = deadline
        self.timeouts[error.__name__] = self.timeouts.get(error.__name__, 0) + 1
        return error(f"{what} {complaint} within {timeout_s} s; it may still happen, look before trying again")
