"""Canonical bytes: whatever decodes encodes to the very same bytes, and nothing but `PoisonRecord` is ever raised."""

import time
from typing import Any

import pytest
from avro_values import INT, LONG, SCHEMAS, datums, mutated, values
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.avro import codec
from pipeline.errors import ConfigError, Fatal, PoisonRecord
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.checkpoints import Checkpoint, CheckpointProposal, CheckpointSignature, SignedStateRoot, StateRoot
from pipeline.ledger.control import SignedControl, decode_action, encode_action
from pipeline.ledger.genesis import Genesis
from pipeline.ledger.receipts import DeadLetter, ReceiptChunk, decode_receipt, encode_receipt
from pipeline.ledger.relay import RelayBundle, decode_groups, encode_groups
from pipeline.ledger.transactions import SignedTransaction, TransactionBody


def decode_or_none(name: str, datum: bytes) -> dict[str, Any] | None:
    try:
        return codec(name).decode(datum)
    except PoisonRecord:
        return None


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_every_value_comes_back(name: str, data: st.DataObject) -> None:
    value = data.draw(values(name))
    datum = codec(name).encode(value)
    assert codec(name).decode(datum) == value


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_hurt_datum_is_poison_or_another_canonical_one(name: str, data: st.DataObject) -> None:
    datum = data.draw(mutated(name))
    value = decode_or_none(name, datum)
    assert value is None or codec(name).encode(value) == datum


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_cut_or_longer_datum_is_poison(name: str, data: st.DataObject) -> None:
    datum = data.draw(datums(name))
    assert decode_or_none(name, datum + b"\x00") is None
    assert decode_or_none(name, datum + data.draw(st.binary(min_size=1, max_size=20))) is None
    assert decode_or_none(name, datum[: data.draw(st.integers(0, len(datum) - 1))]) is None


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_poison_or_canonical(name: str, noise: bytes) -> None:
    value = decode_or_none(name, noise)
    assert value is None or codec(name).encode(value) == noise


def varint(number: int) -> bytes:
    """The shortest zigzag varint of a number."""
    zigzag, out = (number << 1) ^ (number >> 63), bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes([*out, zigzag])


SIGNED = varint(3) + b"abc" + varint(1) + b"\x00" + varint(1) + b"s"
ROOT = b"\x07" * 32


@pytest.mark.parametrize(
    ("name", "datum"),
    [
        pytest.param("SignedTransaction", SIGNED + b"\x00", id="trailing byte"),
        pytest.param("SignedTransaction", b"\x86\x00abc" + SIGNED[4:], id="overlong length"),
        pytest.param("SignedTransaction", b"\x86" + b"\x80" * 8 + b"\x00abc" + SIGNED[4:], id="length of ten bytes"),
        pytest.param("SignedTransaction", b"\x86" + b"\x80" * 9 + b"\x02abc" + SIGNED[4:], id="length over 64 bits"),
        pytest.param("SignedTransaction", varint(-3) + b"abc" + SIGNED[4:], id="negative length"),
        pytest.param("SignedTransaction", varint(2**40) + b"abc" + SIGNED[4:], id="length far past the end"),
        pytest.param("SignedTransaction", varint(2**63 - 1) + b"abc" + SIGNED[4:], id="greatest length"),
        pytest.param("SignedTransaction", SIGNED[:5] + varint(-1) + SIGNED[6:], id="negative union index"),
        pytest.param("SignedTransaction", SIGNED[:5] + varint(2) + SIGNED[6:], id="union index past the end"),
        pytest.param("RelayGroups", b"", id="nothing"),
        pytest.param("RelayGroups", varint(-1) + varint(0) + b"\x00", id="block with a false size"),
        pytest.param("RelayGroups", b"\x00\x00", id="two ends of an array"),
        pytest.param("RelayGroups", varint(2**62), id="count far past the end"),
        pytest.param("RelayGroups", varint(-(2**63)), id="least count"),
        pytest.param("RelayGroups", b"\x80" * 10_000, id="endless varint"),
        pytest.param("ReceiptChunk", ROOT + b"\x00\x00\x00" + varint(-1) + varint(1) + b"\x00\x00", id="sized block"),
        pytest.param("ReceiptChunk", ROOT + b"\x00\x00\x00\x02\x00\x02\x00\x00", id="two blocks for one"),
    ],
)
def test_second_spellings_are_poison(name: str, datum: bytes) -> None:
    with pytest.raises(PoisonRecord):
        codec(name).decode(datum)


def test_the_plain_spelling_of_those_is_fine() -> None:
    value = {"body": b"abc", "suite": 1, "public_key": None, "signature": b"s"}
    assert codec("SignedTransaction").decode(SIGNED) == value
    assert codec("RelayGroups").decode(b"\x00") == {"groups": []}
    assert codec("ReceiptChunk").decode(ROOT + b"\x00\x00\x00\x04\x00\x00\x00")["receipts"] == [b"", b""]


@pytest.mark.parametrize("byte", [2, 3, 0x7F, 0x80, 0xFF])
def test_a_boolean_is_zero_or_one(byte: int) -> None:
    receipt = {
        "partition": 0, "offset": 0, "tx_id": ROOT, "sender": ROOT, "nonce": 0, "code": 0, "nonce_consumed": True,
        "gas_used": 0, "fee": bytes(16), "failures": b"", "channels": b"",
    }  # fmt: skip
    datum = codec("Receipt").encode({"outcome": ("hauptbuch.v1.TransactionReceipt", receipt)})
    at = 1 + 1 + 1 + 32 + 32 + 1 + 1
    assert datum[at] == 1
    with pytest.raises(PoisonRecord):
        codec("Receipt").decode(datum[:at] + bytes([byte]) + datum[at + 1 :])


@pytest.mark.parametrize("number", [INT[0] - 1, INT[1] + 1, LONG[0], LONG[1]])
def test_an_int_has_32_bits(number: int) -> None:
    """Readers in other languages refuse such a number, so it must not be a decodable record here."""
    with pytest.raises(PoisonRecord):
        codec("SignedTransaction").decode(SIGNED[:4] + varint(number) + SIGNED[5:])


def _bytes_of_header(datum: bytes) -> bytes:
    return BlockHeader.from_bytes(datum).to_bytes()


def _bytes_of_action(datum: bytes) -> bytes:
    return encode_action(*decode_action(datum))


def _bytes_of_record(kind: Any, name: str, datum: bytes) -> bytes:
    decoded = kind.from_record(codec(name).frame(datum))
    record = (decoded if isinstance(decoded, kind) else decoded[0]).to_record()
    return codec(name).unframe(record)


WHOLE = {
    "BlockHeader": _bytes_of_header,
    "Checkpoint": lambda datum: Checkpoint.from_bytes(datum).to_bytes(),
    "CheckpointProposal": lambda datum: _bytes_of_record(CheckpointProposal, "CheckpointProposal", datum),
    "CheckpointSignature": lambda datum: _bytes_of_record(CheckpointSignature, "CheckpointSignature", datum),
    "ControlBody": _bytes_of_action,
    "DeadLetter": lambda datum: _bytes_of_record(DeadLetter, "DeadLetter", datum),
    "Genesis": lambda datum: Genesis.from_bytes(datum).to_bytes(),
    "Receipt": lambda datum: encode_receipt(decode_receipt(datum)),
    "ReceiptChunk": lambda datum: _bytes_of_record(ReceiptChunk, "ReceiptChunk", datum),
    "RelayBundle": lambda datum: _bytes_of_record(RelayBundle, "RelayBundle", datum),
    "RelayGroups": lambda datum: encode_groups(decode_groups(datum)),
    "SignedControl": lambda datum: _bytes_of_record(SignedControl, "SignedControl", datum),
    "SignedStateRoot": lambda datum: _bytes_of_record(SignedStateRoot, "SignedStateRoot", datum),
    "SignedTransaction": lambda datum: _bytes_of_record(SignedTransaction, "SignedTransaction", datum),
    "StateRoot": lambda datum: StateRoot.from_bytes(datum).to_bytes(),
    "TransactionBody": lambda datum: TransactionBody.from_bytes(datum).to_bytes(),
}


@pytest.mark.parametrize("name", sorted(WHOLE))
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_records_above_the_codec_refuse_or_come_back(name: str, data: st.DataObject) -> None:
    """The dataclasses over each schema: any datum is refused in one line, or encodes to the same bytes again."""
    datum = data.draw(st.one_of(datums(name), mutated(name)))
    refusals = (PoisonRecord, ConfigError) if name == "Genesis" else PoisonRecord
    try:
        again = WHOLE[name](datum)
    except refusals:
        again = datum
    assert again == datum


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_hand_written_readers_decide_as_the_generic_codec_does(data: st.DataObject) -> None:
    """Transactions are read by hand where that is quicker; what is decodable, and as what, stays the same."""
    name, read = data.draw(
        st.sampled_from(
            [
                ("SignedTransaction", lambda datum: SignedTransaction.from_record(codec(name).frame(datum)).body),
                ("TransactionBody", lambda datum: TransactionBody.from_bytes(datum).to_bytes()),
            ]
        )
    )
    datum = data.draw(st.one_of(payments() if name == "TransactionBody" else datums(name), mutated(name)))
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(datum)))
        datum = datum[:at] + data.draw(st.binary(max_size=2)) + datum[at + data.draw(st.integers(0, 2)) :]
    value = decode_or_none(name, datum)
    if value is None:
        with pytest.raises(PoisonRecord):
            read(datum)
    else:
        assert read(datum) == (value["body"] if name == "SignedTransaction" else datum)


def payments() -> st.SearchStrategy[bytes]:
    """Bodies of transfers and mints alone."""

    def body(value: dict[str, Any]) -> bytes:
        kept = [item for item in value["operations"] if item[0].endswith((".Transfer", ".Mint"))]
        return codec("TransactionBody").encode({**value, "operations": kept})

    return values("TransactionBody").map(body)


def test_an_endless_varint_is_refused_at_once() -> None:
    """Not by building a number as long as the record, which takes minutes."""
    started = time.perf_counter()
    for name, read in (("SignedTransaction", SignedTransaction.from_record), ("TransactionBody", None)):
        hostile = b"\xff" * 600_000
        with pytest.raises(PoisonRecord):
            TransactionBody.from_bytes(hostile) if read is None else read(codec(name).frame(hostile))
    assert time.perf_counter() - started < 20


def test_want_of_memory_makes_no_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """One node would bury what the others execute."""

    def starved(*_: object, **__: object) -> None:
        raise MemoryError

    datum = StateRoot(3).to_bytes()
    monkeypatch.setattr("pipeline.codec.avro.schemaless_reader", starved)
    with pytest.raises(Fatal, match="no memory to decode a StateRoot"):
        codec("StateRoot").decode(datum)
