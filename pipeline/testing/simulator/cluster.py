"""The machines of one simulation: a log, workers, synchronizers, and what may happen to them."""

from collections.abc import Sequence
from random import Random

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.crypto.port import PrivateKey
from pipeline.crypto.verifier import InlineVerifier
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.node.bootstrap import create_topics
from pipeline.shards.life import TaskState
from pipeline.shards.progress import Idle, Progress
from pipeline.shards.signed_roots import SignedRoots
from pipeline.shards.task import ShardTask
from pipeline.sync.ledger_follower import LedgerFollower
from pipeline.testing.faulty_kv import SimulatedCrash
from pipeline.testing.faulty_log import Failing, FaultyLog
from pipeline.testing.simulator.chaos import Chaos, draw_failing
from pipeline.testing.simulator.drives import Drive
from pipeline.testing.simulator.report import Trace
from pipeline.testing.simulator.seats import Seat, SignerStarts
from pipeline.testing.simulator.worker import Worker
from pipeline.testing.suite import TEST_SUITES

_SETTLE_STEPS = 20_000
_SETTLE_MS = 5_000


class Cluster:
    """Everything but the producers. `now_ms` is the one clock, from which workers differ a little.

    `calm`: nothing new goes wrong; what is armed already still may. `lied_about_rounds`: somebody published proposals
    or signatures that are not the proposer's or an attestor's, and the audit will say so.
    """

    def __init__(
        self, chain: Chain, keys: Sequence[PrivateKey], chaos: Chaos, random: Random, trace: Trace, now_ms: int
    ):
        """All processes started, none stepped. `keys`: of all who ever attest; the proposer's own if it signs alone."""
        self.chain, self.chaos, self.now_ms = chain, chaos, now_ms
        self._random, self._trace = random, trace
        self.calm = False
        self.lied_about_rounds = False
        self._log_drive = Drive(random)
        self.log = self._open_log()
        create_topics(self.log, chain)
        verifier = InlineVerifier(TEST_SUITES)
        self.owners: dict[int, str] = {}
        self.workers = [
            Worker(name, chain, lambda: self.log, verifier, self.owners, random, trace, self._store_crashes)
            for name in "abc"[: chaos.workers]
        ]
        for shard in range(chain.genesis.partitions if chaos.idle_tasks else chain.genesis.shards):
            self._give(shard, random.choice(self.workers))
        self.assurance = Assurance.EXECUTION if chaos.executes_again else Assurance.HEADERS
        starts = SignerStarts(chain, lambda: self.log, verifier, random, self.assurance)
        seats = {"proposer": starts.proposer(None if chaos.attestors else keys[0])}
        if chaos.attestors:
            seats |= {f"attestor {number}": starts.attestor(key) for number, key in enumerate(keys)}
        self.seats = [Seat(name, start, random, trace, self._store_crashes) for name, start in seats.items()]

    def _store_crashes(self) -> float:
        return 0.0 if self.calm else self.chaos.store_crashes

    def _open_log(self) -> FaultyLog:
        """Armed with a crash by chance, a few times; never while topics are made or once it is calm."""
        cuts = self._trace.events["power cut"]
        chance = 0.0 if self.calm or not 0 < cuts < 4 else self.chaos.log_crashes
        while True:
            try:
                return FaultyLog(EmbeddedLog(self._log_drive.open(chance)), self._choose)
            except SimulatedCrash:
                self._log_drive.crash()

    def _choose(self, writer_id: str, appends: Sequence[Append]) -> Failing | None:  # noqa: ARG002 - any of them
        if self.calm or self._random.random() >= self.chaos.commit_fails:
            return None
        failing = draw_failing(self._random)
        self._trace.event(f"commit {failing.fault.value}", writer_id.split("-", 1)[1][:12])
        return failing

    # Looking

    def task(self, shard: int) -> ShardTask:
        """The task of the worker that owns the shard."""
        (owner,) = [worker for worker in self.workers if worker.name == self.owners[shard]]
        return owner.tasks[shard]

    @property
    def active_shards(self) -> int:
        """As the furthest shard knows."""
        return max(self.task(shard).committed.control.active_shards for shard in self.owners)

    @property
    def proposer(self) -> LedgerFollower | None:
        """What the proposer knows; None while it fences."""
        return self.seats[0].owner.follower

    # What may happen

    def act(self, action: str) -> None:
        """One action of the scheduler's. Crashes that it runs into are part of it."""
        try:
            match action:
                case "step":
                    self._step_something()
                case "tick":
                    self._tick()
                case "crash worker":
                    self._crash(self._random.choice(self.workers))
                case "lose store":
                    worker = self._random.choice(self.workers)
                    self._crash(worker, wiped=self._random.choice([*worker.tasks, None]))
                case "take over":
                    self._take_over()
                case "crash signer" | "replace signer" | "lose signer's disk" | "away" | "back":
                    self._harm_seat(self._random.choice(self.seats), action)
                case "power cut":
                    self._power_cut()
                case _:
                    raise AssertionError(f"no action is called {action}")
        except SimulatedCrash:
            # Of the log: its callers catch what their own disks do to them.
            self._power_cut()

    def guarded_append(self, target: TopicPartition, value: bytes | None) -> int | None:
        """Append as a producer; None where the power went meanwhile, and with it the answer."""
        try:
            return self.log.append([Append(target, None, value)])[0]
        except SimulatedCrash:
            self._power_cut()
            return None

    def _tick(self) -> None:
        random = self._random
        jump = (
            random.choice((1, 1, 3, 10, 50, 300, 2_500, 61_000)) if random.random() < 0.9 else -random.randint(1, 900)
        )
        self.now_ms += jump
        self._trace.now_ms += jump

    def _step_something(self) -> None:
        running = [(worker, shard) for worker in self.workers for shard in worker.tasks]
        choice = self._random.randrange(len(running) + len(self.seats))
        for _ in range(self._random.randint(1, 5)):
            if choice >= len(running):
                seat = self.seats[choice - len(running)]
                answer = self._step_seat(seat, seat.any_number())
            else:
                answer = self._step_worker(*running[choice])
            if answer is None or isinstance(answer, Idle):
                return

    def _step_worker(self, worker: Worker, shard: int) -> Progress | Idle | None:
        """None where the worker died of it."""
        if shard not in worker.tasks:
            return None
        try:
            answer = worker.step(shard, self.now_ms)
        except SimulatedCrash:
            if self._log_is_down():
                raise
            self._trace.event("disk crash", f"worker {worker.name} shard {shard}")
            worker.crash()
            return None
        self._open_created()
        return answer

    def _step_seat(self, seat: Seat, number: int) -> Progress | Idle | None:
        try:
            return seat.step(self.now_ms, number)
        except SimulatedCrash:
            if self._log_is_down():
                raise
            self._trace.event("disk crash", seat.name)
            seat.crash(number)
            return None

    def _harm_seat(self, seat: Seat, action: str) -> None:
        match action:
            case "replace signer":
                self._trace.event("replaced", seat.name)
                seat.replace()
            case "lose signer's disk":
                self._trace.event("lost memory", seat.name)
                seat.crash(wiped=True)
            case "away" | "back":
                leaves = action == "away"
                if leaves is not seat.is_away and seat is not self.seats[0]:
                    self._trace.event(action, seat.name)
                    seat.is_away = leaves
            case _:
                self._trace.event("crash", seat.name)
                seat.crash(seat.any_number())

    def _log_is_down(self) -> bool:
        try:
            self.log.read(TopicPartition(Topic.CONTROL, 0), 0, 1, 1)
        except SimulatedCrash:
            return True
        return False

    def _crash(self, worker: Worker, wiped: int | None = None) -> None:
        self._trace.event("crash" if wiped is None else "lost store", f"worker {worker.name} shard {wiped}")
        worker.crash(wiped=wiped)

    def _power_cut(self) -> None:
        self._trace.event("power cut")
        self._log_drive.crash()
        self.log = self._open_log()
        try:
            for worker in self.workers:
                worker.crash()
            for seat in self.seats:
                for number in range(seat.count):
                    seat.crash(number)
        except SimulatedCrash:
            self._power_cut()

    def _take_over(self) -> None:
        shard = self._random.choice(sorted(self.owners))
        old = self.owners[shard]
        worker = self._random.choice(self.workers)
        self._trace.event("take over", f"shard {shard} from {old} to {worker.name}")
        if self._random.random() < 0.5:
            for other in self.workers:
                if other.name == old and shard in other.tasks:
                    other.tasks[shard].revoke()
        self._give(shard, worker)

    def _give(self, shard: int, worker: Worker) -> None:
        self.owners[shard] = worker.name
        worker.assign(shard)

    def _open_created(self) -> None:
        for shard in range(len(self.owners), self.active_shards):
            self._trace.note(f"shard {shard} was created")
            self._give(shard, self._random.choice(self.workers))

    # The end

    def settle(self) -> None:
        """Nothing fails any more: run until all is executed and signed. Asserts that it comes to that."""
        self.calm = True
        for seat in self.seats:
            seat.is_away = False
        self._power_cut()  # what is armed would still fire
        self._trace.note("calm from here on")
        quiet_since_ms = self.now_ms
        for _ in range(_SETTLE_STEPS):
            for shard in self.owners:
                self.task(shard).assign()
            answers = [worker.step(shard, self.now_ms) for worker in self.workers for shard in list(worker.tasks)]
            answers += [seat.step(self.now_ms) for seat in self.seats]
            self._open_created()
            if any(isinstance(answer, Progress) for answer in answers):
                quiet_since_ms = self.now_ms
                continue
            if self._is_done():
                return
            assert self.now_ms < quiet_since_ms + _SETTLE_MS, f"nothing moves any more: {self._unfinished()}"
            self.now_ms += 5
            self._trace.now_ms += 5
        raise AssertionError("no rest within the steps allowed")

    def _is_done(self) -> bool:
        return not self._unfinished()

    def _unfinished(self) -> list[str]:
        """What is still to be executed or signed."""
        left = []
        roots = SignedRoots(self.chain, self.log, InlineVerifier(TEST_SUITES))
        for shard in range(self.active_shards):
            task = self.task(shard)
            cursor = task.committed
            if task.state is not TaskState.LEADING:
                left.append(f"shard {shard} is {task.state.value}")
                continue
            for topic, position in zip((Topic.CONTROL, Topic.RELAY, Topic.TRANSACTIONS), cursor.positions, strict=True):
                source = cursor.source(topic)
                if self.log.read(source, position, 1, 1 << 20):
                    left.append(f"shard {shard} did not consume {topic.topic_name} from {position}")
            root = roots.newest(shard)
            if root is None or root.height < cursor.height:
                left.append(f"shard {shard} is signed to {root and root.height} of {cursor.height}")
        return left
