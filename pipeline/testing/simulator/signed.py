"""What must hold of everything that was ever signed, read from the log without the code that signs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.client.light import verify_state_root
from pipeline.client.trust import Trust
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.crypto import contexts
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import PoisonRecord
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import (
    Assurance,
    Checkpoint,
    CheckpointProposal,
    CheckpointSignature,
    SignedStateRoot,
    StateRoot,
    checkpoint_hash,
)
from pipeline.ledger.genesis import SignerKey
from pipeline.log.port import EventLog
from pipeline.testing.naive_tree import naive_list_root
from pipeline.testing.reference_control import ReferenceControl
from pipeline.testing.simulator.outcomes import Outcomes, all_records
from pipeline.testing.suite import TEST_SUITES

_CHECKPOINTS = TopicPartition(Topic.CHECKPOINTS, 0)


class _Channels(NamedTuple):
    """Peer -> the last bundle sent, and the last one executed, by a shard up to a height."""

    sent: dict[int, int]
    executed: dict[int, int]


@dataclass(slots=True)
class Round:
    """A round as its signed state roots tell it: the checkpoint, and the head of each shard that advanced."""

    datum: bytes
    checkpoint: Checkpoint
    trust: Trust
    heads: dict[int, StateRoot] = field(default_factory=dict)
    signed: dict[int, SignedStateRoot] = field(default_factory=dict)


class SignedRounds:
    """All rounds; raises `AssertionError` where one was not to be signed, or not so."""

    def __init__(self, chain: Chain, log: EventLog, outcomes: Outcomes, control: ReferenceControl) -> None:
        """Reads the log. `control`: all of it."""
        self._chain, self._log, self._outcomes, self._control = chain, log, outcomes, control
        self.rounds: list[Round] = []
        self._channels = [_channels(headers) for headers in outcomes.headers]
        roots = [
            SignedStateRoot.from_record(record.value)
            for shard in range(chain.genesis.partitions)
            for record in all_records(log, TopicPartition(Topic.STATE_ROOTS, shard))
        ]
        for signed in sorted(roots, key=lambda signed: Checkpoint.from_bytes(signed.checkpoint).round):
            self._add(signed)
        self._check_rounds()
        self._check_signatures()

    def _add(self, signed: SignedStateRoot) -> None:
        checkpoint = Checkpoint.from_bytes(signed.checkpoint)
        if checkpoint.round == len(self.rounds):
            before = self.rounds[-1] if self.rounds else None
            expected = checkpoint_hash(before.datum) if before else self._chain.chain_id
            assert checkpoint.previous_hash == expected, f"round {checkpoint.round} does not follow"
            self.rounds.append(Round(signed.checkpoint, checkpoint, self._trust(before)))
        assert checkpoint.round == len(self.rounds) - 1, f"round {checkpoint.round} has no predecessor"
        last = self.rounds[-1]
        assert signed.checkpoint == last.datum, f"two checkpoints are signed as round {checkpoint.round}"
        root = verify_state_root(signed, last.trust, InlineVerifier(TEST_SUITES)).state_root
        assert last.heads.setdefault(root.shard, root) == root, f"two heads of shard {root.shard} in one round"
        last.signed[root.shard] = signed

    def _trust(self, before: Round | None) -> Trust:
        """Who must have signed the next round: the attestors in force at the last one's control record."""
        governance = self._control.governance[before.checkpoint.control_sequence if before else 0]
        genesis = self._chain.genesis
        return Trust(
            self._chain.chain_id, genesis.shards, governance.attestors, governance.threshold, Assurance.HEADERS
        )

    def _check_rounds(self) -> None:
        heads: dict[int, StateRoot] = {}
        for number, item in enumerate(self.rounds):
            heads |= item.heads
            for shard, head in item.heads.items():
                block_hash = self._outcomes.hashes[shard][head.height]
                expected = (block_hash, self._outcomes.headers[shard][head.height].state_root)
                told = (head.block_hash, head.state_root)
                assert told == expected, f"round {number}: not block {head.height} of {shard}"
            active = next(iter(item.signed.values())).heads
            listed = [heads.get(shard, StateRoot(shard)).to_bytes() for shard in range(active)]
            assert naive_list_root(listed) == item.checkpoint.heads_root, f"round {number}: another heads_root"
            self._check_cut(number, heads)

    def _check_cut(self, number: int, heads: Mapping[int, StateRoot]) -> None:
        """No signed block executed a bundle that no signed block sent."""
        sent: dict[tuple[int, int], int] = {}
        executed: dict[tuple[int, int], int] = {}
        for shard, head in heads.items():
            sent |= {(shard, peer): last for peer, last in self._channels[shard][head.height].sent.items()}
            executed |= {(peer, shard): last for peer, last in self._channels[shard][head.height].executed.items()}
        for channel, last in executed.items():
            assert last <= sent.get(channel, 0), f"round {number}: bundle {last} of channel {channel} is not sent"

    def _check_signatures(self) -> None:
        """Nobody who ever attests signed two checkpoints of one round, nor two blocks of one height."""
        keys = {key.key_id: key for governance in self._control.governance for key in governance.attestors}
        proposals: dict[bytes, CheckpointProposal] = {}
        signed: dict[tuple[bytes, int], bytes] = {}
        for record in all_records(self._log, _CHECKPOINTS):
            try:
                signature = CheckpointSignature.from_record(record.value)
            except PoisonRecord:
                proposal = CheckpointProposal.from_record(record.value)
                proposals[checkpoint_hash(proposal.checkpoint)] = proposal
                continue
            key = keys.get(signature.signer)
            known = proposals.get(signature.checkpoint_hash)
            if key is None or known is None or not _holds(key, known.checkpoint, signature):
                continue
            first = signed.setdefault((signature.signer, signature.round), signature.checkpoint_hash)
            assert first == signature.checkpoint_hash, f"one attestor signed round {signature.round} twice"


def _channels(headers: Sequence[BlockHeader]) -> list[_Channels]:
    """Index = height."""
    found: list[_Channels] = []
    sent: dict[int, int] = {}
    executed: dict[int, int] = {}
    for header in headers:
        sent = sent | {item.peer: item.sequence for item in header.channels_out}
        executed = executed | {item.peer: item.sequence for item in header.channels_in}
        found.append(_Channels(sent, executed))
    return found


def _holds(key: SignerKey, datum: bytes, signature: CheckpointSignature) -> bool:
    return TEST_SUITES.verify(key.suite, key.public_key, datum, contexts.CHECKPOINT, signature.signature)


def newest_signed(rounds: Sequence[Round], shard: int) -> SignedStateRoot | None:
    """The last signed root of a shard."""
    return next((item.signed[shard] for item in reversed(rounds) if shard in item.signed), None)
