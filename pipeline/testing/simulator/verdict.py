"""What must hold at the end of every simulation."""

from hashlib import sha256

from pipeline.audit.run import audit_log
from pipeline.audit.tools import Tools, memory_kv
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ShardId
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import PoisonRecord
from pipeline.ledger.checkpoints import Checkpoint, CheckpointProposal
from pipeline.log.port import EventLog
from pipeline.shards.recovery import last_signed_root
from pipeline.testing.simulator.cluster import Cluster
from pipeline.testing.simulator.outcomes import Outcomes, all_records
from pipeline.testing.simulator.prediction import Prediction
from pipeline.testing.suite import TEST_SUITES


def check(cluster: Cluster) -> Outcomes:
    """Model, stores, roots, signatures, audit. Raises `AssertionError`."""
    outcomes = Outcomes(cluster.chain, cluster.log)
    prediction = Prediction(cluster.chain, cluster.log, outcomes)
    prediction.run()
    prediction.check_conserved()
    _check_consumed(cluster, outcomes)
    for shard in range(cluster.active_shards):
        store, cursor = cluster.task(shard).store, cluster.task(shard).committed
        assert dict(store.scan_keys()) == prediction.shards[shard].state.leaves(), f"shard {shard}: other leaves"
        head = outcomes.headers[shard][-1]
        assert (cursor.height, store.state_root) == (head.height, head.state_root), f"shard {shard}: another root"
        root = last_signed_root(cluster.log, ShardId(shard))
        assert root is not None, f"shard {shard} was never signed"
        signed = (root.height, root.block_hash, root.state_root)
        assert signed == (head.height, cursor.block_hash, head.state_root), f"shard {shard}: the head is not signed"
    report = audit_log(Tools(lambda: _Lent(cluster.log), lambda: InlineVerifier(TEST_SUITES), memory_kv))
    assert report.ok, f"the audit found: {report.findings[0]}"
    assert not report.in_flight, "the audit sees bundles in flight"
    return outcomes


def _check_consumed(cluster: Cluster, outcomes: Outcomes) -> None:
    """Every record of an input lies in exactly one block: ranges continue each other, and reach the end."""
    for shard, headers in enumerate(outcomes.headers):
        for topic in (Topic.CONTROL, Topic.RELAY, Topic.TRANSACTIONS):
            position = 0
            for header in headers:
                span = header.input(topic)
                assert span.first == position, f"shard {shard} block {header.height}: {topic.topic_name} has a gap"
                position = span.next
            source = TopicPartition(topic, 0 if topic is Topic.CONTROL else shard)
            records = all_records(cluster.log, source) if headers else []
            assert not records or records[-1].offset < position, f"shard {shard}: {topic.topic_name} is not consumed"
            counted = sum(header.input(topic).count for header in headers)
            assert counted == len(records), f"shard {shard}: {counted} of {len(records)} {topic.topic_name} in blocks"


class _Lent:
    """A log that outlives the audit's close."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.partitions, self.read, self.end_offset = log.partitions, log.read, log.end_offset
        self.settle = log.settle
        self.create_topic, self.append, self.writer, self.wait = log.create_topic, log.append, log.writer, log.wait

    def close(self) -> None:
        """Nothing."""


def signed_rounds(cluster: Cluster) -> int:
    """How many rounds were proposed."""
    checkpoints = TopicPartition(Topic.CHECKPOINTS, 0)
    rounds = set()
    for record in all_records(cluster.log, checkpoints):
        try:
            rounds.add(Checkpoint.from_bytes(CheckpointProposal.from_record(record.value).checkpoint).round)
        except PoisonRecord:
            continue  # a signature
    return len(rounds)


def digest(cluster: Cluster, trace: list[str]) -> str:
    """Over the trace and every record."""
    hasher = sha256("\n".join(trace).encode())
    for topic in Topic:
        for partition in range(cluster.log.partitions(topic)):
            for offset, _, value in all_records(cluster.log, TopicPartition(topic, partition)):
                hasher.update(offset.to_bytes(8, "big") + (value or b""))
    return hasher.hexdigest()
