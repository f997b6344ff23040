"""The table of the original architecture beside what this machine measures: shard creation, a transaction, a
cross-shard effect, state synchronization; each with its gas."""

from dataclasses import dataclass
from statistics import median
from time import perf_counter

from benchmarks.bed import Wallet, bed, publish, receiver, transfers
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.crypto import contexts
from pipeline.ledger.control import CreateShard, KeySignature, SignedControl, encode_action
from pipeline.log.port import Append
from pipeline.node.node import Node

SAMPLES = 30
SHARDS = 4


@dataclass(frozen=True, slots=True)
class OriginalRow:
    """The original text's figures, and this run's median time in milliseconds and gas."""

    operation: str
    stated_ms: int
    stated_gas: int
    measured_ms: float
    measured_gas: int


def run() -> list[OriginalRow]:
    """One operation at a time on an idle node of `SHARDS` shards, from publishing to the effect on the log."""
    with bed(SHARDS, {f"payer-{number}": 10**6 for number in range(8)}) as (node, wallet, asset):
        local, remote, signed = _payments(node, wallet, asset)
        gas = node.chain.genesis.gas
        return [
            OriginalRow("Shard Creation", 100, 1_000_000, _create_shard(node, wallet), gas.shard_creation),
            OriginalRow("Transaction Processing", 50, 500_000, local, gas.local_entry + gas.leaf),
            OriginalRow("Cross-Shard Communication", 150, 1_500_000, remote, gas.remote_entry + gas.leaf),
            OriginalRow("State Synchronization", 200, 2_000_000, signed, gas.round),
        ]


def _payments(node: Node, wallet: Wallet, asset: bytes) -> tuple[float, float, float]:
    """Median ms to the receipt of a local payment, to the settlement of a remote one, and to its signed root."""
    local_ms, remote_ms, signed_ms = [], [], []
    owner_of = node.chain.shard_map.owner_of
    payer = "payer-0"
    home = owner_of(wallet.address(payer))
    near = next(address for number in range(999) if owner_of(address := receiver(f"near-{number}")) == home)
    far = next(address for number in range(999) if owner_of(address := receiver(f"far-{number}")) != home)
    there = owner_of(far)
    for _ in range(SAMPLES):
        started = _send(node, wallet, payer, asset, near)
        height = node.tasks[home].committed.height
        _until(node, lambda height=height: node.tasks[home].committed.height > height)
        local_ms.append(_since(started))
        _until(node, lambda: not _unsigned(node))
        signed_ms.append(_since(started))
        arrived = node.tasks[there].committed.height
        started = _send(node, wallet, payer, asset, far)
        _until(node, lambda arrived=arrived: node.tasks[there].committed.height > arrived)
        remote_ms.append(_since(started))
        _until(node, lambda: not _unsigned(node))
    return median(local_ms), median(remote_ms), median(signed_ms)


def _send(node: Node, wallet: Wallet, payer: str, asset: bytes, to: bytes) -> float:
    appends = wallet.sign([wallet.body(payer, transfers(asset, [(to, 1)]))])
    started = perf_counter()
    publish(node, appends)
    return started


def _create_shard(node: Node, wallet: Wallet) -> float:
    control = node.tasks[0].committed.control
    number = control.active_shards
    body = encode_action(control.protocol, CreateShard(number))
    unsigned = SignedControl(node.chain.chain_id, control.sequence + 1, control.previous_hash, body)
    key, listed = wallet.keys["operator"], node.chain.genesis.operators[0]
    signature = KeySignature(listed.key_id, listed.suite, key.sign(unsigned.message(), contexts.CONTROL))
    signed = SignedControl(unsigned.chain_id, unsigned.sequence, unsigned.previous_hash, body, (signature,))
    started = perf_counter()
    node.log.append([Append(TopicPartition(Topic.CONTROL, 0), None, signed.to_record())])
    _until(node, lambda: len(node.tasks) > number and node.tasks[number].committed.height >= 0)
    return _since(started)


def _unsigned(node: Node) -> int:
    follower = node.synchronizer.follower
    return 1 if follower is None else follower.unsigned_blocks


def _until(node: Node, condition) -> None:  # type: ignore[no-untyped-def]
    assert node.run_until(condition, 60_000), "the benchmark's ledger did not come to rest"


def _since(started: float) -> float:
    return (perf_counter() - started) * 1e3
