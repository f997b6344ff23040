"""What must hold of a ledger's directory whatever was done to the processes that ran it.

Read here as naively as it can be, apart from the audit, which judges too: the two share no bookkeeping.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256

from pipeline.audit.run import audit_log
from pipeline.audit.tools import Tools, memory_kv, open_directory
from pipeline.client.light import LightClient
from pipeline.client.subscriber import StateRootSubscriber
from pipeline.client.trust import SeenCheckpoint, Trust
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import Hash32
from pipeline.crypto.verifier import InlineVerifier, Verifier
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance
from pipeline.ledger.receipts import (
    BundleReceipt,
    DeadLetter,
    ReceiptChunk,
    TransactionReceipt,
    decode_receipt,
)
from pipeline.ledger.relay import RelayBundle
from pipeline.log.port import EventLog
from pipeline.node.layout import NodeLayout
from pipeline.testing.kills.words import Words, seen_root
from pipeline.testing.suite import TEST_SUITES

_PAGE = 512
_PAGE_BYTES = 8 << 20


class LedgerBroken(AssertionError):  # noqa: N818 - says what happened, as the errors of the library do
    """Something that must hold does not; the message says what and where."""


@dataclass(slots=True)
class Judgement:
    """Figures of a ledger that holds."""

    blocks: int = 0
    transactions: int = 0
    dead_letters: int = 0
    bundles: int = 0
    rounds: int = 0
    roots_seen: int = 0


@dataclass(slots=True)
class _Facts:
    """What the outputs of all shards say, each record counted once however often it was republished."""

    receipts: Counter[tuple[int, int]] = field(default_factory=Counter)
    nonces: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    executed: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    dead: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    sent: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    blocks: dict[tuple[int, int], BlockHeader] = field(default_factory=dict)
    hashes: dict[tuple[int, int], str] = field(default_factory=dict)


def _test_verifier() -> Verifier:
    return InlineVerifier(TEST_SUITES)


def judge(layout: NodeLayout, words: Words, *, finished: bool) -> Judgement:
    """Judge the log in a directory, beside whoever runs it. `finished`: all inputs must be executed and signed.

    `words`: what was told to be durable. Raises `LedgerBroken`.
    """
    log = open_directory(layout.log)
    try:
        return judge_log(log, partial(open_directory, layout.log), layout.chain(), words, finished=finished)
    finally:
        log.close()


def judge_log(
    log: EventLog,
    reopen: Callable[[], EventLog],
    chain: Chain,
    words: Words,
    *,
    finished: bool,
    verifier: Callable[[], Verifier] = _test_verifier,
) -> Judgement:
    """As `judge`, of a log that is open; `reopen` opens it once more for the audit, which closes it.

    `verifier`: of the chain's suites.
    """
    facts = _facts(log, chain)
    _judge_records(log, chain, facts, finished=finished)
    _judge_bundles(facts, finished=finished)
    _judge_words(log, chain, facts, words, verifier)
    trust = _trust(chain, words)
    report = audit_log(Tools(reopen, verifier, memory_kv), chain=chain, trust=trust)
    _require(report.ok, "the audit: " + "; ".join(report.render()[:6]))
    _require(report.conserved is not None, "the audit could not judge conservation")
    if finished:
        _require(not report.unsigned_blocks, f"{report.unsigned_blocks} blocks are not signed")
        _require(not report.in_flight, f"{len(report.in_flight)} bundles are in flight")
    return Judgement(
        len(facts.blocks),
        sum(facts.receipts.values()),
        len(facts.dead),
        len(facts.sent),
        report.rounds,
        len(words.roots),
    )


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise LedgerBroken(what)


def _trust(chain: Chain, words: Words) -> Trust:
    trust = Trust.of(chain, Assurance.HEADERS)
    newest = max(words.roots, key=lambda root: root.round, default=None)
    return (
        trust if newest is None else trust.seen(SeenCheckpoint(newest.round, Hash32(bytes.fromhex(newest.checkpoint))))
    )


def _records(log: EventLog, topic: Topic, partition: int) -> Iterator[LogRecord]:
    position = 0
    while page := log.read(TopicPartition(topic, partition), position, _PAGE, _PAGE_BYTES):
        yield from page
        position = page[-1].offset + 1


def _once(seen: dict[tuple[int, ...], bytes], key: tuple[int, ...], record: LogRecord, what: str) -> bool:
    """Whether this is the first record of its key; a repeat must be the same bytes."""
    assert record.value is not None, "workers write no nulls"
    first = seen.setdefault(key, record.value)
    _require(first == record.value, f"{what} {key}: published again with other bytes, offset {record.offset}")
    return first is record.value


def _facts(log: EventLog, chain: Chain) -> _Facts:
    facts = _Facts()
    for shard in range(chain.genesis.shards):
        chunks: dict[tuple[int, ...], bytes] = {}
        for record in _records(log, Topic.RECEIPTS, shard):
            chunk = ReceiptChunk.from_record(record.value)
            if _once(chunks, (chunk.height, chunk.first_index), record, f"receipts of shard {shard}"):
                _count(facts, shard, chunk)
        letters: dict[tuple[int, ...], bytes] = {}
        for record in _records(log, Topic.DEAD_LETTERS, shard):
            letter = DeadLetter.from_record(record.value)
            key = (letter.topic, letter.partition, letter.offset)
            if _once(letters, key, record, "dead letter"):
                facts.dead[key] += 1
        headers: dict[tuple[int, ...], bytes] = {}
        for record in _records(log, Topic.BLOCKS, shard):
            header, block_hash = BlockHeader.from_record(record.value)
            if _once(headers, (shard, header.height), record, "block"):
                facts.blocks[shard, header.height] = header
                facts.hashes[shard, header.height] = block_hash.hex()
        bundles: dict[tuple[int, ...], bytes] = {}
        for record in _records(log, Topic.RELAY, shard):
            bundle = RelayBundle.from_record(record.value)
            place = (bundle.source, shard, bundle.sequence)
            if _once(bundles, place, record, "bundle"):
                assert record.value is not None, "decoded above"
                facts.sent[place] = record.value
    return facts


def _count(facts: _Facts, shard: int, chunk: ReceiptChunk) -> None:
    for datum in chunk.receipts:
        receipt = decode_receipt(datum)
        match receipt:
            case TransactionReceipt():
                facts.receipts[receipt.partition, receipt.offset] += 1
                if receipt.nonce_consumed:
                    facts.nonces[receipt.sender, receipt.nonce] += 1
            case BundleReceipt():
                facts.executed[receipt.source, shard, receipt.sequence] += 1


def _judge_records(log: EventLog, chain: Chain, facts: _Facts, *, finished: bool) -> None:
    """Every consumed record has one receipt or one dead letter, and no other record has any."""
    answered = facts.receipts + Counter({(p, o): n for (t, p, o), n in facts.dead.items() if t == Topic.TRANSACTIONS})
    for shard in range(chain.genesis.shards):
        height = max((height for of, height in facts.blocks if of == shard), default=-1)
        _require(
            all((shard, below) in facts.blocks for below in range(height)),
            f"shard {shard}: a block below {height} is gone",
        )
        consumed = 0 if height < 0 else facts.blocks[shard, height].input(Topic.TRANSACTIONS).next
        for record in _records(log, Topic.TRANSACTIONS, shard):
            place = shard, record.offset
            wanted = 1 if record.offset < consumed else 0
            _require(answered.pop(place, 0) == wanted, f"record {place}: not {wanted} receipt")
            _require(wanted == 1 or not finished, f"record {place}: never executed")
    _require(not answered, f"receipts of records that are not there: {list(answered)[:3]}")
    twice = [(sender.hex()[:8], nonce) for (sender, nonce), count in facts.nonces.items() if count > 1]
    _require(not twice, f"nonces consumed twice: {twice[:3]}")


def _judge_bundles(facts: _Facts, *, finished: bool) -> None:
    """Every executed bundle was sent, and executed once."""
    twice = [place for place, count in facts.executed.items() if count > 1]
    _require(not twice, f"bundles executed twice: {twice[:3]}")
    unsent = facts.executed.keys() - facts.sent.keys()
    _require(not unsent, f"bundles executed and never sent: {sorted(unsent)[:3]}")
    if finished:
        waiting = facts.sent.keys() - facts.executed.keys()
        _require(not waiting, f"bundles never executed: {sorted(waiting)[:3]}")


def _judge_words(
    log: EventLog, chain: Chain, facts: _Facts, words: Words, new_verifier: Callable[[], Verifier]
) -> None:
    """What was told to be durable stands: records, and roots that still verify over the blocks they name."""
    values = {
        (shard, record.offset): record.value
        for shard in range(chain.genesis.shards)
        for record in _records(log, Topic.TRANSACTIONS, shard)
    }
    for ack in words.acks:
        value = values.get((ack.partition, ack.offset))
        _require(value is not None, f"record {ack} was acknowledged and is gone")
        _require(sha256(value or b"").hexdigest() == ack.sha256, f"record {ack} was acknowledged and is another now")
    verifier = new_verifier()
    client = LightClient(Trust.of(chain, Assurance.HEADERS), verifier)
    subscriber = StateRootSubscriber(log, client, range(chain.genesis.shards))
    standing = {seen_root(root) for root in subscriber.catch_up()}
    verifier.close()
    _require(not subscriber.refused, f"a root does not verify: {subscriber.refused[:1]}")
    for root in words.roots:
        _require(root in standing, f"a root that was verified is no more: {root}")
        found = facts.hashes.get((root.shard, root.height))
        _require(found == root.block_hash, f"the block of a verified root is {found} now: {root}")
