"""Records read and written by hand agree with the generic codec on every byte string."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec.avro import NAMESPACE, codec
from pipeline.codec.types import Address, AssetId, ChainId, Hash32, TxId
from pipeline.codec.varint import GiveUp, long_bytes, read_long
from pipeline.errors import PoisonRecord
from pipeline.ledger import transactions
from pipeline.ledger.codes import Code
from pipeline.ledger.receipts import ChannelUse, EntryFailure, TransactionReceipt, encode_receipt
from pipeline.ledger.relay import RelayGroup, encode_groups
from pipeline.ledger.transactions import CreateAsset, Mint, SignedTransaction, TransactionBody, Transfer

ids = st.binary(min_size=32, max_size=32)
longs = st.integers(-(2**63), 2**63 - 1)
payments = st.builds(Transfer, ids.map(AssetId), st.binary(max_size=200), st.binary(max_size=80)) | st.builds(
    Mint, ids.map(AssetId), st.binary(max_size=200), st.binary(max_size=80)
)
bodies = st.builds(
    TransactionBody,
    ids.map(ChainId),
    ids.map(Address),
    longs,
    st.lists(payments | st.builds(CreateAsset, st.binary(max_size=9), st.integers(0, 99)), max_size=5).map(tuple),
    st.integers(-3, 3),
    longs,
    st.integers(0, 2**128 - 1),
    st.none() | longs,
    st.integers(-(2**31), 2**31 - 1),
)
records = st.builds(
    SignedTransaction,
    st.binary(max_size=300),
    st.integers(-(2**31), 2**31 - 1),
    st.none() | ids,
    st.binary(max_size=90),
)


def mutations(datum: bytes, at: int, byte: int) -> list[bytes]:
    """The datum with a byte changed, inserted, cut off, and one too many."""
    at %= len(datum)
    return [
        datum[:at] + bytes([byte]) + datum[at + 1 :],
        datum[:at] + bytes([byte]) + datum[at:],
        datum[:at],
        datum + bytes([byte]),
    ]


def generic_body(datum: bytes) -> TransactionBody | None:
    try:
        return TransactionBody._generic(datum)
    except PoisonRecord:
        return None


def generic_signed(datum: bytes) -> SignedTransaction | None:
    try:
        return SignedTransaction(**codec("SignedTransaction").decode(datum))
    except PoisonRecord:
        return None


@given(bodies, st.integers(0, 2**20), st.integers(0, 255))
def test_a_body_read_by_hand_is_what_the_generic_codec_reads(body: TransactionBody, at: int, byte: int) -> None:
    datum = body.to_bytes()
    by_hand = transactions._read_payment_body(datum)
    payments_only = bool(body.operations) and all(isinstance(item, Transfer | Mint) for item in body.operations)
    assert by_hand == (body if payments_only else None)
    for mutant in mutations(datum, at, byte):
        read = transactions._read_payment_body(mutant)
        assert read is None or read == generic_body(mutant)


@given(records, st.integers(0, 2**20), st.integers(0, 255))
def test_a_signed_transaction_read_by_hand_is_what_the_generic_codec_reads(
    signed: SignedTransaction, at: int, byte: int
) -> None:
    datum = codec("SignedTransaction").unframe(signed.to_record())
    assert transactions._read_signed(datum) == signed
    for mutant in mutations(datum, at, byte):
        read = transactions._read_signed(mutant)
        assert read is None or read == generic_signed(mutant)


@given(longs, st.binary(max_size=3))
def test_longs_round_trip_and_only_their_shortest_form_is_read(value: int, rest: bytes) -> None:
    encoded = long_bytes(value)
    assert read_long(encoded + rest, 0) == (value, len(encoded))
    padded = encoded[:-1] + bytes([encoded[-1] | 0x80]) + b"\x00"
    try:
        read_long(padded, 0)
    except GiveUp:
        return
    raise AssertionError("an overlong varint was read")


@given(
    st.lists(
        st.builds(
            RelayGroup, ids.map(TxId), ids, ids.map(AssetId), st.integers(0, 4), st.binary(max_size=70), st.binary()
        ),
        max_size=4,
    )
)
def test_groups_written_by_hand_are_what_the_generic_codec_writes(groups: list[RelayGroup]) -> None:
    values = [{name: getattr(group, name) for name in RelayGroup.__slots__} for group in groups]
    assert encode_groups(groups) == codec("RelayGroups").encode({"groups": values})


@given(
    st.builds(
        TransactionReceipt,
        st.integers(0, 999),
        st.integers(0, 2**62),
        ids.map(TxId),
        ids.map(Address),
        longs,
        st.sampled_from(Code),
        st.booleans(),
        st.integers(0, 2**62),
        st.integers(0, 2**128 - 1),
        st.lists(st.builds(EntryFailure, st.integers(0, 65_535), st.sampled_from(Code)), max_size=3).map(tuple),
        st.lists(st.builds(ChannelUse, st.integers(0, 999), st.integers(1, 2**40)), max_size=3).map(tuple),
    )
)
def test_receipts_written_by_hand_are_what_the_generic_codec_writes(receipt: TransactionReceipt) -> None:
    failures = b"".join(entry.to_bytes(2, "big") + bytes([code]) for entry, code in receipt.failures)
    channels = b"".join(peer.to_bytes(2, "big") + number.to_bytes(8, "big") for peer, number in receipt.channels)
    value = {name: getattr(receipt, name) for name in receipt.__slots__}
    value |= {"code": int(receipt.code), "fee": Hash32(receipt.fee.to_bytes(16, "big"))}
    value |= {"failures": failures, "channels": channels}
    assert encode_receipt(receipt) == codec("Receipt").encode({"outcome": (NAMESPACE + "TransactionReceipt", value)})
