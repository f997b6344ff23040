"""A node of two shards and a synchronizer whose disks are in memory and die on demand."""

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.audit.run import audit_log
from pipeline.audit.tools import Tools, memory_kv
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.crypto.verifier import InlineVerifier
from pipeline.kv.memory import MemoryKeyValue
from pipeline.kv.port import KeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance
from pipeline.ledger.genesis import Limits, SignerKey
from pipeline.ledger.receipts import ReceiptChunk, TransactionReceipt, decode_receipt
from pipeline.ledger.transactions import CreateAsset, Operation, TransactionBody
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.node.bootstrap import create_topics
from pipeline.shards.progress import Progress
from pipeline.shards.signed_roots import SignedRoots
from pipeline.shards.task import ShardTask, SoleOwner, TaskConfig
from pipeline.state.store import StateStore
from pipeline.sync.settings import SyncConfig
from pipeline.sync.signer import Signer
from pipeline.sync.synchronizer import Synchronizer
from pipeline.testing.faulty_kv import FaultyKeyValue, SimulatedCrash
from pipeline.testing.suite import TEST_SUITES
from pipeline.testing.world import START_MS, SYMBOL, Actor, build_genesis, mint, sign, transfer

SHARDS = 2
DISKS = ("log", "sync", *[f"shard {shard}" for shard in range(SHARDS)])
_QUIET_STEPS = 30
_TREASURY = Actor.on(0, SHARDS, "treasury")
_PEOPLE = [Actor.on(shard, SHARDS, name) for shard in range(SHARDS) for name in ("ann", "bob")]
_ATTESTOR = Actor.of("attestor")


@dataclass(frozen=True)
class Ending:
    """What everything came to."""

    leaves: tuple[dict[bytes, bytes], ...]
    roots: tuple[bytes, ...]
    fates: tuple[tuple[tuple[int, int, int], ...], ...]
    signed: tuple[bytes, ...]
    findings: tuple[object, ...]
    in_flight: int


def _chain() -> Chain:
    return Chain.of(
        build_genesis(
            SHARDS,
            _TREASURY,
            [Actor.of("operator")],
            attestors=(SignerKey(_ATTESTOR.key.suite_id, _ATTESTOR.key.public_key),),
            attestor_threshold=1,
            limits=Limits(block_records=2),
        )
    )


class DyingNode:
    """All transactions are on the log before the node runs for the first time."""

    def __init__(self) -> None:
        self._chain = _chain()
        self._now_ms = START_MS
        self._disks = {name: MemoryKeyValue() for name in DISKS}
        log = EmbeddedLog(self._disks["log"])
        create_topics(log, self._chain)
        self._publish(log)
        self._start(None)

    def _publish(self, log: EmbeddedLog) -> None:
        asset = self._chain.genesis.fee_asset
        program: list[tuple[Actor, tuple[Operation, ...]]] = [
            (_TREASURY, (CreateAsset(SYMBOL, 2), mint(asset, *[(person, 100) for person in (_TREASURY, *_PEOPLE)])))
        ]
        for amount in (1, 10**6):
            others = [(person, amount) for person in _PEOPLE]
            program.append((_TREASURY, (transfer(asset, *others),)))
        other = TopicPartition(Topic.TRANSACTIONS, 1 - self._chain.shard_map.owner_of(_TREASURY.address))
        log.append([Append(other, None, b"garbage")] * 5)
        nonces: dict[Actor, int] = {}
        for actor, operations in program:
            nonce = nonces.get(actor, 0)
            nonces[actor] = nonce + 1
            body = TransactionBody(self._chain.chain_id, actor.address, nonce, operations)
            target = TopicPartition(Topic.TRANSACTIONS, self._chain.shard_map.owner_of(actor.address))
            log.append([Append(target, None, sign(actor, body).to_record())])
            log.append([Append(target, None, sign(actor, body).to_record()), Append(target, None, b"garbage")])

    def _start(self, armed: tuple[str, int, Literal["before", "after"]] | None) -> None:
        self._kvs: dict[str, FaultyKeyValue] = {}
        for name, disk in self._disks.items():
            faults: dict[str, Any] = {}
            if armed is not None and armed[0] == name:
                faults = {"crash_at": armed[1], "when": armed[2]}
            self._kvs[name] = FaultyKeyValue(disk, **faults)
        verifier = InlineVerifier(TEST_SUITES)
        self._log = EmbeddedLog(self._kvs["log"])
        config = TaskConfig(linger_ms=1)
        self.stores = [self._store(shard, self._kvs[f"shard {shard}"]) for shard in range(SHARDS)]
        self._tasks = [
            ShardTask(self._chain, ShardId(shard), self._log, store, verifier, SoleOwner(), config)
            for shard, store in enumerate(self.stores)
        ]
        for task in self._tasks:
            task.assign()
        self._sync = Synchronizer(
            self._chain,
            self._log,
            self._kvs["sync"],
            Signer(_ATTESTOR.key),
            Assurance.HEADERS,
            verifier,
            SyncConfig(round_linger_ms=1),
        )

    def _store(self, shard: int, kv: KeyValue) -> StateStore:
        return StateStore(kv, ShardId(shard), self._chain.shard_map.slots_of(shard), 1 << 20)

    def writes(self) -> dict[str, int]:
        """How many writes each disk has seen in this run."""
        return {name: kv.writes for name, kv in self._kvs.items()}

    def run_until_it_dies(self, disk: str, number: int, when: Literal["before", "after"]) -> bool:
        """Start anew with a disk that fails at a write of this run, and run; whether it died."""
        try:
            self._disks = {name: _reopened(disk) for name, disk in self._disks.items()}
            self._start((disk, number, when))
            self.run_to_the_end()
        except SimulatedCrash:
            return True
        return False

    def restart(self, lost: str | None = None) -> None:
        """Start again on what was synced; disk `lost` is replaced by an empty one."""
        for name, disk in self._disks.items():
            disk.crash()
            self._disks[name] = MemoryKeyValue() if name == lost else disk.reopen()
        self._start(None)

    def run_to_the_end(self) -> None:
        """Until nothing happens any more."""
        quiet = 0
        while quiet < _QUIET_STEPS:
            answers = [driven.step(self._now_ms) for driven in (*self._tasks, self._sync)]
            errors = [driven.error for driven in (*self._tasks, self._sync) if driven.error]
            assert errors == []
            quiet = 0 if any(isinstance(answer, Progress) for answer in answers) else quiet + 1
            self._now_ms += 1

    def ending(self) -> Ending:
        log = self._log
        report = audit_log(Tools(lambda: _Lent(log), lambda: InlineVerifier(TEST_SUITES), memory_kv))  # type: ignore[arg-type, return-value]
        roots = SignedRoots(self._chain, log, InlineVerifier(TEST_SUITES))
        signed = [roots.newest(shard) for shard in range(SHARDS)]
        assert all(
            root and root.height == task.committed.height for root, task in zip(signed, self._tasks, strict=True)
        )
        return Ending(
            tuple(dict(store.scan_keys()) for store in self.stores),
            tuple(store.state_root for store in self.stores),
            tuple(self._fates(shard) for shard in range(SHARDS)),
            tuple(root.state_root for root in signed if root),
            report.findings,
            len(report.in_flight),
        )

    def _fates(self, shard: int) -> tuple[tuple[int, int, int], ...]:
        """(offset, code, fee) of each transaction record, in order; asserts one receipt each and repeats alike."""
        chunks: dict[tuple[int, int], ReceiptChunk] = {}
        for record in self._log.read(TopicPartition(Topic.RECEIPTS, shard), 0, 10_000, 1 << 30):
            chunk = ReceiptChunk.from_record(record.value)
            assert chunks.setdefault((chunk.height, chunk.first_index), chunk) == chunk
        receipts = [decode_receipt(datum) for _, chunk in sorted(chunks.items()) for datum in chunk.receipts]
        fates = [(item.offset, int(item.code), item.fee) for item in receipts if isinstance(item, TransactionReceipt)]
        assert len({offset for offset, _, _ in fates}) == len(fates)
        return tuple(fates)


class _Lent:
    """A log that outlives the audit's close."""

    def __init__(self, log: EmbeddedLog) -> None:
        self.partitions, self.read = log.partitions, log.read
        self.end_offset, self.settle = log.end_offset, log.settle

    def close(self) -> None:
        pass


def _reopened(disk: MemoryKeyValue) -> MemoryKeyValue:
    disk.close()
    return disk.reopen()
