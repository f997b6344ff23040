"""One ledger on which cases are played: load that runs, faults, rest, judgement.

The judgement is threefold: the judge of `pipeline.testing.kills`, which counts; the audit; the checker of what the
clients were told. It raises `LedgerBroken`, and leaves everything where it is.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.config import Config
from pipeline.config.groups import KafkaConfig
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier, Verifier
from pipeline.errors import HauptbuchError, Retryable
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.cursor import INPUT_TOPICS
from pipeline.log.kafka import KafkaLog
from pipeline.log.port import EventLog
from pipeline.node.places import kafka_log, topic_prefix
from pipeline.shards.signed_roots import SignedRoots
from pipeline.shards.tail import last_record
from pipeline.testing.cluster.checker import check, count_events
from pipeline.testing.cluster.history import Acked, Event, SawRoot, read_histories
from pipeline.testing.cluster.observed import observe
from pipeline.testing.kills.judge import LedgerBroken, judge_log
from pipeline.testing.kills.words import Ack, SeenRoot, Words
from tests.kafka.matrix.brokers import Brokers
from tests.kafka.matrix.fleet import CLIENT, ENTRY, ClientProcess, Fleet, Life

REST_S = 240.0
_SHARDS = 3
_LOOK_S = 0.2
_TRIES = 3
_SINGLE = (Topic.CONTROL,)


@dataclass
class Tally:
    """What was survived."""

    kills: int = 0
    notes: list[str] = field(default_factory=list)
    transactions: int = 0
    blocks: int = 0
    events: dict[str, int] = field(default_factory=dict)


class Stage:
    """Two workers, a synchronizer, two payers and a reader; with `attestors` > 1 a quorum of all but one."""

    def __init__(
        self,
        root: Path,
        brokers: Brokers,
        seed: int,
        *,
        attestors: int = 1,
        proxied: bool = False,
        mutant: str = "",
    ) -> None:
        """`mutant`: of `pipeline.testing.cluster.mutants`, which every process then is.

        Everything leads and everyone has money when this returns; nobody pays yet.
        """
        self.root = root
        self.brokers = brokers
        self.random = Random(seed)
        self.tally = Tally()
        address = brokers.proxied if proxied else brokers.bootstrap
        self.how: dict[str, object] = {"bootstrap": address}
        """How processes are started: where they find brokers, and which program they run."""
        self._client_program: Sequence[str] = CLIENT
        if mutant:
            program = self.how["program"] = (*ENTRY, "--mutant", mutant)
            self._client_program = (*program, "client")
        threshold = max(1, attestors - 1)
        self.fleet = Fleet(root, brokers.bootstrap, shards=_SHARDS, attestors=attestors, threshold=threshold)
        self.roles = (
            ["attestor", *[f"attestor-{number}" for number in range(2, attestors + 1)]] if attestors > 1 else []
        )
        self.clients: list[ClientProcess] = []
        self.may_end: set[str] = set()
        """Slots whose processes may end by themselves in this case: what they say is noted."""
        try:
            self.open()
        except BaseException:
            self.close()
            raise

    @property
    def prefix(self) -> str:
        """Of the names of topics, and (its end) of writers' ids."""
        return topic_prefix(self.fleet.chain)

    def topic(self, topic: Topic) -> str:
        return f"{self.prefix}.{topic.topic_name}"

    def writer_id(self, shard: int) -> str:
        return f"{self.fleet.chain.chain_id.hex()[:16]}-shard-{shard}"

    # Processes

    def open(self) -> None:
        """Start whatever does not run, then clients."""
        self.mend()
        self.open_clients()

    def mend(self) -> None:
        """Everything that should run runs, and every shard is led. Notes what ended by itself."""
        for slot in ("worker-1", "worker-2"):
            self.revive(slot, lambda slot=slot: self.start_worker(slot))
        self.revive("sync", lambda: self.fleet.synchronizer(**self.how))
        for role in self.roles:
            self.revive(role, lambda role=role: self.fleet.attestor(role, **self.how))
        self.fleet.await_led()

    def start_worker(self, slot: str, *options: object, **how: object) -> Life:
        return self.fleet.worker(slot, *options, **{**self.how, **how})

    def revive(self, slot: str, start: Callable[[], Life]) -> None:
        """Start it again if it does not run."""
        life = self.fleet.lives.get(slot)
        if life is None or not life.is_alive:
            if life is not None:
                self.note_end(life)
            start()

    def note_end(self, life: Life) -> None:
        """Processes that nobody killed say why they ended, in one line."""
        code = life.process.returncode
        if code in (-9, 130):
            return
        said = self.fleet.said(life.name)
        last = said.strip().splitlines()[-1] if said.strip() else "nothing"
        if code != 2 or "Traceback" in said:
            raise LedgerBroken(f"{life.name} ended with code {code}: {said[-800:]}")
        self.tally.notes.append(f"{life.slot} ended: {last[:160]}")
        if life.slot not in self.may_end:
            raise LedgerBroken(f"{life.name} ended by itself: {last}")

    def kill(self, life: Life) -> None:
        self.fleet.kill(life)
        self.tally.kills += 1

    def down(self) -> None:
        """End every process of the ledger and every client."""
        self.close_clients()
        for life in self.fleet.lives.values():
            if life.is_alive:
                self.fleet.end(life)

    def open_clients(self) -> None:
        """Of a ledger at rest. The first one funds everyone, if nobody has."""
        seeds = [self.random.getrandbits(32) for _ in range(3)]
        how = {"program": self._client_program}
        first = ClientProcess(self.fleet, "pay", 0, seeds[0], "--treasury", self.fleet.key("treasury"), **how)
        self.clients = [first]
        first.order("rest")
        first.await_answer("resting")
        self.clients.append(ClientProcess(self.fleet, "pay", 1, seeds[1], **how))
        self.clients.append(ClientProcess(self.fleet, "read", 2, seeds[2], "--data", self.root / "reader", **how))

    def close_clients(self) -> None:
        for client in self.clients:
            client.close()
        self.clients = []

    def close(self) -> None:
        self.close_clients()
        self.fleet.close()

    # Load

    def play(self) -> None:
        """Everyone pays and reads."""
        for client in self.clients:
            client.order("play")
        for client in self.clients:
            client.await_answer("playing")

    def pause(self, least_s: float, most_s: float) -> None:
        time.sleep(self.random.uniform(least_s, most_s))

    def rest(self) -> None:
        """Nobody pays any more; all is executed, signed, told and proved."""
        *payers, reader = self.clients
        for client in payers:
            client.order("rest")
        for client in payers:
            client.await_answer("resting", REST_S)
        self.await_rest()
        reader.order("rest")
        reader.await_answer("resting", REST_S)

    def await_rest(self) -> None:
        deadline = time.monotonic() + REST_S
        log = self.log()
        try:
            while not _at_rest(log, self.fleet.chain):
                if time.monotonic() > deadline:
                    raise LedgerBroken(f"not at rest after {REST_S:.0f} s: {self.fleet.said()[-1500:]}")
                time.sleep(_LOOK_S)
        finally:
            log.close()

    # Judgement

    def log(self) -> KafkaLog:
        return kafka_log(self.fleet.chain, self.config())

    def config(self) -> Config:
        return Config(kafka=KafkaConfig(bootstrap=self.brokers.bootstrap))

    def history(self) -> list[Event]:
        return read_histories(sorted(self.root.glob("*.jsonl")))

    def judge(self) -> None:
        """Of a ledger at rest. Raises `LedgerBroken`."""
        history = self.history()
        words = Words()
        for event in history:
            if isinstance(event, Acked):
                words.acks.append(Ack(event.partition, event.offset, event.sha256))
            elif isinstance(event, SawRoot):
                hashes = (event.block_hash, event.state_root)
                words.roots.append(SeenRoot(event.shard, event.height, *hashes, event.round, event.checkpoint))
        for left in reversed(range(_TRIES)):
            log = self.log()
            try:
                judged = judge_log(log, self.log, self.fleet.chain, words, finished=True, verifier=standard_verifier)
                break
            except LedgerBroken as broken:
                # A heartbeat makes a block a minute, which is not signed for an instant.
                if not left or "are not signed" not in str(broken):
                    raise
                self.await_rest()
            finally:
                log.close()
        log = self.log()
        try:
            contradictions = check(history, observe(log, self.fleet.chain), at_rest=True)
        finally:
            log.close()
        if contradictions:
            raise LedgerBroken("; ".join(map(str, contradictions[:5])))
        self.tally.transactions, self.tally.blocks = judged.transactions, judged.blocks
        self.tally.events = count_events(history)

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            raise LedgerBroken(f"{what}: {self.fleet.said()[-1500:]}")

    def require_no_halt(self) -> None:
        """Of the lives that run."""
        for life in self.fleet.lives.values():
            said = self.fleet.said(life.name) if life.is_alive else ""
            self.require("Traceback" not in said and "halted" not in said, f"{life.name} is in trouble")


def standard_verifier() -> Verifier:
    return InlineVerifier(STANDARD_SUITES)


def _at_rest(log: EventLog, chain: Chain) -> bool:
    """Whether every input has been executed and every block signed."""
    roots = SignedRoots(chain, log, standard_verifier())
    try:
        return all(_shard_at_rest(log, roots, shard) for shard in range(chain.genesis.shards))
    except Retryable:
        return False
    except HauptbuchError as error:
        raise LedgerBroken(f"the log can't be read: {error}") from error


def _shard_at_rest(log: EventLog, roots: SignedRoots, shard: int) -> bool:
    record = last_record(log, TopicPartition(Topic.BLOCKS, shard))
    if record is None:
        return False
    header, _ = BlockHeader.from_record(record.value)
    for topic in INPUT_TOPICS:
        source = TopicPartition(topic, 0 if topic in _SINGLE else shard)
        log.end_offset(source)
        if log.read(source, header.input(topic).next, 1, 1):
            return False
    root = roots.newest(shard)
    return root is not None and root.height >= header.height
