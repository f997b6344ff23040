"""What no honest process publishes: producers who forge, and somebody who may write `relay` and `checkpoints`.

Nothing here may halt anything: each lie is passed over, refused, or buried as a dead letter.
"""

from dataclasses import replace
from random import Random

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.crypto import contexts
from pipeline.errors import TaskDiverged
from pipeline.ledger.checkpoints import (
    Assurance,
    Checkpoint,
    CheckpointProposal,
    CheckpointSignature,
    checkpoint_hash,
)
from pipeline.ledger.genesis import SignerKey
from pipeline.ledger.transactions import SignedTransaction, TransactionBody
from pipeline.sync.ledger_follower import LedgerFollower
from pipeline.sync.round_book import CHECKPOINTS
from pipeline.testing.simulator.cluster import Cluster
from pipeline.testing.simulator.prediction import is_forged
from pipeline.testing.simulator.report import Trace
from pipeline.testing.simulator.traffic import Traffic
from pipeline.testing.world import Actor, sign

_TRANSACTIONS = ("replay", "misrouted", "forged", "gap", "cut", "bytes", "null", "control")
_RELAY = ("relay bytes", "relay replay", "relay misrouted")
_NEWEST = 8


class Lies:
    """All who lie in one simulation."""

    def __init__(self, cluster: Cluster, traffic: Traffic, random: Random, trace: Trace) -> None:
        """Nothing is published yet."""
        self._cluster, self._traffic, self._random, self._trace = cluster, traffic, random, trace

    def publish(self) -> None:
        """A record that no honest producer or worker publishes."""
        if not self._traffic.published:
            return
        if self._random.random() < 0.2:
            self._relay(self._random.choice(_RELAY))
        else:
            self._transaction(self._random.choice(_TRANSACTIONS))

    def _append(self, kind: str, target: TopicPartition, value: bytes | None) -> bool:
        """Whether it surely stands: not where the power went meanwhile."""
        offset = self._cluster.guarded_append(target, value)
        self._trace.event(f"lie {kind}", f"{target.topic.topic_name}[{target.partition}] {offset}")
        return offset is not None

    def _transaction(self, kind: str) -> None:
        random = self._random
        target, _, value = random.choice(self._traffic.published)
        forged: bytes | None
        match kind:
            case "replay":
                forged = value
            case "misrouted":
                shards = self._cluster.chain.genesis.shards
                target, forged = target._replace(partition=random.randrange(shards)), value
            case "forged":
                signed = SignedTransaction.from_record(value)
                false = random.randbytes(32)
                forged = SignedTransaction(signed.body, signed.suite, signed.public_key, false).to_record()
            case "gap":
                forged = self._ahead(value)
            case "cut":
                forged = value[: random.randrange(len(value))]
            case "bytes":
                forged = random.randbytes(random.randint(0, 80))
            case "null":
                forged = None
            case _:
                target, forged = TopicPartition(Topic.CONTROL, 0), random.randbytes(20)
        self._append(kind, target, forged)

    def _ahead(self, value: bytes) -> bytes:
        """A nonce that is too far."""
        body = TransactionBody.from_bytes(SignedTransaction.from_record(value).body)
        (actor,) = [actor for actor in self._traffic.actors if actor.address == body.sender]
        account = self._traffic.account(actor)
        nonce = (account.nonce if account else 0) + self._random.randint(5, 9)
        ahead = TransactionBody(body.chain_id, body.sender, nonce, body.operations)
        return sign(self._traffic.signer(actor), ahead).to_record()

    def _relay(self, kind: str) -> None:
        """Bytes that are no bundle, a true bundle once more, or one that is for another shard."""
        random, log = self._random, self._cluster.log
        target = TopicPartition(Topic.RELAY, random.randrange(self._cluster.active_shards))
        if kind == "relay bytes":
            self._append(kind, target, random.randbytes(30))
            return
        start = max(0, log.end_offset(target) - _NEWEST)
        records = [record for record in log.read(target, start, _NEWEST, 1 << 20) if not is_forged(record)]
        if records:
            if kind == "relay misrouted":
                target = target._replace(partition=random.randrange(self._cluster.active_shards))
            self._append(kind, target, random.choice(records).value)

    # Rounds

    def about_signatures(self) -> None:
        """Another proposal of the next round, right or wrong, or a signature of nobody who attests."""
        follower = self._cluster.proposer
        proposal = None if follower is None else self._proposal(follower)
        if proposal is None:
            return
        self._cluster.lied_about_rounds = True
        match self._random.choice(("proposal", "proposal wrong", "signature")):
            case "proposal":
                self._append("proposal", CHECKPOINTS, proposal.to_record())
            case "proposal wrong":
                wrong = bytearray(proposal.checkpoint)
                wrong[-self._random.randint(1, 60)] ^= 1  # in one of its roots
                self._append("proposal wrong", CHECKPOINTS, replace(proposal, checkpoint=bytes(wrong)).to_record())
            case _:
                # Of a proposal that stands: the verdict knows what an audit says of just that.
                if self._append("proposal", CHECKPOINTS, proposal.to_record()):
                    self._append("signature", CHECKPOINTS, _signed_by_nobody(proposal.checkpoint).to_record())

    def _proposal(self, follower: LedgerFollower) -> CheckpointProposal | None:
        """As a proposer without scruples makes it: any blocks, a time of its own; None where there are no blocks."""
        random = self._random
        share = random.choice((0.3, 0.7))  # few shards alone are seldom a consistent cut
        heights = {
            shard: random.randint(track.signed_height + 1, track.checked_height)
            for shard, track in enumerate(follower.tracks)
            if track.blocks and random.random() < share
        }
        if not heights:
            return None
        time_ms = self._cluster.now_ms + random.randint(-50, 500)
        assurance = random.choice([item for item in Assurance if item <= self._cluster.assurance])
        try:
            return follower.plan(heights, time_ms, assurance).proposal
        except TaskDiverged:  # a cut that is not consistent leads to no round
            cut = follower.next_cut()
            if not cut:
                return None
            return replace(follower.plan(cut, time_ms, assurance).proposal, advanced=tuple(sorted(heights.items())))


def _signed_by_nobody(datum: bytes) -> CheckpointSignature:
    key = Actor.of("nobody").key
    signer = SignerKey(key.suite_id, key.public_key).key_id
    number = Checkpoint.from_bytes(datum).round
    return CheckpointSignature(
        number, checkpoint_hash(datum), signer, key.suite_id, key.sign(datum, contexts.CHECKPOINT)
    )
