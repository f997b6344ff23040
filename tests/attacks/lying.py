"""A worker that lies: it executes what it likes, writes it to the log as a leader would, and everybody else looks."""

from collections.abc import Callable
from dataclasses import dataclass

from audit_net import audit_net
from sync_net import Net, address_of_key, key_of

from pipeline.audit.report import AuditReport
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Address, ShardId
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.blocks import BlockHeader, frame_header
from pipeline.ledger.checkpoints import Assurance
from pipeline.ledger.cursor import INPUT_TOPICS
from pipeline.ledger.engine import BlockInputs, InputBatch, execute
from pipeline.log.port import Append
from pipeline.shards.life import TaskState
from pipeline.shards.outputs import block_appends
from pipeline.shards.task import ShardTask, SoleOwner, TaskConfig
from pipeline.sync.life import SyncState

NAMES = [f"n{number}" for number in range(8)]
LIAR = 0


@dataclass(frozen=True)
class Verdict:
    """Who halted over the lie and why ("" did not), and whether somebody signed the block at each assurance."""

    follower: str
    headers: str
    execution: str
    signed_by_headers: bool
    signed_by_execution: bool
    audit: AuditReport


class Lie:
    """Two shards that were honest so far; payments of both wait. Shard 0's worker will lie about the next block."""

    def __init__(self) -> None:
        self.net = Net(shards=2)
        self.net.fund(dict.fromkeys(NAMES, 1000))
        self.net.run()
        for name in NAMES:
            self.net.pay(name, {other: 1 for other in NAMES if other != name})
        self.net.run()
        self.cursor = self.net.tasks[LIAR].committed
        self.here = [name for name in NAMES if self.net.chain.shard_map.owner_of(address(name)) == LIAR]
        assert len(self.here) >= 2
        self.away = next(name for name in NAMES if name not in self.here)
        for name in self.here:
            self.net.pay(name, {self.here[0]: 5, self.away: 7})

    def inputs(self) -> BlockInputs:
        """What an honest leader would take."""
        batches = []
        for topic, position in zip(INPUT_TOPICS, self.cursor.positions, strict=True):
            partition = 0 if topic is Topic.CONTROL else LIAR
            records = tuple([item for item in self.net.read(topic, partition) if item.offset >= position])
            batches.append(InputBatch(records[-1].offset + 1 if records else position, records))
        return BlockInputs(*batches)

    def publish(
        self,
        inputs: BlockInputs | None = None,
        alter: Callable[[BlockHeader], BlockHeader] = lambda header: header,
        now_ms: int | None = None,
    ) -> BlockHeader:
        """Execute these inputs, alter the header, write header and outputs."""
        net = self.net
        view = net.stores[LIAR].view()
        executed = execute(net.chain, self.cursor, view, inputs or self.inputs(), now_ms or net.now_ms, net.verifier)
        header = alter(executed.header)
        outputs = block_appends(executed)[1:]
        first = Append(TopicPartition(Topic.BLOCKS, LIAR), None, frame_header(header.to_bytes()))
        net.log.append([first, *outputs])
        return header

    def verdict(self, now_ms: int | None = None) -> Verdict:
        """What a follower with an empty store, both kinds of synchronizer and the audit say."""
        net = self.net
        net.now_ms = now_ms or net.now_ms + 10
        log = net.log
        report = audit_net(net)
        pairs = dict(log._kv.scan(b"", b"\xff\xff", 1 << 30))
        results = []
        for assurance in (Assurance.HEADERS, Assurance.EXECUTION):
            copy = MemoryKeyValue()
            copy.write(pairs, sync=True)
            net.log = type(log)(copy)
            sync = net.synchronizer(assurance=assurance)
            net.run(sync, tasks=[], ms=20)
            halted = sync.state is SyncState.HALTED
            signed = not halted and sync.follower.ledger.shards[LIAR].head.height > self.cursor.height
            results.append((str(sync.error or ""), signed))
        net.log = log
        task = ShardTask(
            net.chain, ShardId(LIAR), log, net.store_for(LIAR), net.verifier, SoleOwner(), TaskConfig(linger_ms=10_000)
        )
        task.assign()
        net.run(tasks=[task], ms=20)
        error = str(task.error) if task.state is TaskState.HALTED else ""
        return Verdict(error, results[0][0], results[1][0], results[0][1], results[1][1], report)


def address(name: str) -> Address:
    """The account of a name."""
    return address_of_key(key_of(name))
