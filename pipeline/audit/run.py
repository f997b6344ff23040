"""An audit: replay every shard, then check what spans shards.

It trusts nothing but genesis, and the last checkpoint seen if one is given. Nothing that stands on the log makes it
raise; what it finds, it says.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from time import monotonic

from pipeline.audit.conservation import conservation, unbalanced
from pipeline.audit.findings import Finding, FindingKind, one_line
from pipeline.audit.header_track import HeaderTrack
from pipeline.audit.relay_check import InFlight, Peer, RelayCheck, SentBundles
from pipeline.audit.replay import CountingVerifier, Figures, ShardResult, replay_shard
from pipeline.audit.report import AuditReport
from pipeline.audit.rounds_check import RoundsCheck, RoundsResult, Settled, Trust
from pipeline.audit.tools import Tools
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Hash32, ShardId
from pipeline.errors import Fatal, HauptbuchError
from pipeline.ledger.chain import Chain
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.genesis import Genesis
from pipeline.log.port import EventLog
from pipeline.sync.control_feed import ControlFeed

Progress = Callable[[int, int], None]
"""Told (shard, height) as blocks are executed; once a shard where processes do it."""

_CONTROL = TopicPartition(Topic.CONTROL, 0)
_SINGLE = frozenset({Topic.CONTROL, Topic.CHECKPOINTS})
_RECORD_BYTES = 64 << 20


def audit_log(
    tools: Tools,
    *,
    chain: Chain | None = None,
    trust: Trust | None = None,
    progress: Progress | None = None,
    workers: int = 1,
) -> AuditReport:
    """Check the whole log. `chain`: whose it must be; None takes genesis from the log.

    With `workers` > 1 that many processes replay shards. Raises `ConfigError` where there is no log to open.
    """
    started = monotonic()
    findings: list[Finding] = []
    try:
        log = tools.open_log()
    except Fatal as error:
        findings.append(Finding(FindingKind.STORAGE_DAMAGED, one_line(error)))
        return _refused(trust, findings, monotonic() - started)
    verifier = CountingVerifier(tools.new_verifier())
    try:
        found = _genesis(log, chain, trust, findings)
        if found is None:
            return _refused(trust, findings, monotonic() - started)
        run = _Audit(log, found, tools, verifier, findings, progress, workers)
        return run.report(trust, started)
    finally:
        verifier.close()
        log.close()


class _Audit:
    def __init__(
        self,
        log: EventLog,
        chain: Chain,
        tools: Tools,
        verifier: CountingVerifier,
        findings: list[Finding],
        progress: Progress | None,
        workers: int,
    ) -> None:
        self._log = log
        self._chain = chain
        self._tools = tools
        self._verifier = verifier
        self._findings = findings
        self._progress = progress
        self._workers = workers
        self._in_flight: list[InFlight] = []
        self._early: list[InFlight] = []

    def report(self, trust: Trust | None, started: float) -> AuditReport:
        """All checks, in the order in which they need each other."""
        chain, log = self._chain, self._log
        settled = Settled.of(log, chain.genesis.partitions)
        control = ControlFeed(chain, log, self._verifier)
        self._read(control)
        shards = [shard for shard in range(chain.genesis.partitions) if self._has_life(shard, control)]
        results = self._replay(shards)
        for result in results:
            self._findings += result.findings
        heights = {result.cursor.shard: result.cursor.height for result in results}
        if self._workers > 1:
            log.wait(0)  # the processes may have seen more of a log that grows
        tracks = {
            int(result.cursor.shard): HeaderTrack(
                log, chain, result.cursor.shard, control, result.cursor.height, complete=result.complete
            )
            for result in results
        }
        self._read(control)  # as far as the blocks behind the tracks may have consumed it
        rounds = RoundsResult(-1, Hash32(chain.chain_id), {}, -1)
        with self._surviving("the rounds could not be checked"):
            check = RoundsCheck(log, chain, self._verifier, control, tracks, settled, self._findings.append)
            rounds = check.run(trust)
        self._relay(results, tracks, settled.relay)
        conserved = None
        if all(result.complete for result in results):
            conserved = conservation(results, self._in_flight, self._early, chain.genesis)
            self._findings += unbalanced(conserved)
        figures = Figures(signatures=self._verifier.count)
        for result in results:
            figures.add(result.figures)
        return AuditReport(
            chain_id=chain.chain_id.hex(),
            findings=tuple(dict.fromkeys(self._findings)),
            figures=figures,
            rounds=rounds.last + 1,
            complete_up_to=rounds.verified,
            checkpoint_hash=rounds.hash.hex(),
            unsigned_blocks=sum(height - rounds.heads.get(shard, -1) for shard, height in heights.items()),
            in_flight=tuple(self._in_flight),
            conserved=conserved,
            outside_checkpoint=_seen_round(trust),
            seconds=monotonic() - started,
        )

    def _read(self, control: ControlFeed) -> None:
        with self._surviving("control could not be read on", Topic.CONTROL):
            while control.poll():
                pass

    def _has_life(self, shard: int, control: ControlFeed) -> bool:
        """Active shards, and idle partitions that hold blocks although they should not."""
        active = shard < control.newest.active_shards
        return active or self._log.end_offset(TopicPartition(Topic.BLOCKS, shard)) > 0

    def _replay(self, shards: Sequence[int]) -> list[ShardResult]:
        if self._workers > 1 and len(shards) > 1:
            return self._replay_in_processes(shards)
        return [self._replay_here(shard) for shard in shards]

    def _replay_here(self, shard: int) -> ShardResult:
        with self._surviving(f"shard {shard} could not be replayed", Topic.BLOCKS, shard):
            kv = self._tools.new_kv(shard)
            try:
                return replay_shard(self._log, self._chain, shard, kv, self._verifier.inner, self._progress)
            finally:
                kv.close()
        return _nothing(self._chain, shard)

    def _replay_in_processes(self, shards: Sequence[int]) -> list[ShardResult]:
        results: dict[int, ShardResult] = {}
        genesis = self._chain.genesis.to_bytes()
        with ProcessPoolExecutor(min(self._workers, len(shards)), get_context("spawn")) as pool:
            waiting = {pool.submit(_replay_alone, self._tools, genesis, shard): shard for shard in shards}
            for future in as_completed(waiting):
                shard = waiting[future]
                with self._surviving(f"shard {shard} could not be replayed", Topic.BLOCKS, shard):
                    results[shard] = future.result()
                    if self._progress is not None:
                        self._progress(shard, results[shard].cursor.height)
        return [results.get(shard) or _nothing(self._chain, shard) for shard in shards]

    def _relay(self, results: Sequence[ShardResult], tracks: dict[int, HeaderTrack], settled: Sequence[int]) -> None:
        complete = {int(result.cursor.shard): result.complete for result in results}
        for track in tracks.values():
            track.finish()
        cursors = {int(result.cursor.shard): result.cursor for result in results}
        for destination in range(self._chain.genesis.partitions):
            peers = {
                source: Peer(track.sent.get(destination, SentBundles()), track.replayed, complete[source])
                for source, track in tracks.items()
            }
            executed = cursors[destination].channels_in if complete.get(destination) else None
            if destination not in cursors:
                executed = {}
            with self._surviving("the relay could not be checked", Topic.RELAY, destination):
                check = RelayCheck(
                    self._log,
                    self._chain,
                    ShardId(destination),
                    peers,
                    executed,
                    settled[destination],
                    self._findings.append,
                )
                check.run()
                self._in_flight += check.in_flight
                self._early += check.early

    @contextmanager
    def _surviving(self, what: str, topic: Topic | None = None, shard: int | None = None) -> Iterator[None]:
        """Whatever the log makes the library raise becomes a finding, and the audit goes on."""
        try:
            yield
        except HauptbuchError as error:
            kind = FindingKind.STORAGE_DAMAGED if isinstance(error, Fatal) else FindingKind.UNEXPECTED
            self._findings.append(Finding(kind, f"{what}: {one_line(error)}", shard, None, topic))
        except Exception as error:  # noqa: BLE001 - hostile bytes; a crash would hide all other findings
            message = f"{what}: {type(error).__name__}: {one_line(error)}"
            self._findings.append(Finding(FindingKind.UNEXPECTED, message, shard, None, topic))


def _replay_alone(tools: Tools, genesis: bytes, shard: int) -> ShardResult:
    """In a process of its own."""
    log, verifier, kv = tools.open_log(), tools.new_verifier(), tools.new_kv(shard)
    try:
        return replay_shard(log, Chain.of(Genesis.from_bytes(genesis)), shard, kv, verifier)
    finally:
        verifier.close()
        kv.close()
        log.close()


def _nothing(chain: Chain, shard: int) -> ShardResult:
    """A shard of which nothing could be executed."""
    return ShardResult(ShardCursor.start(chain, shard), False, (), Figures(), {}, {}, 0)


def _genesis(log: EventLog, chain: Chain | None, trust: Trust | None, findings: list[Finding]) -> Chain | None:
    """The chain that the log is of; None, and findings, where that is not what was asked for."""

    def refuse(kind: FindingKind, message: str, offset: int | None = None) -> None:
        findings.append(Finding(kind, message, None, None, Topic.CONTROL, offset))

    try:
        records = log.read(_CONTROL, 0, 1, _RECORD_BYTES) if log.partitions(Topic.CONTROL) else []
        if not records or records[0].offset != 0:
            refuse(FindingKind.GENESIS, "control does not begin with genesis", 0)
            return None
        found = Chain.of(Genesis.from_record(records[0].value))
    except Exception as error:  # noqa: BLE001 - hostile bytes
        refuse(FindingKind.GENESIS, f"genesis can't be read: {one_line(error)}", 0)
        return None
    if chain is not None and chain.chain_id != found.chain_id:
        refuse(FindingKind.GENESIS, f"the log is of chain {found.chain_id.hex()}, not {chain.chain_id.hex()}", 0)
        return None
    if trust is not None and trust.chain_id != found.chain_id:
        refuse(FindingKind.GENESIS, f"the log is of chain {found.chain_id.hex()}, trusted is {trust.chain_id.hex()}", 0)
        return None
    for topic in Topic:
        wanted, there = 1 if topic in _SINGLE else found.genesis.partitions, log.partitions(topic)
        if there != wanted:
            what = f"{topic.topic_name} has {there} partitions, genesis wants {wanted}"
            findings.append(Finding(FindingKind.TOPICS, what, None, None, topic))
    return None if findings else found


def _refused(trust: Trust | None, findings: list[Finding], seconds: float) -> AuditReport:
    """Of a log whose chain is not known: nothing else can be judged."""
    return AuditReport("", tuple(findings), Figures(), 0, -1, "", 0, (), None, _seen_round(trust), seconds)


def _seen_round(trust: Trust | None) -> int | None:
    return trust.last_checkpoint.round if trust is not None and trust.last_checkpoint is not None else None
