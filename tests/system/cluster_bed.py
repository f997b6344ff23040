"""Workers, a synchronizer and clients together on one log in this process; the test deals out the shards."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

from pipeline.codec.topics import Topic
from pipeline.codec.types import ShardId
from pipeline.config import Config
from pipeline.crypto.port import SuiteId
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import TaskDiverged
from pipeline.kv.memory import MemoryKeyValue
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.node.bootstrap import create_topics, new_chain
from pipeline.node.layout import NodeLayout
from pipeline.node.node import wall_clock_ms
from pipeline.node.replica import ReplicaReader
from pipeline.node.signing import SigningNode
from pipeline.node.worker import Worker
from pipeline.shards.life import TaskState
from pipeline.testing.cluster.checker import Contradiction, check
from pipeline.testing.cluster.history import Event, Recorder, read_histories
from pipeline.testing.cluster.looker import Looker
from pipeline.testing.cluster.observed import observe
from pipeline.testing.cluster.payer import Payer
from pipeline.testing.faulty_log import CommitFault, Failing, FaultyLog

NEW = new_chain(
    STANDARD_SUITES, "bed", 2, wall_clock_ms(), suite_id=SuiteId.ML_DSA_44, partitions=2, seed=b"history" * 5
)
BOTH = frozenset({ShardId(0), ShardId(1)})


class Dealt:
    """A place in a group whose shards the test chooses. A zombie believes that it still owns them."""

    def __init__(self, revoked: Callable[[frozenset[ShardId], bool], None]) -> None:
        self._revoked = revoked
        self.shards: frozenset[ShardId] = frozenset()
        self._next: frozenset[ShardId] | None = None

    def give(self, shards: frozenset[ShardId]) -> None:
        self._next = shards

    def poll(self) -> None:
        if self._next is not None:
            shards, self._next = self._next, None
            self._revoked(self.shards - shards, False)
            self.shards = shards

    def copies(self, count: int) -> frozenset[ShardId]:
        return frozenset()

    def owns(self, shard: ShardId) -> bool:
        return shard in self.shards

    def report(self, positions: Mapping[ShardId, int]) -> None:
        pass

    def close(self) -> None:
        pass


class Bed:
    """One payer, one reader, one synchronizer, and as many workers as the test starts."""

    def __init__(self, root: Path, seed: int = 1) -> None:
        self.root = root
        self.chain = NEW.chain
        self.log = FaultyLog(EmbeddedLog(MemoryKeyValue()), self._fault)
        create_topics(self.log, self.chain)
        self.now_ms = wall_clock_ms()
        self.prefix_for = ""
        """The writer of which the next transaction with effects for another shard is to be cut."""
        self._alarmed = False
        self._nodes: list[Worker | SigningNode] = []
        self.sync = SigningNode(self.chain, Config(), root / "sync", self.log, NEW.keys["attestor"], proposes=True)
        layout = NodeLayout(root / "reader")
        layout.root.mkdir()
        layout.genesis.write_bytes(self.chain.genesis.to_record())
        self._view = ReplicaReader(layout, Config(), self.log)
        self._histories = [root / "payer.jsonl", root / "looker.jsonl"]
        self._recorders = [Recorder(path) for path in self._histories]
        self.payer = Payer("payer", 0, self.log, self.chain, self._recorders[0], Random(seed), NEW.keys["treasury"])
        verifier = InlineVerifier(STANDARD_SUITES)
        self.looker = Looker("looker", self._view, verifier, self._recorders[1], Random(seed))

    def worker(self, name: str, shards: frozenset[ShardId] = BOTH) -> tuple[Worker, Dealt]:
        deals: list[Dealt] = []

        def join(revoked: Callable[[frozenset[ShardId], bool], None]) -> Dealt:
            deals.append(Dealt(revoked))
            return deals[0]

        worker = Worker(self.chain, Config(), self.root / name, self.log, join)
        deals[0].give(shards)
        self._nodes.append(worker)
        return worker, deals[0]

    def drive(self, *workers: Worker, rounds: int, pays: bool = True) -> None:
        for _ in range(rounds):
            if pays:
                self.payer.play()
            for _ in range(8):
                self.now_ms += 5
                for worker in workers:
                    worker.step(self.now_ms)
                self.sync.task.step(self.now_ms)  # the product's own alarm may ring; here only the checker judges
            self._look(self.looker.play)

    def lead(self, worker: Worker) -> None:
        for _ in range(300):
            if [task.state for task in worker.tasks.values()] == [TaskState.LEADING] * 2:
                return
            self.now_ms += 5
            worker.step(self.now_ms)
        raise AssertionError({shard: (task.state, task.error) for shard, task in worker.tasks.items()})

    def rest(self, worker: Worker, patience: int = 40) -> bool:
        """Whether all is answered, settled, signed and proved in time."""
        self.looker.ask_all()
        for _ in range(patience):
            self.drive(worker, rounds=1, pays=False)
            self.payer.follow()
            if self.payer.is_resting:
                self._look(self.looker.follow)
                if self.looker.is_resting:
                    return True
        return False

    def _look(self, how: Callable[[], None]) -> None:
        if not self._alarmed:
            try:
                how()
            except TaskDiverged:
                self._alarmed = True  # the reader's own replica has noticed; what it was told before still counts

    def history(self) -> list[Event]:
        return read_histories(self._histories)

    def contradictions(self) -> list[Contradiction]:
        return check(self.history(), observe(self.log, self.chain), at_rest=True)

    def close(self) -> None:
        for node in (*self._nodes, self.sync):
            node.close()
        for recorder in self._recorders:
            recorder.__exit__()
        self._view.close()
        self.log.inner.close()

    def _fault(self, writer_id: str, appends: Sequence[Append]) -> Failing | None:
        crosses = any(append.target.topic is Topic.RELAY for append in appends)
        if not self.prefix_for or not crosses or not writer_id.startswith(self.prefix_for):
            return None
        self.prefix_for = ""
        return Failing(CommitFault.PREFIX, at_poll=True)
