"""Records read and written by hand agree with the generic codec on every byte string."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.avro import NAMESPACE, codec
from pipeline.codec.types import Address, AssetId, ChainId, Hash32, TxId
from pipeline.codec.varint import NotCanonical, long_bytes, read_long
from pipeline.errors import PoisonRecord
from pipeline.ledger.codes import Code
from pipeline.ledger.packing import RELAY_ENTRY
from pipeline.ledger.receipts import ChannelUse, EntryFailure, TransactionReceipt, encode_receipt
from pipeline.ledger.relay import EffectKind, RelayGroup, decode_groups, encode_groups
from pipeline.ledger.transactions import (
    MAX_OPERATIONS,
    Burn,
    CreateAsset,
    DeleteData,
    Freeze,
    Mint,
    PutData,
    RotateKey,
    SignedTransaction,
    TransactionBody,
    Transfer,
)

ids = st.binary(min_size=32, max_size=32)
longs = st.integers(-(2**63), 2**63 - 1)
data = st.binary(max_size=90)
operations = st.one_of(
    st.builds(Transfer, ids.map(AssetId), st.binary(max_size=200), data),
    st.builds(CreateAsset, data, st.integers(-(2**31), 2**31 - 1)),
    st.builds(Mint, ids.map(AssetId), st.binary(max_size=200), data),
    st.builds(Burn, ids.map(AssetId), st.integers(0, 2**128 - 1)),
    st.builds(Freeze, ids.map(AssetId), ids.map(Address), st.booleans()),
    st.builds(RotateKey, st.integers(-(2**31), 2**31 - 1), data, data),
    st.builds(PutData, data, data),
    st.builds(DeleteData, data),
)
bodies = st.builds(
    TransactionBody,
    ids.map(ChainId),
    ids.map(Address),
    longs,
    st.lists(operations, max_size=5).map(tuple),
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


def generic_body(datum: bytes) -> bytes | None:
    """The datum where the generic codec takes it."""
    try:
        codec("TransactionBody").decode(datum)
    except PoisonRecord:
        return None
    return datum


def body_by_hand(datum: bytes) -> bytes | None:
    """The datum where the reader takes it, encoded anew by the generic codec."""
    try:
        return TransactionBody.from_bytes(datum).to_bytes()
    except PoisonRecord:
        return None


def generic_signed(datum: bytes) -> SignedTransaction | None:
    try:
        return SignedTransaction(**codec("SignedTransaction").decode(datum))
    except PoisonRecord:
        return None


def signed_by_hand(datum: bytes) -> SignedTransaction | None:
    try:
        return SignedTransaction.from_record(codec("SignedTransaction").frame(datum))
    except PoisonRecord:
        return None


@settings(max_examples=400)
@given(bodies, st.integers(0, 2**20), st.integers(0, 255))
def test_a_body_read_by_hand_is_what_the_generic_codec_reads(body: TransactionBody, at: int, byte: int) -> None:
    datum = body.to_bytes()
    assert TransactionBody.from_bytes(datum) == body
    for mutant in mutations(datum, at, byte):
        assert body_by_hand(mutant) == generic_body(mutant)


@given(records, st.integers(0, 2**20), st.integers(0, 255))
def test_a_signed_transaction_read_by_hand_is_what_the_generic_codec_reads(
    signed: SignedTransaction, at: int, byte: int
) -> None:
    datum = codec("SignedTransaction").unframe(signed.to_record())
    assert signed_by_hand(datum) == signed
    for mutant in mutations(datum, at, byte):
        assert signed_by_hand(mutant) == generic_signed(mutant)


def test_a_body_of_more_operations_than_an_entry_index_counts_is_refused_at_once() -> None:
    zero = bytes(32)
    most = TransactionBody(ChainId(zero), Address(zero), 0, (DeleteData(b""),) * MAX_OPERATIONS)
    assert TransactionBody.from_bytes(most.to_bytes()) == most
    one_more = most._replace(operations=(*most.operations, DeleteData(b"")))
    assert body_by_hand(one_more.to_bytes()) is None


@given(longs, st.binary(max_size=3))
def test_longs_round_trip_and_only_their_shortest_form_is_read(value: int, rest: bytes) -> None:
    encoded = long_bytes(value)
    assert read_long(encoded + rest, 0) == (value, len(encoded))
    padded = encoded[:-1] + bytes([encoded[-1] | 0x80]) + b"\x00"
    try:
        read_long(padded, 0)
    except NotCanonical:
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


def generic_groups(datum: bytes) -> bytes | None:
    """The datum where the generic codec takes it, and its groups are such as shards send."""
    try:
        groups = codec("RelayGroups").decode(datum)["groups"]
    except PoisonRecord:
        return None
    whole = [group["entries"] and not len(group["entries"]) % RELAY_ENTRY.size for group in groups]
    known = [0 <= group["kind"] <= max(EffectKind) for group in groups]
    return datum if groups and all(whole) and all(known) else None


def groups_by_hand(datum: bytes) -> bytes | None:
    """The datum where the reader takes it, encoded anew."""
    try:
        return encode_groups(decode_groups(datum))
    except PoisonRecord:
        return None


@given(
    st.lists(
        st.builds(
            RelayGroup,
            ids.map(TxId),
            ids,
            ids.map(AssetId),
            st.integers(-1, 5),
            st.binary(max_size=70),
            st.integers(0, 3).map(lambda count: bytes(count * RELAY_ENTRY.size)),
        ),
        max_size=3,
    ),
    st.integers(0, 2**20),
    st.integers(0, 255),
)
def test_groups_read_by_hand_are_what_the_generic_codec_reads(groups: list[RelayGroup], at: int, byte: int) -> None:
    datum = encode_groups(groups)
    for mutant in (datum, *mutations(datum, at, byte)):
        assert groups_by_hand(mutant) == generic_groups(mutant)


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
    value = receipt._asdict()
    value |= {"code": int(receipt.code), "fee": Hash32(receipt.fee.to_bytes(16, "big"))}
    value |= {"failures": failures, "channels": channels}
    assert encode_receipt(receipt) == codec("Receipt").encode({"outcome": (NAMESPACE + "TransactionReceipt", value)})
