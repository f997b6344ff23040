"""A node in a temporary directory with funded accounts, and the packaged sample as workloads for it."""

import csv
import gzip
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Address
from pipeline.crypto import contexts
from pipeline.crypto.addresses import address_of
from pipeline.crypto.keystore import save_key
from pipeline.crypto.port import PrivateKey, SuiteId
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import parallel_sign
from pipeline.data import sample
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
from pipeline.log.port import Append
from pipeline.node.bootstrap import derive_seed, new_chain
from pipeline.node.layout import NodeLayout
from pipeline.node.node import Node, wall_clock_ms

SUITE = SuiteId.ML_DSA_65
SEED = b"benchmark"


class Row(NamedTuple):
    """A payment of the packaged sample that can be played."""

    payer: str
    payee: str
    amount: int


def sample_rows() -> list[Row]:
    """Payments with a receiver and an amount, in the file's order."""
    with sample().open("rb") as packed, gzip.open(packed, "rt", encoding="utf-8", newline="") as text:
        rows = [Row(item["from"], item["to"], int(item["value_wei"])) for item in csv.DictReader(text)]
    return [row for row in rows if row.payee and row.amount]


class Unsigned(NamedTuple):
    """A transaction that waits for its signature."""

    name: str
    body: bytes
    carries_key: bool


@dataclass
class Wallet:
    """Keys from a seed, one a name; makes and signs transactions with the next nonce."""

    node: Node
    keys: dict[str, PrivateKey] = field(default_factory=dict)
    nonces: dict[str, int] = field(default_factory=dict)

    def address(self, name: str) -> Address:
        """The address of a name that holds a key."""
        if name not in self.keys:
            self.keys[name] = STANDARD_SUITES[SUITE].generate(derive_seed(SEED, name))
        return address_of(SUITE, self.keys[name].public_key)

    def body(self, name: str, *operations: Operation) -> Unsigned:
        """An unsigned transaction of `name`."""
        sender, nonce = self.address(name), self.nonces.get(name, 0)
        self.nonces[name] = nonce + 1
        datum = TransactionBody(self.node.chain.chain_id, sender, nonce, operations).to_bytes()
        return Unsigned(name, datum, carries_key=nonce == 0)

    def sign(self, bodies: Sequence[Unsigned]) -> list[Append]:
        """Records for the log; a sender's first one carries its key."""
        signatures = parallel_sign([(self.keys[item.name], item.body) for item in bodies], contexts.TRANSACTION)
        appends = []
        for (name, body, carries_key), signature in zip(bodies, signatures, strict=True):
            key = self.keys[name].public_key
            partition = self.node.chain.shard_map.owner_of(address_of(SUITE, key))
            record = SignedTransaction(body, SUITE, key if carries_key else None, signature).to_record()
            appends.append(Append(TopicPartition(Topic.TRANSACTIONS, partition), None, record))
        return appends


def receiver(name: str) -> Address:
    """The address of a name that only receives: no key is needed."""
    return Address(sha256(b"receiver\x00" + name.encode()).digest())


@contextmanager
def bed(shards: int, funds: dict[str, int]) -> Iterator[tuple[Node, Wallet, bytes]]:
    """A running node whose accounts hold `funds` of asset UNIT; yields node, wallet and asset id."""
    with tempfile.TemporaryDirectory(prefix="hauptbuch-bench-") as folder:
        layout = NodeLayout(Path(folder))
        made = new_chain(STANDARD_SUITES, "benchmark", shards, wall_clock_ms(), seed=SEED)
        (layout.root / "keys").mkdir()
        layout.genesis.write_bytes(made.chain.genesis.to_record())
        save_key(layout.key("attestor"), made.keys["attestor"], "", STANDARD_SUITES)
        layout.config.write_text("")
        node = Node.open(layout.root)
        try:
            wallet = Wallet(node, dict(made.keys))
            asset = asset_id_of(made.chain.genesis.treasury, b"UNIT")
            entries = [(wallet.address(name), amount) for name, amount in funds.items()]
            bodies = [wallet.body("treasury", CreateAsset(b"UNIT"))]
            for start in range(0, len(entries), 5_000):
                bodies.append(wallet.body("treasury", Mint(asset, pack_transfers(entries[start : start + 5_000]))))
            publish(node, wallet.sign(bodies))
            play(node)
            yield node, wallet, asset
        finally:
            node.close()


def publish(node: Node, appends: Sequence[Append]) -> None:
    """Put records on the log, as producers do."""
    for start in range(0, len(appends), 1_000):
        node.log.append(appends[start : start + 1_000])


def play(node: Node) -> None:
    """Drive the node until all that is on the log is executed, every bundle settled and every block signed."""
    assert node.run_until(lambda: is_done(node), 600_000), "the benchmark's ledger did not come to rest"


def is_done(node: Node) -> bool:
    """Whether every input is executed and every block is under a signed root."""
    for task in node.tasks:
        positions = task.committed.positions
        for topic, position in ((Topic.TRANSACTIONS, positions[2]), (Topic.RELAY, positions[1])):
            source = TopicPartition(topic, task.shard)
            # Offsets above the position may be markers, which hold no record.
            if node.log.end_offset(source) > position and node.log.read(source, position, 1, 1):
                return False
    follower = node.synchronizer.follower
    return follower is not None and not follower.unsigned_blocks


def transfers(asset: bytes, entries: Sequence[tuple[bytes, int]]) -> Transfer:
    """One operation of these entries."""
    return Transfer(asset, pack_transfers(entries))  # type: ignore[arg-type] # an asset id


__all__ = ["Row", "Wallet", "bed", "is_done", "play", "publish", "receiver", "sample_rows", "transfers"]
