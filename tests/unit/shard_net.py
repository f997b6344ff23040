"""Shards in memory whose log's commits fail as a test says, and what they have come to."""

from collections.abc import Sequence

from sync_net import Net, address_of_key, key_of

from pipeline.audit.report import AuditReport
from pipeline.audit.run import audit_log
from pipeline.audit.tools import Tools, memory_kv
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.crypto.verifier import InlineVerifier
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.receipts import ReceiptChunk, decode_receipt
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.shards.progress import Idle, Progress
from pipeline.shards.task import Ownership, ShardTask, TaskConfig
from pipeline.state.store import StateStore
from pipeline.testing.faulty_log import Failing, FaultyLog
from pipeline.testing.suite import TEST_SUITES


class Owners:
    """Who owns each shard, by name; the directory that real owners ask."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}

    def view_of(self, name: str) -> "OwnerView":
        return OwnerView(self, name)


class OwnerView:
    def __init__(self, owners: Owners, name: str) -> None:
        self._owners, self._name = owners, name

    def owns(self, shard: ShardId) -> bool:
        return self._owners.names.get(shard, "") in ("", self._name)


class ShardNet(Net):
    """`faults`: what the next commits of `writers` come to, one a commit; then none fail."""

    def __init__(self, shards: int = 1, faults: Sequence[Failing | None] = (), writers: str = "-shard-") -> None:
        self.faults = list(faults)
        self.writers = writers
        self.disk = MemoryKeyValue()
        self.embedded = EmbeddedLog(self.disk)
        self.owners = Owners()
        super().__init__(shards, log=FaultyLog(self.embedded, self._choose))  # type: ignore[arg-type]

    def _choose(self, writer_id: str, appends: Sequence[Append]) -> Failing | None:
        if not (self.writers in writer_id and self.faults):
            return None
        return self.faults.pop(0)

    def task(
        self,
        shard: int = 0,
        store: StateStore | None = None,
        owner: Ownership | None = None,
        config: TaskConfig | None = None,
    ) -> ShardTask:
        """One more task of a shard, with an empty store unless given; assigned."""
        task = ShardTask(
            self.chain,
            ShardId(shard),
            self.log,
            store or self.store_for(shard),
            self.verifier,
            owner or self.owners.view_of("me"),
            config or TaskConfig(linger_ms=1),
        )
        task.assign()
        return task

    def run(self, *others: object, ms: int = 2_500, tasks: Sequence[ShardTask] | None = None) -> None:
        """Drive everything until nothing is due within `ms` of the test's clock, which jumps to what is due next."""
        driven = [*(self.tasks if tasks is None else tasks), *others]
        quiet_since = self.now_ms
        while True:
            answers = [task.step(self.now_ms) for task in driven]  # type: ignore[attr-defined]
            if any(isinstance(answer, Progress) for answer in answers):
                quiet_since = self.now_ms
                continue
            slow = any(answer == Idle() and is_committing(task) for answer, task in zip(answers, driven, strict=True))
            due = [answer.until_ms for answer in answers if answer.until_ms is not None]
            if not slow and (not due or min(due) > quiet_since + ms):
                return
            self.now_ms = max(self.now_ms + 1, min(due, default=0))

    def play(self, *tasks: ShardTask, ms: int = 2_500, steps: int = 3) -> None:
        """Funding, then payments of everybody to everybody, one of which fails each time."""
        driven = tasks or tuple(self.tasks)
        names = self.names()
        self.fund(dict.fromkeys(names, 1000))
        self.run(tasks=driven, ms=ms)
        for step in range(steps):
            self.pay_all(step)
            self.run(tasks=driven, ms=ms)

    def pay_all(self, step: int) -> None:
        """One step of the program; its last payment fails."""
        names = self.names()
        for name in names:
            self.pay(name, dict.fromkeys(names, 1 + step))
        self.pay(names[step % len(names)], {names[0]: 10**9})

    def names(self) -> list[str]:
        """Two accounts on each shard."""
        found: list[str] = []
        for shard in range(len(self.tasks)):
            names = (f"n{number}" for number in range(1000))
            owner_of = self.chain.shard_map.owner_of
            here = [name for name in names if owner_of(address_of_key(key_of(name))) == shard]
            found += here[:2]
        return found

    def headers(self, shard: int = 0) -> list[BlockHeader]:
        return [BlockHeader.from_record(record.value)[0] for record in self.read(Topic.BLOCKS, shard)]

    def fates(self, shard: int = 0) -> list[object]:
        """Receipts of transactions in the order of the log, repeats dropped; asserts that repeats are identical."""
        chunks: dict[tuple[int, int], ReceiptChunk] = {}
        for record in self.read(Topic.RECEIPTS, shard):
            chunk = ReceiptChunk.from_record(record.value)
            assert chunks.setdefault((chunk.height, chunk.first_index), chunk) == chunk
        receipts = [decode_receipt(datum) for _, chunk in sorted(chunks.items()) for datum in chunk.receipts]
        return [(receipt.offset, receipt.code, receipt.fee) for receipt in receipts if hasattr(receipt, "tx_id")]

    def end(self, topic: Topic, partition: int = 0) -> int:
        return self.log.end_offset(TopicPartition(topic, partition))

    def audit(self) -> AuditReport:
        copy = MemoryKeyValue()
        copy.write(dict(self.disk.scan(b"", b"\xff\xff", 1 << 30)), sync=True)
        tools = Tools(lambda: EmbeddedLog(copy, read_only=True), lambda: InlineVerifier(TEST_SUITES), memory_kv)
        return audit_log(tools)


def is_committing(task: object) -> bool:
    """Whether a commit is on its way: such a task waits for the log."""
    if not isinstance(task, ShardTask):
        return False
    leading = task.leader is not None and task.leader._committing is not None
    return leading or task._republishing


def leaves(store: StateStore) -> dict[bytes, bytes]:
    return dict(store.scan_keys())


def twin_of(shards: int = 1) -> ShardNet:
    """The same program, undisturbed."""
    net = ShardNet(shards)
    net.play()
    return net
