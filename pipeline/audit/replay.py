"""One shard, executed again from block 0 into an empty store.

Shards are independent: every bundle that a shard executed is a record of its own relay partition. Whether the bundle
was ever sent is the relay check's question, not this one's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.audit.block_scan import BlockScan
from pipeline.audit.findings import Finding, FindingKind, one_line
from pipeline.audit.locate import altered_inputs
from pipeline.audit.output_check import OUTPUTS, OutputCheck
from pipeline.audit.streams import find_damage
from pipeline.codec.topics import Topic
from pipeline.codec.types import AssetId, ShardId
from pipeline.crypto.verifier import Verifier, VerifyJob
from pipeline.errors import Fatal, HauptbuchError
from pipeline.kv.port import KeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.engine import BlockInputs, ExecutedBlock
from pipeline.ledger.leaves import Asset, Balance
from pipeline.log.port import EventLog
from pipeline.shards.block_reader import CommittedBlock
from pipeline.shards.follower import BlockDiverged, follow, read_inputs
from pipeline.shards.outputs import block_appends
from pipeline.state.store import StateStore

BlockDone = Callable[[int, int], None]
"""Told (shard, height) after each executed block."""

_CACHE_BYTES: Final = 64 << 20


@dataclass(slots=True)
class Figures:
    """How much was checked. `bytes`: of headers and input records."""

    blocks: int = 0
    records: int = 0
    transactions: int = 0
    bundles: int = 0
    signatures: int = 0
    bytes: int = 0

    def add(self, other: "Figures") -> None:
        """Sum up."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class ShardResult:
    """A replayed shard. `cursor`: after its last executed block. `complete`: that is the last one on the log.

    The sums are those of the state after `cursor`, in minor units: balances and issued - burned by asset, fees held.
    """

    cursor: ShardCursor
    complete: bool
    findings: tuple[Finding, ...]
    figures: Figures
    balances: Mapping[AssetId, int]
    assets: Mapping[AssetId, Asset]
    fees: int


class CountingVerifier:
    """Counts the signatures that were asked for."""

    def __init__(self, verifier: Verifier) -> None:
        """Counts for `verifier`."""
        self.inner = verifier
        self.count = 0
        self.begin = verifier.begin
        self.prefetch = verifier.prefetch
        self.accepts_key = verifier.accepts_key

    def verify(self, job: VerifyJob) -> bool:
        """As the port."""
        self.count += 1
        return self.inner.verify(job)

    def close(self) -> None:
        """As the port."""
        self.inner.close()


@dataclass(slots=True)
class _Run:
    log: EventLog
    chain: Chain
    shard: ShardId
    verifier: CountingVerifier
    findings: list[Finding] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)

    def replay(self, kv: KeyValue, done: BlockDone | None) -> ShardResult:
        store = StateStore(kv, self.shard, self.chain.shard_map.slots_of(self.shard), _CACHE_BYTES)
        cursor = ShardCursor.start(self.chain, self.shard)
        report = self.findings.append
        outputs = [OutputCheck(self.log, self.chain, topic, self.shard, report) for topic in OUTPUTS]
        scan = BlockScan(self.log, self.chain, self.shard, report)
        executing = True
        while (scanned := scan.next()) is not None:
            executing = executing and scanned.intact
            if not executing:
                continue
            executed = self._execute(cursor, store, scanned.block, outputs[0].position)
            if executed is None:
                executing = False
                continue
            store.commit(executed.prepared, {})
            appends = block_appends(executed)
            for topic, check in zip(OUTPUTS, outputs, strict=True):
                values = [append.value or b"" for append in appends if append.target.topic is topic]
                check.block(executed.header.height, values)
            cursor = executed.cursor
            if done is not None:
                done(self.shard, cursor.height)
        complete = executing and scan.intact
        if complete:
            for check in outputs:
                check.finish()
        return self._result(cursor, store, complete=complete)

    def _execute(
        self, cursor: ShardCursor, store: StateStore, block: CommittedBlock, receipts_from: int
    ) -> ExecutedBlock | None:
        """The block executed again; None, and findings, where that does not give what the log holds."""
        header = block.header
        inputs = None

        def say(kind: FindingKind, message: str) -> None:
            self.findings.append(Finding(kind, message, self.shard, header.height, Topic.BLOCKS, block.offset))

        try:
            inputs = read_inputs(self.log, cursor, block)
            if inputs is None:
                say(FindingKind.INPUT_MISSING, "its inputs are not on the log: an input topic ends before them")
                return None
            executed = follow(self.chain, cursor, store.view(), block, inputs, self.verifier)
        except BlockDiverged as diverged:
            located = self._locate(diverged, block, inputs, receipts_from)
            if located:
                self.findings += located
            else:
                say(FindingKind.BLOCK_DIVERGED, diverged.detail)
        except Fatal as fatal:
            positions, ends = cursor.positions, tuple(item.next for item in header.inputs)
            damaged = (
                find_damage(self.log, self.shard, positions, (ends[0], ends[1], ends[2])) if inputs is None else []
            )
            if damaged:
                self.findings += damaged
            else:
                say(FindingKind.STORAGE_DAMAGED, one_line(fatal))
        except HauptbuchError as error:
            say(FindingKind.BLOCK_DIVERGED, one_line(error))
        except Exception as error:  # noqa: BLE001 - whatever a hostile block makes the library raise is a finding
            say(FindingKind.UNEXPECTED, f"executing it raised {type(error).__name__}: {one_line(error)}")
        else:
            self._count(executed, inputs)
            return executed
        return None

    def _locate(
        self, diverged: BlockDiverged, block: CommittedBlock, inputs: BlockInputs | None, receipts_from: int
    ) -> list[Finding]:
        if diverged.part != "inputs" or inputs is None:
            return []
        return altered_inputs(self.log, block.header, inputs, receipts_from)

    def _count(self, executed: ExecutedBlock, inputs: BlockInputs) -> None:
        figures, counts = self.figures, executed.header.counts
        figures.blocks += 1
        figures.transactions += counts.transactions + counts.rejected
        figures.bundles += counts.bundles
        figures.bytes += len(executed.datum)
        for batch in (inputs.control, inputs.relay, inputs.transactions):
            figures.records += len(batch.records)
            figures.bytes += sum([len(value or b"") for _, _, value in batch.records])

    def _result(self, cursor: ShardCursor, store: StateStore, *, complete: bool) -> ShardResult:
        balances: dict[AssetId, int] = {}
        assets: dict[AssetId, Asset] = {}
        fees = 0
        for key, value in store.scan_keys():
            if key.startswith(b"balance/"):
                asset = AssetId(key[-32:])
                balances[asset] = balances.get(asset, 0) + Balance.from_bytes(value).amount
            elif key.startswith(b"asset/"):
                assets[AssetId(key[6:])] = Asset.from_bytes(value)
            elif key.startswith(b"fees/"):
                fees += int.from_bytes(value, "big")
        self.figures.signatures = self.verifier.count
        return ShardResult(cursor, complete, tuple(self.findings), self.figures, balances, assets, fees)


def replay_shard(
    log: EventLog, chain: Chain, shard: int, kv: KeyValue, verifier: Verifier, done: BlockDone | None = None
) -> ShardResult:
    """Execute all blocks of one shard again; stops executing at the first that does not hold, and scans on.

    `kv`: empty, scratch. Nothing about the log raises: it becomes a finding.
    """
    run = _Run(log, chain, ShardId(shard), CountingVerifier(verifier))
    return run.replay(kv, done)
