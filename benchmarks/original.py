"""The table of the original architecture beside what this machine measures: shard creation, a transaction, a
cross-shard effect, state synchronization; each with its gas and memory."""

import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median
from time import perf_counter

from benchmarks.bed import Wallet, bed, publish, receiver, transfers
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Address
from pipeline.crypto import contexts
from pipeline.ledger.control import CreateShard, KeySignature, SignedControl, encode_action
from pipeline.log.port import Append
from pipeline.node.node import Node

SAMPLES = 30
SHARDS = 4
_PAYER = "payer-0"


@dataclass(frozen=True, slots=True)
class OriginalRow:
    """The original text's figures, and this run's: median milliseconds, gas, and by how many megabytes the process's
    peak of resident memory grew over all samples."""

    operation: str
    stated_ms: int
    stated_gas: int
    stated_mb: int
    measured_ms: float
    measured_gas: int
    measured_mb: float


def run() -> tuple[list[OriginalRow], float]:
    """The rows, and the peak of resident memory of the whole process in megabytes: one of its own, so that nothing else
    counts."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_run).result()


def _run() -> tuple[list[OriginalRow], float]:
    """One operation at a time on an idle node of `SHARDS` shards, from publishing to the effect on the log."""
    with bed(SHARDS, {_PAYER: 10**6}) as (node, wallet, asset):
        gas = node.chain.genesis.gas
        owner_of = node.chain.shard_map.owner_of
        home = owner_of(wallet.address(_PAYER))
        near = next(to for number in range(999) if owner_of(to := receiver(f"near-{number}")) == home)
        far = next(to for number in range(999) if owner_of(to := receiver(f"far-{number}")) != home)

        def pay(to: Address, done: Callable[[], Callable[[], bool]]) -> float:
            is_done = done()
            started = _send(node, wallet, asset, to)
            _until(node, is_done)
            took = _since(started)
            _until(node, lambda: not _unsigned(node))
            return took

        measured = [
            _measure(lambda: _create_shard(node, wallet), samples=1),
            _measure(lambda: pay(near, lambda: _next_block(node, home))),
            _measure(lambda: pay(far, lambda: _next_block(node, owner_of(far)))),
            _measure(lambda: pay(near, lambda: _next_signed(node, home))),
        ]
        stated = [
            ("Shard Creation", 100, 1_000_000, 20, gas.shard_creation),
            ("Transaction Processing", 50, 500_000, 10, gas.local_entry + gas.leaf),
            ("Cross-Shard Communication", 150, 1_500_000, 30, gas.remote_entry + gas.leaf),
            ("State Synchronization", 200, 2_000_000, 40, gas.round),
        ]
        rows = [
            OriginalRow(name, ms, stated_gas, mb, took_ms, measured_gas, grown_mb)
            for (name, ms, stated_gas, mb, measured_gas), (took_ms, grown_mb) in zip(stated, measured, strict=True)
        ]
        return rows, _peak_mb()


def _measure(once: Callable[[], float], samples: int = SAMPLES) -> tuple[float, float]:
    """(median milliseconds, megabytes that the peak of memory grew by)."""
    before_mb = _peak_mb()
    took_ms = median([once() for _ in range(samples)])
    return took_ms, _peak_mb() - before_mb


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _next_block(node: Node, shard: int) -> Callable[[], bool]:
    height = node.tasks[shard].committed.height
    return lambda: node.tasks[shard].committed.height > height


def _next_signed(node: Node, shard: int) -> Callable[[], bool]:
    is_executed = _next_block(node, shard)
    return lambda: is_executed() and not _unsigned(node)


def _send(node: Node, wallet: Wallet, asset: bytes, to: Address) -> float:
    appends = wallet.sign([wallet.body(_PAYER, transfers(asset, [(to, 1)]))])
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
