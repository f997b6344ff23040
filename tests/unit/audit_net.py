"""A played ledger to lie about, and what the audit says of a log in memory."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from sync_net import Net, key_of

from pipeline.audit.findings import Finding, FindingKind
from pipeline.audit.log_editor import LogEditor
from pipeline.audit.report import AuditReport
from pipeline.audit.run import audit_log
from pipeline.audit.tamper import Damage, Lie
from pipeline.audit.tools import Tools, memory_kv
from pipeline.codec.types import ChainId, Hash32
from pipeline.crypto.addresses import address_of
from pipeline.crypto.verifier import InlineVerifier
from pipeline.kv.memory import MemoryKeyValue
from pipeline.log.embedded import EmbeddedLog
from pipeline.sync.synchronizer import Synchronizer
from pipeline.testing.suite import TEST_SUITES


@dataclass(frozen=True)
class Seen:
    round: int
    hash: Hash32


@dataclass(frozen=True)
class Outside:
    """As a trust file has it."""

    chain_id: ChainId
    last_checkpoint: Seen | None


def names_on(net: Net, shard: int, count: int) -> list[str]:
    """Names whose accounts live on a shard."""
    found = []
    for number in range(1000):
        name = f"p{number}"
        key = key_of(name)
        address = address_of(key.suite_id, key.public_key)
        if net.chain.shard_map.owner_of(address) == shard:
            found.append(name)
            if len(found) == count:
                break
    return found


def play(net: Net, sync: Synchronizer) -> None:
    """Payments within and between all shards, some of which fail; several rounds."""
    people = [names_on(net, shard, 3) for shard in range(len(net.tasks))]
    net.fund({name: 1000 for group in people for name in group})
    net.run(sync)
    for step in range(4):
        for shard, group in enumerate(people):
            other = people[(shard + 1) % len(people)]
            net.pay(group[0], {group[1]: 1 + step, other[0]: 2})
            net.pay(group[2], {other[2]: 5, other[1]: 1})
            if step == 2:
                net.pay(group[1], {other[1]: 10**9})
        net.run(sync)


@cache
def played(shards: int = 3) -> tuple[Net, tuple[tuple[bytes, bytes], ...]]:
    """The net and the bytes of its log."""
    net = Net(shards=shards)
    play(net, net.synchronizer())
    return net, dump(net)


def dump(net: Net) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(net.log._kv.scan(b"", b"\xff\xff", 1 << 30))


def kv_of(pairs: tuple[tuple[bytes, bytes], ...]) -> MemoryKeyValue:
    kv = MemoryKeyValue()
    kv.write(dict(pairs), sync=True)
    return kv


def tools(kv: MemoryKeyValue) -> Tools:
    return Tools(lambda: EmbeddedLog(kv, read_only=True), lambda: InlineVerifier(TEST_SUITES), memory_kv)


def audit_pairs(pairs: tuple[tuple[bytes, bytes], ...], **options: Any) -> AuditReport:
    return audit_log(tools(kv_of(pairs)), **options)


def audit_net(net: Net, **options: Any) -> AuditReport:
    return audit_pairs(dump(net), **options)


def after_lie(lie: Lie, pairs: tuple[tuple[bytes, bytes], ...]) -> tuple[Damage, tuple[tuple[bytes, bytes], ...]]:
    kv = kv_of(pairs)
    damage = lie(LogEditor(kv, TEST_SUITES))
    return damage, tuple(kv.scan(b"", b"\xff\xff", 1 << 30))


def named(report: AuditReport, kind: FindingKind, damage: Damage) -> list[Finding]:
    """Findings of this kind at the place of the damage."""
    return [
        item
        for item in report.findings
        if (item.kind, item.topic, item.shard, item.offset) == (kind, damage.topic, damage.shard, damage.offset)
    ]
