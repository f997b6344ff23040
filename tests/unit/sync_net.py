"""A whole chain in memory for tests of signing and clients: log, shards, a clock that tests turn."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import Address, AssetId, ShardId
from pipeline.crypto import contexts
from pipeline.crypto.addresses import address_of
from pipeline.crypto.port import PrivateKey
from pipeline.crypto.verifier import InlineVerifier
from pipeline.errors import PoisonRecord
from pipeline.kv.memory import MemoryKeyValue
from pipeline.kv.port import KeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import (
    Assurance,
    Checkpoint,
    CheckpointProposal,
    CheckpointSignature,
    SignedStateRoot,
    StateRoot,
    heads_root,
)
from pipeline.ledger.control import KeySignature
from pipeline.ledger.genesis import Genesis, SignerKey
from pipeline.ledger.packing import pack_transfers
from pipeline.ledger.transactions import (
    CreateAsset,
    Mint,
    Operation,
    SignedTransaction,
    TransactionBody,
    Transfer,
    asset_id_of,
)
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.node.bootstrap import create_topics
from pipeline.shards.progress import Progress
from pipeline.shards.task import ShardTask, SoleOwner, TaskConfig
from pipeline.state.store import StateStore
from pipeline.sync.settings import SyncConfig
from pipeline.sync.signer import Signer
from pipeline.sync.synchronizer import Synchronizer
from pipeline.testing.suite import DETERMINISTIC_SUITE_ID, TEST_SUITES, DeterministicKey, DeterministicSuite
from pipeline.tree.rfc6962 import inclusion_paths

START_MS = 1_700_000_000_000
SUITE = DeterministicSuite()


def key_of(name: str) -> DeterministicKey:
    return SUITE.generate(name.encode().ljust(32, b"."))


def signer_key(name: str | PrivateKey) -> SignerKey:
    key = key_of(name) if isinstance(name, str) else name
    return SignerKey(key.suite_id, key.public_key)


def address_of_key(key: PrivateKey) -> Address:
    return address_of(key.suite_id, key.public_key)


def make_chain(shards: int = 2, attestors: Sequence[str | PrivateKey] = ("attestor",), threshold: int = 1) -> Chain:
    treasury = address_of_key(key_of("treasury"))
    return Chain.of(
        Genesis(
            salt=bytes(32),
            name="test",
            created_ms=START_MS,
            shards=shards,
            partitions=max(4, shards),
            attestors=tuple(signer_key(name) for name in attestors),
            attestor_threshold=threshold,
            operators=(signer_key("operator"),),
            operator_threshold=1,
            fee_asset=asset_id_of(treasury, b"FEE"),
            treasury=treasury,
        )
    )


def alone(
    signed: SignedStateRoot, *names: str, control_sequence: int = 0, number: int | None = None, **changes: Any
) -> SignedStateRoot:
    """A root like that of `signed` with other values, under a round of a number and no other block, by `names`."""
    root = replace(StateRoot.from_bytes(signed.state_root), **changes)
    checkpoint = Checkpoint.from_bytes(signed.checkpoint)
    roots = [*[replace(root, shard=shard, height=-1) for shard in range(root.shard)], root]
    datum = replace(
        checkpoint,
        round=checkpoint.round if number is None else number,
        control_sequence=control_sequence,
        heads_root=heads_root(roots),
    ).to_bytes()
    signatures = tuple(
        KeySignature(signer_key(name).key_id, SUITE.suite_id, key_of(name).sign(datum, contexts.CHECKPOINT))
        for name in names
    )
    path = inclusion_paths([item.to_bytes() for item in roots])[-1]
    return SignedStateRoot(root.to_bytes(), len(roots), path, datum, signatures)


class Net:
    """One log, one task a shard, and whatever else a test drives."""

    def __init__(
        self,
        shards: int = 2,
        attestors: Sequence[str | PrivateKey] = ("attestor",),
        threshold: int = 1,
        log: EmbeddedLog | None = None,
    ) -> None:
        self.chain = make_chain(shards, attestors, threshold)
        self.verifier = InlineVerifier(TEST_SUITES)
        self.log = log or EmbeddedLog(MemoryKeyValue())
        create_topics(self.log, self.chain)
        self.now_ms = START_MS
        self.stores: list[StateStore] = []
        self.tasks: list[ShardTask] = []
        for number in range(shards):
            self.add_shard(number)
        self.nonces: dict[str, int] = {}
        self.asset: AssetId = asset_id_of(self.chain.genesis.treasury, b"UNIT")
        self._keyed: set[str] = set()

    def store_for(self, shard: int, kv: MemoryKeyValue | None = None) -> StateStore:
        return StateStore(kv or MemoryKeyValue(), ShardId(shard), self.chain.shard_map.slots_of(shard))

    def add_shard(self, number: int) -> None:
        store = self.store_for(number)
        task = ShardTask(
            self.chain, ShardId(number), self.log, store, self.verifier, SoleOwner(), TaskConfig(linger_ms=1)
        )
        task.assign()
        self.stores.append(store)
        self.tasks.append(task)

    def synchronizer(
        self,
        kv: KeyValue | None = None,
        signer: str | PrivateKey | None = "attestor",
        assurance: Assurance = Assurance.HEADERS,
        stores: dict[int, MemoryKeyValue] | None = None,
    ) -> Synchronizer:
        return Synchronizer(
            self.chain,
            self.log,
            kv or MemoryKeyValue(),
            Signer(key_of(signer) if isinstance(signer, str) else signer) if signer else None,
            assurance,
            InlineVerifier(TEST_SUITES),
            SyncConfig(round_linger_ms=1),
            lambda shard: self.store_for(shard, (stores or {}).get(shard)),
        )

    def send(self, name: str, *operations: Operation) -> tuple[int, int]:
        """Sign and publish; returns (partition, offset)."""
        key = key_of(name)
        nonce = self.nonces.get(name, 0)
        self.nonces[name] = nonce + 1
        body = TransactionBody(self.chain.chain_id, address_of_key(key), nonce, operations).to_bytes()
        first, self._keyed = name not in self._keyed, self._keyed | {name}
        public_key = key.public_key if first else None
        signed = SignedTransaction(body, key.suite_id, public_key, key.sign(body, contexts.TRANSACTION))
        shard = self.chain.shard_map.owner_of(address_of_key(key))
        target = TopicPartition(Topic.TRANSACTIONS, shard)
        (offset,) = self.log.append([Append(target, None, signed.to_record())])
        return shard, offset

    def fund(self, amounts: dict[str, int]) -> tuple[int, int]:
        entries = pack_transfers([(address_of_key(key_of(name)), amount) for name, amount in amounts.items()])
        create = [CreateAsset(b"UNIT")] if not self.nonces.get("treasury") else []
        return self.send("treasury", *create, Mint(self.asset, entries))

    def pay(self, name: str, to: dict[str, int]) -> tuple[int, int]:
        entries = pack_transfers([(address_of_key(key_of(other)), amount) for other, amount in to.items()])
        return self.send(name, Transfer(self.asset, entries))

    def run(self, *others: object, ms: int = 60, tasks: Sequence[ShardTask] | None = None) -> None:
        """Drive everything until nothing happens for `ms` of the test's clock."""
        quiet = 0
        driven = [*(self.tasks if tasks is None else tasks), *others]
        while quiet < ms:
            progressed = False
            for task in driven:
                for _ in range(1000):
                    if not isinstance(task.step(self.now_ms), Progress):  # type: ignore[attr-defined]
                        break
                    progressed = True
            quiet = 0 if progressed else quiet + 1
            self.now_ms += 1

    def read(self, topic: Topic, partition: int = 0) -> list[LogRecord]:
        return self.log.read(TopicPartition(topic, partition), 0, 100_000, 1 << 30)

    def rounds(self) -> list[tuple[Checkpoint, CheckpointProposal]]:
        found = []
        for record in self.read(Topic.CHECKPOINTS):
            try:
                proposal = CheckpointProposal.from_record(record.value)
            except PoisonRecord:
                continue
            found.append((Checkpoint.from_bytes(proposal.checkpoint), proposal))
        return found

    def signatures(self) -> list[CheckpointSignature]:
        found = []
        for record in self.read(Topic.CHECKPOINTS):
            try:
                found.append(CheckpointSignature.from_record(record.value))
            except PoisonRecord:
                continue
        return found

    def state_roots(self, shard: int) -> list[SignedStateRoot]:
        return [SignedStateRoot.from_record(record.value) for record in self.read(Topic.STATE_ROOTS, shard)]


__all__ = ["DETERMINISTIC_SUITE_ID", "Net", "key_of"]
