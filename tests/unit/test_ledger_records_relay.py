"""Relay bundles: greedy chunks against a model that encodes after every entry."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.types import ZERO32, AssetId, ChainId, Hash32, ShardId, TxId
from pipeline.codec.varint import long_bytes
from pipeline.errors import PoisonRecord
from pipeline.ledger import relay
from pipeline.ledger.packing import RELAY_ENTRY
from pipeline.ledger.relay import (
    EffectKind,
    OpenGroup,
    RelayBundle,
    RelayGroup,
    bundle_head,
    channel_start,
    chunk_groups,
    decode_groups,
    encode_groups,
)

CHAIN = ChainId(b"\x01" * 32)


def start_bundle(sequence: int = 1) -> RelayBundle:
    return RelayBundle(CHAIN, ShardId(0), ShardId(1), 7, 3, sequence, channel_start(CHAIN, 0, 1), b"")


def open_group(number: int, owners: list[int], reference: bytes = b"") -> OpenGroup:
    """A group of one entry an owner; owners are ascending receipt indexes."""
    entries = [RELAY_ENTRY.pack(i, bytes([number]) * 32, bytes(16)) for i in range(len(owners))]
    runs = [(i, owner) for i, owner in enumerate(owners) if i == 0 or owners[i - 1] != owner]
    tx_id = TxId(Hash32(bytes([number]) * 32))
    return OpenGroup(tx_id, b"\x02" * 32, AssetId(b"\x03" * 32), EffectKind.CREDIT, reference, entries, runs)


def naive_chunks(groups: list[OpenGroup], start: RelayBundle, limit: int) -> list[tuple[RelayBundle, list[int]]]:
    """One entry at a time, encoding the whole bundle after each."""
    chunks: list[tuple[RelayBundle, list[int]]] = []
    packed: list[RelayGroup] = []
    owners: list[int] = []
    following, opened = start, -1

    def with_entry(number: int, group: OpenGroup, entry: bytes) -> list[RelayGroup]:
        if packed and opened == number:
            return [*packed[:-1], replace(packed[-1], entries=packed[-1].entries + entry)]
        fields = (group.tx_id, group.sender, group.asset, int(group.kind), group.reference)
        return [*packed, RelayGroup(*fields, entry)]

    for number, group in enumerate(groups):
        for index, entry in enumerate(group.entries):
            candidate = with_entry(number, group, entry)
            if len(replace(following, groups=encode_groups(candidate)).to_bytes()) > limit:
                bundle = replace(following, groups=encode_groups(packed))
                chunks.append((bundle, owners))
                head = bundle_head(bundle.to_bytes())
                following = replace(following, sequence=bundle.sequence + 1, previous_head=head)
                packed, owners, opened = [], [], -1
                candidate = with_entry(number, group, entry)
            packed, opened = candidate, number
            owner = [owner for first, owner in group.runs if first <= index][-1]
            owners = owners if owner in owners else [*owners, owner]
    if packed:
        chunks.append((replace(following, groups=encode_groups(packed)), owners))
    return chunks


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 64)), max_size=12),
    st.integers(420, 5_000),
    st.sampled_from([1, 63, 8_191, 2**40]),
)
def test_chunks_are_the_greedy_ones(shapes: list[tuple[list[int], int]], limit: int, sequence: int) -> None:
    owners_from, groups = 0, []
    for number, (owners, reference) in enumerate(shapes):
        groups.append(open_group(number, [owners_from + owner for owner in sorted(owners)], b"r" * reference))
        owners_from += 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relay, "CHUNK_BYTES", limit)
        chunks = [
            (bundle, list(dict.fromkeys(owners))) for bundle, owners in chunk_groups(groups, start_bundle(sequence))
        ]
    assert chunks == naive_chunks(groups, start_bundle(sequence), limit)
    assert all(len(bundle.to_bytes()) <= limit for bundle, _ in chunks)
    sent = b"".join(group.entries for bundle, _ in chunks for group in decode_groups(bundle.groups))
    assert sent == b"".join(entry for group in groups for entry in group.entries)


def test_a_full_chunk_reaches_the_real_limit() -> None:
    limit = relay.CHUNK_BYTES
    group = open_group(1, [0] * 21_000)
    sizes = [len(bundle.to_bytes()) for bundle, _ in chunk_groups([group], start_bundle())]
    assert len(sizes) == 3
    assert all(limit - RELAY_ENTRY.size < size <= limit for size in sizes[:2])


def test_chunks_are_numbered_and_chained() -> None:
    bundles = [bundle for bundle, _ in chunk_groups([open_group(1, [0] * 21_000)], start_bundle(5))]
    assert [bundle.sequence for bundle in bundles] == [5, 6, 7]
    assert [bundle.previous_head for bundle in bundles[1:]] == [bundle_head(b.to_bytes()) for b in bundles[:-1]]


def test_no_groups_no_bundles() -> None:
    assert list(chunk_groups([], start_bundle())) == []


@pytest.mark.parametrize("value", [0, 1, 63, 64, 8_191, 8_192, 2**20, 2**31, 2**62])
def test_long_bytes_has_the_length_of_a_varint(value: int) -> None:
    base = len(start_bundle(0).to_bytes())
    assert len(start_bundle(value).to_bytes()) - base + 1 == len(long_bytes(value))


GROUP = RelayGroup(TxId(ZERO32), bytes(32), AssetId(bytes(32)), EffectKind.CREDIT, b"", bytes(RELAY_ENTRY.size))


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param([], id="no groups"),
        pytest.param([replace(GROUP, kind=5)], id="unknown kind"),
        pytest.param([replace(GROUP, kind=-1)], id="negative kind"),
        pytest.param([GROUP, replace(GROUP, entries=b"")], id="no entries"),
        pytest.param([replace(GROUP, entries=bytes(51))], id="ragged entries"),
    ],
)
def test_groups_that_no_engine_writes_are_poison(groups: list[RelayGroup]) -> None:
    with pytest.raises(PoisonRecord):
        decode_groups(encode_groups(groups))
    assert decode_groups(encode_groups([GROUP])) == (GROUP,)
