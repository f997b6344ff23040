"""Records of the protocol: round trips, hashes over bare datums, refusals of what does not hold together."""

from dataclasses import replace
from hashlib import sha256
from struct import error as StructError  # noqa: N812

import pytest

from pipeline.codec.avro import codec
from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import ZERO32, Address, AssetId, BlockHash, ChainId, Hash32, Height, ShardId, Slot, TxId
from pipeline.errors import ConfigError, Fatal, PoisonRecord
from pipeline.ledger.blocks import (
    BlockHeader,
    Counts,
    InputRange,
    SlotUpdate,
    block_hash,
    frame_header,
    input_range,
    input_root,
)
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import (
    Assurance,
    Checkpoint,
    CheckpointProposal,
    CheckpointSignature,
    SignedStateRoot,
    StateRoot,
    checkpoint_hash,
    heads_root,
    key_signatures,
)
from pipeline.ledger.codes import Code, DeadLetterReason
from pipeline.ledger.control import (
    Action,
    CollectFees,
    CreateShard,
    KeySignature,
    Quarantine,
    SetAttestors,
    SetProtocol,
    SetShardMap,
    SignedControl,
    control_hash,
    decode_action,
    encode_action,
    signers_of,
)
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.genesis import CHUNK_BYTES, GasSchedule, Genesis, Limits, SignerKey
from pipeline.ledger.leaves import Account, Asset, Balance, account_key, asset_key, balance_key, data_key, fees_key
from pipeline.ledger.packing import ChannelHead, pack_transfers, unpack_transfers
from pipeline.ledger.receipts import (
    BundleFailure,
    BundleReceipt,
    ChannelUse,
    ControlReceipt,
    DeadLetter,
    EntryFailure,
    Receipt,
    ReceiptChunk,
    TransactionReceipt,
    chunk_receipts,
    decode_receipt,
    encode_receipt,
)
from pipeline.ledger.relay import RelayBundle
from pipeline.ledger.shard_map import ShardMap
from pipeline.ledger.transactions import (
    Burn,
    CreateAsset,
    DeleteData,
    Freeze,
    Mint,
    Mode,
    Operation,
    PutData,
    RotateKey,
    SignedTransaction,
    TransactionBody,
    Transfer,
    asset_id_of,
    rotation_message,
    tx_id_of,
)
from pipeline.testing.naive_tree import naive_list_root

CHAIN = ChainId(b"\xc1" * 32)
ALICE, BOB = Address(b"\xa1" * 32), Address(b"\xb0" * 32)
ASSET = AssetId(b"\x05" * 32)
TX = TxId(b"\x77" * 32)
HASH = Hash32(b"\x44" * 32)

OPERATIONS: list[Operation] = [
    Transfer(ASSET, pack_transfers([(ALICE, 1), (BOB, 2**128 - 1)]), b"reference"),
    CreateAsset("UNIT €".encode(), 2),
    Mint(ASSET, pack_transfers([(BOB, 5)])),
    Burn(ASSET, 2**128 - 1),
    Freeze(ASSET, BOB, frozen=True),
    Freeze(ASSET, BOB, frozen=False),
    RotateKey(2, b"key", b"signature"),
    PutData(b"name", b"value"),
    DeleteData(b"name"),
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: type(o).__name__)
def test_every_operation_comes_back(operation: Operation) -> None:
    body = TransactionBody(CHAIN, ALICE, 3, (operation,), Mode.INDEPENDENT, 10, 2**128 - 1, 99)
    assert TransactionBody.from_bytes(body.to_bytes()) == body


def test_a_body_of_all_operations_comes_back_signed() -> None:
    body = TransactionBody(CHAIN, ALICE, 2**62, tuple(OPERATIONS))
    signed = SignedTransaction(body.to_bytes(), 0xFF, b"key", b"signature")
    again = SignedTransaction.from_record(signed.to_record())
    assert again == signed
    assert TransactionBody.from_bytes(again.body) == body
    assert again.tx_id == sha256(b"hauptbuch/transaction/v1\x00" + signed.body).digest()
    assert tx_id_of(signed.body) == again.tx_id


def test_an_amount_over_128_bits_does_not_encode() -> None:
    with pytest.raises(OverflowError):
        TransactionBody(CHAIN, ALICE, 0, (Burn(ASSET, 2**128),)).to_bytes()
    with pytest.raises(ValueError, match="not between"):
        pack_transfers([(ALICE, 2**128)])
    with pytest.raises(ValueError, match="not between"):
        pack_transfers([(ALICE, -1)])
    with pytest.raises(ValueError, match="32 bytes"):
        pack_transfers([(b"short", 1)])


def test_transfers_are_packed_wide() -> None:
    packed = pack_transfers([(ALICE, 1), (BOB, 258)])
    assert packed == ALICE + bytes(15) + b"\x01" + BOB + bytes(14) + b"\x01\x02"
    assert list(unpack_transfers(packed)) == [(ALICE, 1), (BOB, 258)]
    with pytest.raises(StructError):
        list(unpack_transfers(packed[:-1]))


def test_an_asset_lives_in_its_issuers_slot() -> None:
    for issuer in (ALICE, BOB, Address(b"\x12\x3f" + bytes(30))):
        digest = sha256(b"hauptbuch/asset/v1\x00" + issuer + b"UNIT").digest()
        expected = int.from_bytes(issuer) >> 244 << 244 | int.from_bytes(digest) & (1 << 244) - 1
        assert asset_id_of(issuer, b"UNIT") == expected.to_bytes(32, "big")


def test_a_rotation_is_signed_for_one_place() -> None:
    assert rotation_message(CHAIN, ALICE, 258) == CHAIN + ALICE + bytes(6) + b"\x01\x02"


def header() -> BlockHeader:
    records = (LogRecord(4, b"k", b"v"), LogRecord(9, None, None))
    return BlockHeader(
        1, CHAIN, ShardId(2), Height(3), 0, 1_000, BlockHash(HASH),
        tuple(input_range(TopicPartition(topic, 2), 4, 10, records) for topic in (Topic(0), Topic(1), Topic(2))),
        HASH, HASH, HASH,
        (SlotUpdate(Slot(0), HASH, 2**64 - 1), SlotUpdate(Slot(4095), ZERO32, 0)),
        (ChannelHead(1, 2, HASH),), (ChannelHead(3, 2**64 - 1, HASH),),
        Counts(1, 2, 3, 4, 5, 6), 77,
    )  # fmt: skip


def test_a_header_comes_back() -> None:
    datum = header().to_bytes()
    assert BlockHeader.from_record(frame_header(datum)) == (header(), block_hash(datum))
    assert block_hash(datum) == sha256(b"hauptbuch/block/v1\x00" + datum).digest()
    assert header().input(Topic.RELAY).source == TopicPartition(Topic.RELAY, 2)


@pytest.mark.parametrize("field", ["slots", "channels_in", "channels_out"])
def test_a_header_with_ragged_entries_is_poison(field: str) -> None:
    value = codec("BlockHeader").decode(header().to_bytes())
    with pytest.raises(PoisonRecord, match="ragged"):
        BlockHeader.from_bytes(codec("BlockHeader").encode({**value, field: value[field] + b"\x00"}))


@pytest.mark.parametrize("topic", [-1, 3, 99])
def test_a_header_of_an_unknown_input_topic_is_poison(topic: int) -> None:
    ranges = (InputRange(topic, 0, 0, 0, 0, HASH),)
    with pytest.raises(PoisonRecord, match="input topic"):
        BlockHeader.from_bytes(replace(header(), inputs=ranges).to_bytes())


def test_input_leaves_tell_null_from_empty() -> None:
    def leaf(offset: int, key: bytes | None, value: bytes | None) -> bytes:
        parts = [b"\xff" * 4 if part is None else len(part).to_bytes(4, "big") + part for part in (key, value)]
        return offset.to_bytes(8, "big") + b"".join(parts)

    shapes = [(1, None, None), (2, b"", b""), (3, b"key", None), (2**40, None, b"value")]
    records = [LogRecord(*shape) for shape in shapes]
    assert input_root(records) == naive_list_root([leaf(*shape) for shape in shapes])
    assert len({input_root([LogRecord(0, key, value)]) for key in (None, b"") for value in (None, b"")}) == 4


RECEIPTS: list[Receipt] = [
    TransactionReceipt(
        3, 9, TX, ALICE, 4, Code.PARTIAL, True, 5, 2**128 - 1,
        (EntryFailure(0, Code.FROZEN), EntryFailure(65_535, Code.NOT_FOUND)), (ChannelUse(1, 2**63),),
    ),
    TransactionReceipt(0, 0, TX, ALICE, -1, Code.LIMIT_EXCEEDED, False, 0, 0),
    BundleReceipt(1, 2, 3, 4, (BundleFailure(5, 6, Code.SLOT_NOT_OWNED),), (ChannelUse(7, 8), ChannelUse(9, 10))),
    ControlReceipt(1, 2, Code.NO_IDLE_PARTITION, (ChannelUse(1, 1),)),
]  # fmt: skip


@pytest.mark.parametrize("receipt", RECEIPTS, ids=lambda r: type(r).__name__)
def test_every_receipt_comes_back(receipt: Receipt) -> None:
    assert decode_receipt(encode_receipt(receipt)) == receipt


@pytest.mark.parametrize(
    "change", [{"code": 10}, {"failures": b"\x00\x00\x0a"}, {"failures": b"\x00"}, {"channels": b"x"}]
)
def test_a_receipt_that_says_nonsense_is_poison(change: dict[str, object]) -> None:
    name, value = codec("Receipt").decode(encode_receipt(RECEIPTS[0]))["outcome"]
    datum = codec("Receipt").encode({"outcome": (name, {**value, **change})})
    with pytest.raises(PoisonRecord):
        decode_receipt(datum)


def test_receipts_fill_chunks_that_fit() -> None:
    receipts = [bytes([i % 256]) * 40_000 for i in range(30)]
    chunks = list(chunk_receipts(CHAIN, 1, 2, receipts))
    assert [datum for chunk in chunks for datum in chunk.receipts] == receipts
    assert [chunk.first_index for chunk in chunks] == [0, 13, 26]
    assert all(len(chunk.to_record()) <= CHUNK_BYTES for chunk in chunks)
    assert [ReceiptChunk.from_record(chunk.to_record()) for chunk in chunks] == chunks
    assert list(chunk_receipts(CHAIN, 1, 2, [])) == []
    assert len(list(chunk_receipts(CHAIN, 1, 2, [bytes(2 * CHUNK_BYTES)] * 2))) == 2


@pytest.mark.parametrize("value", [None, b"", b"x" * 1_024, b"y" * 5_000])
def test_a_dead_letter_keeps_origin_length_hash_and_the_first_kilobyte(value: bytes | None) -> None:
    source = TopicPartition(Topic.RELAY, 3)
    letter = DeadLetter.of(
        CHAIN, 1, 2, source=source, record=LogRecord(8, b"k", value), reason=DeadLetterReason.FOREIGN
    )
    assert DeadLetter.from_record(letter.to_record()) == letter
    assert (letter.topic, letter.partition, letter.offset) == (Topic.RELAY, 3, 8)
    assert letter.length == (-1 if value is None else len(value))
    assert letter.sha256 == (ZERO32 if value is None else sha256(value).digest())
    assert letter.head == (value or b"")[:1_024]


def test_a_dead_letter_of_an_unknown_reason_is_poison() -> None:
    value = codec("DeadLetter").decode(codec("DeadLetter").unframe(dead_letter().to_record()))
    with pytest.raises(PoisonRecord, match="reason 9"):
        DeadLetter.from_record(codec("DeadLetter").frame(codec("DeadLetter").encode({**value, "reason": 9})))


def dead_letter() -> DeadLetter:
    source = TopicPartition(Topic.CONTROL, 0)
    return DeadLetter.of(
        CHAIN, 0, 0, source=source, record=LogRecord(1, None, b""), reason=DeadLetterReason.UNDECODABLE
    )


def test_a_bundle_comes_back() -> None:
    bundle = RelayBundle(CHAIN, ShardId(0), ShardId(999), 1, 2, 3, HASH, b"groups")
    assert RelayBundle.from_record(bundle.to_record()) == bundle


ACTIONS: list[Action] = [
    CreateShard(4),
    SetAttestors((SignerKey(1, b"key"), SignerKey(2, b"other")), 2),
    SetProtocol(2),
    CollectFees(ALICE),
    Quarantine(2, 3, 2**40, HASH),
    SetShardMap(1, bytes(8_192)),
]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda a: type(a).__name__)
def test_every_control_action_comes_back(action: Action) -> None:
    body = encode_action(1, action)
    assert decode_action(body) == (1, action)
    control = SignedControl(CHAIN, 1, Hash32(CHAIN), body, (KeySignature(HASH, 1, b"signature"),))
    decoded, datum = SignedControl.from_record(control.to_record())
    assert decoded == control
    assert datum == control.to_bytes()
    assert control_hash(datum) == sha256(b"hauptbuch/control/v1\x00" + datum).digest()
    assert datum.startswith(control.message())
    assert control.message() == replace(control, signatures=()).message()


def test_only_listed_signers_count() -> None:
    keys = (SignerKey(1, b"one"), SignerKey(2, b"two"))
    good = KeySignature(keys[0].key_id, 1, b"a")
    assert signers_of(keys, [good, KeySignature(HASH, 1, b"b")]) == [(keys[0], good)]
    assert signers_of(keys, [KeySignature(keys[0].key_id, 2, b"a")]) == []
    with pytest.raises(PoisonRecord, match="twice"):
        signers_of(keys, [good, replace(good, signature=b"c")])


def test_checkpoints_and_state_roots_come_back() -> None:
    checkpoint = Checkpoint(CHAIN, 0, Hash32(CHAIN), 5, 6, Assurance.EXECUTION, HASH, ZERO32)
    datum = checkpoint.to_bytes()
    assert Checkpoint.from_bytes(datum) == checkpoint
    assert checkpoint_hash(datum) == sha256(b"hauptbuch/checkpoint/v1\x00" + datum).digest()
    proposal = CheckpointProposal(datum, ((0, 5), (999, 2**63)))
    assert CheckpointProposal.from_record(proposal.to_record()) == proposal
    signature = CheckpointSignature(0, checkpoint_hash(datum), HASH, 2, b"signature")
    assert CheckpointSignature.from_record(signature.to_record()) == signature
    head = StateRoot(1, 2, BlockHash(HASH), HASH, 3, 1, BlockHash(ZERO32))
    assert StateRoot.from_bytes(head.to_bytes()) == head
    signed = SignedStateRoot(head.to_bytes(), 2, (HASH, ZERO32), datum, key_signatures([signature]))
    assert SignedStateRoot.from_record(signed.to_record()) == signed
    assert signed.signatures == (KeySignature(HASH, 2, b"signature"),)
    heads = [StateRoot(0), head]
    assert heads_root(heads) == naive_list_root([item.to_bytes() for item in heads])
    with pytest.raises(AssertionError):
        heads_root([head])


def test_checkpoints_that_do_not_hold_together_are_poison() -> None:
    checkpoint = Checkpoint(CHAIN, 0, HASH, 5, 6, Assurance.HEADERS, HASH, ZERO32)
    value = codec("Checkpoint").decode(checkpoint.to_bytes())
    with pytest.raises(PoisonRecord, match="assurance 2"):
        Checkpoint.from_bytes(codec("Checkpoint").encode({**value, "assurance": 2}))
    proposal = codec("CheckpointProposal")
    with pytest.raises(PoisonRecord, match="ragged"):
        CheckpointProposal.from_record(proposal.frame(proposal.encode({"checkpoint": b"", "advanced": b"x"})))
    root = codec("SignedStateRoot")
    value = root.decode(SignedStateRoot(b"", 1, (), b"", ()).to_bytes())
    with pytest.raises(PoisonRecord, match="ragged"):
        SignedStateRoot.from_bytes(root.encode({**value, "path": b"x"}))


def test_leaf_values_are_packed_wide() -> None:
    account = Account(258, 2, HASH)
    assert account.to_bytes() == bytes(6) + b"\x01\x02\x02" + HASH
    assert Account.from_bytes(account.to_bytes()) == account
    assert Account().to_bytes() == bytes(41)
    assert Balance(0, frozen=False).to_bytes() is None
    assert Balance.from_bytes(None) == Balance(0, frozen=False)
    for balance in (Balance(0, frozen=True), Balance(2**128 - 1, frozen=False), Balance(7, frozen=True)):
        value = balance.to_bytes()
        assert value == balance.amount.to_bytes(16, "big") + bytes([balance.frozen])
        assert Balance.from_bytes(value) == balance
    asset = Asset(ALICE, b"UNIT", 2, 2**128 - 1, 3)
    assert asset.to_bytes() == ALICE + b"\x02" + b"\xff" * 16 + bytes(15) + b"\x03UNIT"
    assert Asset.from_bytes(asset.to_bytes()) == asset


def test_damaged_leaves_are_fatal() -> None:
    for read in (Account.from_bytes, Balance.from_bytes, Asset.from_bytes):
        with pytest.raises(Fatal, match="restore the state store"):
            read(b"short")


def test_state_keys() -> None:
    assert account_key(ALICE) == b"account/" + ALICE
    assert balance_key(ALICE, ASSET) == b"balance/" + ALICE + b"/" + ASSET
    assert asset_key(ASSET) == b"asset/" + ASSET
    assert data_key(ALICE, b"a/b") == b"data/" + ALICE + b"/a/b"
    assert fees_key(Slot(258)) == b"fees/\x01\x02"


KEYS = (SignerKey(2, b"one"), SignerKey(2, b"two"))
MANY = tuple(SignerKey(2, bytes([number >> 8, number & 255])) for number in range(257))
GENESIS = Genesis(HASH, "test", 0, 2, 8, KEYS, 1, KEYS, 2, ASSET, ALICE)


def test_genesis_comes_back() -> None:
    other = replace(GENESIS, name="Gießen", predecessor=b"checkpoint", gas=GasSchedule(min_price=2**128 - 1))
    for genesis in (GENESIS, other):
        assert Genesis.from_record(genesis.to_record()) == genesis
        assert genesis.chain_id == sha256(b"hauptbuch/genesis/v1\x00" + genesis.to_bytes()).digest()
    assert GENESIS.chain_id != other.chain_id


@pytest.mark.parametrize(
    ("genesis", "complaint"),
    [
        (replace(GENESIS, protocol=2), "protocol 2"),
        (replace(GENESIS, shards=0), "0 shards"),
        (replace(GENESIS, shards=9), "9 shards"),
        (replace(GENESIS, partitions=1_001), "1001 partitions"),
        (replace(GENESIS, name="x" * 65), "64 bytes"),
        (replace(GENESIS, attestor_threshold=3), "attestor threshold 3"),
        (replace(GENESIS, attestors=()), "attestor threshold 1"),
        (replace(GENESIS, operator_threshold=0), "operator threshold 0"),
        (replace(GENESIS, operators=(KEYS[0], KEYS[0])), "same key"),
        (replace(GENESIS, operators=(SignerKey(256, b""), KEYS[0])), "no valid suite"),
        (replace(GENESIS, operators=(SignerKey(-1, b""), KEYS[0])), "no valid suite"),
        (replace(GENESIS, limits=Limits(entries=0)), "not positive"),
        (replace(GENESIS, attestors=MANY[:130], attestor_threshold=128), "max.message.bytes"),
        (replace(GENESIS, attestors=MANY), "257 attestors"),
        (replace(GENESIS, limits=Limits(reference_bytes=4_097)), "at most 4096 bytes"),
        (replace(GENESIS, limits=Limits(symbol_bytes=4_097)), "at most 4096 bytes"),
        (replace(GENESIS, limits=Limits(data_name_bytes=4_097)), "at most 4096 bytes"),
        (
            replace(GENESIS, limits=Limits(record_bytes=9, block_bytes=2**31 - 1, message_bytes=560_000)),
            "max.message.bytes",
        ),
        (replace(GENESIS, limits=Limits(data_value_bytes=1_040_000)), "lower data_value_bytes"),
        (
            replace(GENESIS, limits=Limits(message_bytes=4_000_000), attestors=MANY[:130], attestor_threshold=126),
            "or the attestor threshold",
        ),
        (replace(GENESIS, limits=Limits(entries=65_536)), "entry index"),
        (replace(GENESIS, limits=Limits(operations=101, entries=100)), "more operations"),
        (replace(GENESIS, limits=Limits(block_gas=10**9)), "the dearest transaction"),
        (replace(GENESIS, limits=Limits(message_bytes=600_000)), "max.message.bytes"),
        (replace(GENESIS, limits=Limits(block_bytes=599_999)), "does not fit a block"),
        (replace(GENESIS, gas=GasSchedule(leaf=-1)), "negative"),
        (replace(GENESIS, gas=GasSchedule(further_divisor=0)), "further_divisor"),
        (replace(GENESIS, max_clock_step_ms=0), "clock"),
        (replace(GENESIS, created_ms=-1), "created_ms"),
    ],
)
def test_a_genesis_that_could_stop_for_ever_is_refused(genesis: Genesis, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        genesis.validate()


def test_a_genesis_whose_name_is_no_text_is_refused() -> None:
    value = codec("Genesis").decode(GENESIS.to_bytes())
    with pytest.raises(ConfigError, match="UTF-8"):
        Genesis.from_bytes(codec("Genesis").encode({**value, "name": b"\xff"}))


def test_slots_are_shared_out_in_order() -> None:
    for shards in (1, 3, 7, 1_000):
        owners = ShardMap.initial(shards).owners
        assert list(owners) == [slot * shards // 4_096 for slot in range(4_096)]
        assert set(owners) == set(range(shards))
    shard_map = ShardMap.initial(4)
    assert shard_map.slots_of(1) == frozenset(range(1_024, 2_048))
    assert shard_map.owner_of(b"\x3f\xff" + bytes(30)) == 0
    assert shard_map.owner_of(b"\x40\x00" + bytes(30)) == 1


def test_topic_names() -> None:
    assert [topic.topic_name for topic in Topic][3:6] == ["blocks", "receipts", "dead-letters"]


def test_a_cursor_comes_back_and_a_damaged_one_is_fatal() -> None:
    chain = Chain.of(GENESIS)
    start = ShardCursor.start(chain, 1)
    used = replace(
        start,
        height=Height(5),
        positions=(1, 2, 3),
        channels_in={0: ChannelHead(0, 9, HASH)},
        control=replace(start.control, quarantine=frozenset([(2, 0, 7, bytes(HASH)), (1, 0, 7, bytes(HASH))])),
    )
    for cursor in (start, used):
        assert ShardCursor.from_bytes(cursor.to_bytes()) == cursor
    for raw in (b"", b"{}", used.to_bytes()[:-1], used.to_bytes().replace(b"[1, 2, 3]", b"[1, 2]")):
        with pytest.raises(Fatal, match="cursor is damaged"):
            ShardCursor.from_bytes(raw)


def test_a_value_that_does_not_fit_its_schema_is_a_value_error() -> None:
    for value in ({}, {"body": 1, "suite": 1, "public_key": None, "signature": b""}):
        with pytest.raises(ValueError, match=r"SignedTransaction|signature|body"):
            codec("SignedTransaction").encode(value)


def test_a_schema_that_is_not_there_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"Nothing\.avsc can't be used"):
        codec("Nothing")
