"""Workers and signers on one log in memory, without a cluster: the test deals out the shards."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.codec.types import ShardId
from pipeline.config import Config
from pipeline.crypto.port import SuiteId
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import HauptbuchError
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.chain import Chain
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.membership import Revoked
from pipeline.node.bootstrap import create_topics, new_chain
from pipeline.node.node import wall_clock_ms
from pipeline.node.replica import Replica
from pipeline.node.signing import SigningNode
from pipeline.node.worker import Worker
from pipeline.shards.life import TaskState
from pipeline.shards.observer import CopyObserver, ShardObserver

NEW = new_chain(
    STANDARD_SUITES,
    "test",
    2,
    wall_clock_ms(),
    suite_id=SuiteId.ML_DSA_44,
    partitions=3,
    attestors=2,
    attestor_threshold=2,
    seed=b"s" * 32,
)
BOTH = frozenset({ShardId(0), ShardId(1)})


class Deal:
    """A member of a group whose shards the test chooses."""

    def __init__(self, revoked: Revoked) -> None:
        self._revoked = revoked
        self.shards: frozenset[ShardId] = frozenset()
        self.proves = True
        self.told: dict[ShardId, int] = {}
        self._next: tuple[frozenset[ShardId], bool] | None = None
        self.left = False
        self.inherits: frozenset[ShardId] = frozenset()

    def copies(self, count: int) -> frozenset[ShardId]:
        assert count == 1
        return self.inherits - self.shards

    def give(self, shards: frozenset[ShardId], *, lost: bool = False) -> None:
        self._next = shards, lost

    def poll(self) -> None:
        if self._next is not None:
            shards, lost = self._next
            self._next = None
            self._revoked(self.shards - shards, lost)
            self.shards = shards

    def owns(self, shard: ShardId) -> bool:
        return self.proves and shard in self.shards

    def report(self, positions: Mapping[ShardId, int]) -> None:
        self.told.update(positions)

    def close(self) -> None:
        self.left = True


class Heard(CopyObserver):
    """What was told of copies, by shard."""

    def __init__(self, shard: ShardId, log: list[str]) -> None:
        self._shard, self._log = shard, log

    def catching_up(self, height: int, end: int) -> None:
        self._log.append(f"{self._shard} at {height} of {end}")

    def follows(self, height: int) -> None:
        self._log.append(f"{self._shard} follows {height}")

    def failed(self, error: HauptbuchError) -> None:
        self._log.append(f"{self._shard} failed: {error}")

    def gone(self) -> None:
        self._log.append(f"{self._shard} gone")


class Bed:
    """A log with the chain's topics, and what runs on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.chain: Chain = NEW.chain
        self.disk = MemoryKeyValue()
        self.log = EmbeddedLog(self.disk)
        create_topics(self.log, self.chain)
        self.now_ms = wall_clock_ms()
        self.said: list[str] = []

    def worker(
        self,
        name: str,
        shards: frozenset[ShardId],
        heard: list[str] | None = None,
        config: Config | None = None,
    ) -> tuple[Worker, Deal]:
        deals: list[Deal] = []

        def join(revoked: Revoked) -> Deal:
            deals.append(Deal(revoked))
            return deals[0]

        copies = [] if heard is None else heard
        worker = Worker(
            self.chain,
            config or Config(),
            self.root / name,
            self.log,
            join,
            observe=self.observe,
            observe_copy=lambda shard: Heard(shard, copies),
        )
        deals[0].give(shards)
        return worker, deals[0]

    def observe(self, shard: ShardId) -> ShardObserver:
        said = self.said

        class Teller(ShardObserver):
            def moved(self, state: TaskState, error: HauptbuchError | None) -> None:
                said.append(f"shard {shard}: {state.value}{'' if error is None else f': {error}'}")

            def gone(self) -> None:
                said.append(f"shard {shard} is gone")

            def catching_up(self, height: int, end: int) -> None:
                said.append(f"shard {shard} is catching up: {height} of {end}")

        return Teller()

    def signing(self, role: str | None) -> SigningNode:
        key = None if role is None else NEW.keys[role]
        return SigningNode(self.chain, Config(), self.root / (role or "sync"), self.log, key, proposes=role is None)

    def drive(self, condition: Callable[[], bool], *nodes: Worker | SigningNode | Replica) -> None:
        for _ in range(3_000):
            if condition():
                return
            self.now_ms += 5
            for node in nodes:
                node.step(self.now_ms)
        raise AssertionError(self.said)


def leads(worker: Worker, *shards: int) -> bool:
    return {shard for shard, task in worker.tasks.items() if task.state is TaskState.LEADING} == set(shards)
