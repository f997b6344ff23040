"""What must hold at the end of every simulation."""

from hashlib import sha256
from typing import Final

from pipeline.audit.findings import Finding, FindingKind
from pipeline.audit.run import audit_log
from pipeline.audit.tools import Tools, memory_kv
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import SLOTS, ZERO32, StateKey, tagged_hash
from pipeline.crypto.verifier import InlineVerifier
from pipeline.ledger.checkpoints import Checkpoint, StateRoot
from pipeline.testing.naive_tree import naive_shard_root, naive_slot_root
from pipeline.testing.simulator.cluster import Cluster
from pipeline.testing.simulator.outcomes import Outcomes, all_records
from pipeline.testing.simulator.prediction import Prediction, is_forged
from pipeline.testing.simulator.readers import Subscriber, ask, ask_the_wrong_shard
from pipeline.testing.simulator.signed import SignedRounds, newest_signed
from pipeline.testing.suite import TEST_SUITES
from pipeline.tree.keys import slot_of_key

_RIVALS: Final = ("a second, different ", "a signature for another checkpoint ")


def check(cluster: Cluster, subscriber: Subscriber, seed: int) -> tuple[Outcomes, SignedRounds]:
    """Model, stores, roots, signatures, readers, audit. Raises `AssertionError`."""
    outcomes = Outcomes(cluster.chain, cluster.log)
    prediction = Prediction(cluster.chain, cluster.log, outcomes)
    prediction.run()
    prediction.check_conserved()
    _check_consumed(cluster, outcomes)
    signed = SignedRounds(cluster.chain, cluster.log, outcomes, prediction.control)
    for shard in range(cluster.active_shards):
        store, cursor = cluster.task(shard).store, cluster.task(shard).committed
        assert dict(store.scan_keys()) == prediction.shards[shard].state.leaves(), f"shard {shard}: other leaves"
        head = outcomes.headers[shard][-1]
        assert (cursor.height, store.state_root) == (head.height, head.state_root), f"shard {shard}: another root"
        newest = newest_signed(signed.rounds, shard)
        assert newest is not None, f"shard {shard} was never signed"
        root = StateRoot.from_bytes(newest.state_root)
        told = (root.height, root.block_hash, root.state_root)
        assert told == (head.height, cursor.block_hash, head.state_root), f"shard {shard}: the head is not signed"
    _check_read(cluster, subscriber, prediction, signed, seed)
    _check_root(cluster, prediction, signed, seed)
    report = audit_log(Tools(lambda: cluster.log, lambda: InlineVerifier(TEST_SUITES), memory_kv))
    found = [finding for finding in report.findings if not _is_planted(cluster, finding)]
    assert not found, f"the audit found: {found[0]}"
    assert not report.in_flight, "the audit sees bundles in flight"
    return outcomes, signed


def _is_planted(cluster: Cluster, finding: Finding) -> bool:
    """Whether the audit only tells of a lie that did no harm, as it must."""
    match finding.kind, finding.topic:
        case FindingKind.BUNDLE_FORGED, Topic.RELAY:
            place = finding.offset or 0
            records = cluster.log.read(TopicPartition(Topic.RELAY, finding.shard or 0), place, 1, 1 << 20)
            return records[0].offset == place and is_forged(records[0])
        case FindingKind.EQUIVOCATION, Topic.CHECKPOINTS:
            return cluster.lied_about_rounds and finding.message.startswith(_RIVALS)
        case FindingKind.BAD_SIGNATURE, Topic.CHECKPOINTS:
            return cluster.lied_about_rounds and "none of its attestors" in finding.message
        case _:
            return False


def _check_read(
    cluster: Cluster, subscriber: Subscriber, prediction: Prediction, signed: SignedRounds, seed: int
) -> None:
    """What was ever verified still stands, and light clients learn what the model says."""
    subscriber.poll(cluster.log)
    for (shard, number), root in subscriber.seen.items():
        assert signed.rounds[number].heads.get(shard) == root.state_root, f"round {number} of {shard} is no more"
    own = signed.rounds[0].trust
    if all(item.trust.attestors == own.attestors and item.trust.threshold == own.threshold for item in signed.rounds):
        told = {(shard, number) for number, item in enumerate(signed.rounds) for shard in item.heads}
        assert subscriber.seen.keys() == told, "a subscriber did not learn all that was signed"
    for shard in range(cluster.active_shards):
        newest = newest_signed(signed.rounds, shard)
        assert newest is not None, "checked before"
        trust = signed.rounds[Checkpoint.from_bytes(newest.checkpoint).round].trust
        store, leaves = cluster.task(shard).store, prediction.shards[shard].state.leaves()
        ask(cluster.chain, store, newest, leaves, trust, seed)
        ask_the_wrong_shard(cluster.chain, store, newest, trust)


def _check_root(cluster: Cluster, prediction: Prediction, signed: SignedRounds, seed: int) -> None:
    """The roots by their definition, from the model's leaves: the ledger's, and one shard's."""
    slots: dict[int, dict[bytes, bytes]] = {}
    for model in prediction.shards:
        for key, value in model.state.leaves().items():
            at = slots.setdefault(slot_of_key(StateKey(key)), {})
            at[tagged_hash("state-key", key)] = sha256(value).digest()
    roots = [naive_slot_root(slots[slot]) if slot in slots else ZERO32 for slot in range(SLOTS)]
    if seed % 2:
        assert naive_shard_root(roots) == signed.rounds[-1].checkpoint.ledger_root, "another ledger root"
        return
    shard = seed // 2 % cluster.active_shards
    owners, unowned = cluster.chain.shard_map.owners, tagged_hash("unowned-slot")
    mine = [root if owner == shard else unowned for root, owner in zip(roots, owners, strict=True)]
    assert naive_shard_root(mine) == cluster.task(shard).store.state_root, f"shard {shard}: not the root of its leaves"


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


def digest(cluster: Cluster, trace: list[str]) -> str:
    """Over the trace and every record."""
    hasher = sha256("\n".join(trace).encode())
    for topic in Topic:
        for partition in range(cluster.log.partitions(topic)):
            for offset, _, value in all_records(cluster.log, TopicPartition(topic, partition)):
                hasher.update(offset.to_bytes(8, "big") + (value or b""))
    return hasher.hexdigest()
