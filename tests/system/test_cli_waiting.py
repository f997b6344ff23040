"""When a node can't come to an end: clocks, shards that wait, receipts that are none."""

from pathlib import Path

import pytest
from command_line import COLUMNS, CommandLine, write_csv

from pipeline.cli import init_command
from pipeline.cli.outcome import Outcome, outcome_of
from pipeline.cli.receipt_tally import ReceiptTally
from pipeline.client.receipts import ReceiptWatcher
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import ZERO32, Address, AssetId, ShardId, TxId
from pipeline.config import Config, load_config
from pipeline.errors import (
    InvalidTransactionResult,
    StateSynchronizationFailed,
    TaskDiverged,
    TransactionProcessingFailed,
)
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.codes import Code
from pipeline.ledger.packing import RELAY_ENTRY
from pipeline.ledger.receipts import (
    BundleFailure,
    BundleReceipt,
    ChannelUse,
    ControlReceipt,
    EntryFailure,
    Receipt,
    ReceiptChunk,
    TransactionReceipt,
    encode_receipt,
)
from pipeline.ledger.relay import EffectKind, RelayBundle, RelayGroup, channel_start, encode_groups
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import Append
from pipeline.node.node import Node, wall_clock_ms
from pipeline.node.settling import drive_until, finish, settle, waiting_transactions

HASTY = (
    "system.transaction_processing_timeout_s",
    "system.cross_shard_communication_timeout_s",
    "system.state_synchronization_timeout_s",
)


def hasty(**more: int) -> Config:
    return load_config(flags={**dict.fromkeys(HASTY, 1), **{key.replace("__", "."): n for key, n in more.items()}})


def bundle(chain_id: bytes, control_sequence: int) -> RelayBundle:
    group = RelayGroup(
        TxId(ZERO32),
        bytes(32),
        AssetId(ZERO32),
        EffectKind.CREDIT,
        b"",
        RELAY_ENTRY.pack(0, bytes(32), (1).to_bytes(16, "big")),
    )
    start = channel_start(chain_id, 1, 0)  # type: ignore[arg-type]
    return RelayBundle(chain_id, ShardId(1), ShardId(0), 0, control_sequence, 1, start, encode_groups([group]))  # type: ignore[arg-type]


def test_a_clock_that_was_set_back_leaves_blocks_unsigned(fresh: Path) -> None:
    node = Node.open(fresh, config=hasty(sync__round_linger_ms=60_000), clock_ms=lambda: wall_clock_ms() + 3_600_000)
    settle(node)
    node.close()
    node = Node.open(fresh, config=hasty())
    try:
        with pytest.raises(StateSynchronizationFailed, match="within 1 s; check this machine's clock"):
            finish(node)
    finally:
        node.close()


def test_an_effect_that_can_not_be_executed(fresh: Path) -> None:
    """It names a control record that nobody wrote."""
    node = Node.open(fresh, config=hasty())
    try:
        record = bundle(node.chain.chain_id, control_sequence=1).to_record()
        node.log.append([Append(TopicPartition(Topic.RELAY, 0), None, record)])
        with pytest.raises(TaskDiverged, match="under control record 1, but control ends at record 0"):
            settle(node)
    finally:
        node.close()


def test_receipts_that_are_late(fresh: Path) -> None:
    node = Node.open(fresh, config=hasty())
    try:
        assert waiting_transactions(node) == 0
        with pytest.raises(TransactionProcessingFailed, match="within 1 s"):
            drive_until(node, lambda: False)
    finally:
        node.close()


def test_a_clock_far_ahead_needs_a_word(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init_command, "wall_clock_ms", lambda: 1_000)
    cli.ok("init", tmp_path / "l", "--shards", 1)
    load = ("load", tmp_path / "l", write_csv(tmp_path / "p.csv", [("a", "b", 1)]), *COLUMNS)
    refused = cli(*load)
    assert refused.code == 2
    assert "--accept-time" in refused.error
    assert "receipts all OK" in cli.ok(*load, "--accept-time").out


# counting receipts


def receipt(offset: int, code: Code = Code.OK, **more: object) -> TransactionReceipt:
    fields = {"nonce_consumed": True, "gas_used": 1, "fee": 0, **more}
    return TransactionReceipt(0, offset, TxId(ZERO32), Address(bytes(32)), offset, code, **fields)  # type: ignore[arg-type]


def publish(log: EmbeddedLog, height: int, first: int, *receipts: Receipt, shard: int = 0) -> None:
    chunk = ReceiptChunk(bytes(32), shard, height, first, tuple(encode_receipt(item) for item in receipts))  # type: ignore[arg-type]
    log.append([Append(TopicPartition(Topic.RECEIPTS, shard), None, chunk.to_record())])


@pytest.fixture
def log() -> EmbeddedLog:
    made = EmbeddedLog(MemoryKeyValue())
    for topic in (Topic.RECEIPTS, Topic.RELAY):
        made.create_topic(topic, 2)
    return made


def test_tally_counts_each_receipt_once(log: EmbeddedLog) -> None:
    publish(log, 0, 0, receipt(0))
    tally = ReceiptTally.from_now(log, [0, -1])
    tally.poll()
    assert tally.transactions == 0
    publish(log, 0, 0, receipt(0))  # a recovered leader says it again
    publish(log, 1, 0, receipt(1), ControlReceipt(0, 0, Code.OK))
    publish(log, 1, 2, receipt(2, Code.EXPIRED))
    publish(log, 1, 2, receipt(2, Code.EXPIRED))
    publish(log, 0, 0, receipt(0), BundleReceipt(0, 0, 1, 5, (BundleFailure(0, 1, Code.FROZEN),)), shard=1)
    tally.poll()
    tally.poll()
    assert tally.codes == {Code.OK: 2, Code.EXPIRED: 1}
    assert tally.refused == 1
    assert [item.offset for item in tally.failed] == [2]
    assert not tally.all_ok


def test_tally_keeps_the_first_failures_only(log: EmbeddedLog) -> None:
    tally = ReceiptTally.from_now(log, [-1])
    publish(log, 0, 0, *[receipt(n, Code.FROZEN) for n in range(100)])
    tally.poll()
    assert tally.codes[Code.FROZEN] == 100
    assert len(tally.failed) == 20


def test_tally_refuses_what_is_no_receipt(log: EmbeddedLog) -> None:
    tally = ReceiptTally.from_now(log, [-1])
    log.append([Append(TopicPartition(Topic.RECEIPTS, 0), None, b"nonsense")])
    with pytest.raises(InvalidTransactionResult, match="receipts partition 0 offset 0"):
        tally.poll()


# words for outcomes


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome(receipt(0), (), True), "done"),
        (Outcome(receipt(0), (), False), "on its way to another shard"),
        (Outcome(receipt(0, Code.BAD_KEY, nonce_consumed=False), (), True), "rejected: BAD_KEY; nothing changed"),
        (Outcome(receipt(0, Code.EXPIRED), (), True), "failed: EXPIRED; nothing was moved, the nonce is used"),
        (
            Outcome(
                receipt(0, Code.PARTIAL, failures=tuple(EntryFailure(n, Code.FROZEN) for n in range(12))), (), True
            ),
            "partly done: " + ", ".join(f"entry {n} FROZEN" for n in range(10)) + " and 2 more failed",
        ),
        (
            Outcome(receipt(0), (EntryFailure(3, Code.FROZEN),), True),
            "refused by the receiver's shard and refunded: entry 3 FROZEN",
        ),
    ],
)
def test_verdicts(outcome: Outcome, words: str) -> None:
    assert outcome.verdict() == words
    assert outcome.is_ok is (words == "done")


@pytest.mark.parametrize("record", [None, b"nonsense", bundle(bytes(32), 0).to_record()])
def test_a_receipt_of_a_bundle_that_is_none(log: EmbeddedLog, record: bytes | None) -> None:
    """A refusal of a group that the bundle on the log does not have: the log was altered."""
    if record is not None:
        log.append([Append(TopicPartition(Topic.RELAY, 1), None, record)])
    sent = receipt(0, channels=(ChannelUse(1, 1),))
    publish(log, 0, 0, sent)
    publish(log, 0, 0, BundleReceipt(0, 0, 1, 5, (BundleFailure(7, 1, Code.FROZEN),)), shard=1)
    watcher = ReceiptWatcher(log, bytes(32), range(2))  # type: ignore[arg-type]
    watcher.poll()
    with pytest.raises(InvalidTransactionResult, match="relay partition 1 offset 0"):
        outcome_of(log, watcher, sent)
