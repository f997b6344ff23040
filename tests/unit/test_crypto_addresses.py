"""Addresses: BIP-350 vectors, strictness, and what a hash of a key covers."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec.types import Address, tagged_hash
from pipeline.crypto import bech32m
from pipeline.crypto.addresses import address_of, format_address, key_hash, key_id, parse_address
from pipeline.errors import ConfigError

# "Test vectors for Bech32m" of BIP-350, all of them.
VALID = [
    "A1LQFN3A",
    "a1lqfn3a",
    "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
    "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
    "11llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllludsr8",
    "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    "?1v759aa",
]
INVALID = {
    "\x201xj0phk": "not ASCII",
    "\x7f1g6xzxy": "not ASCII",
    "\x801vctc34": "not ASCII",
    "an84characterslonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11d6pts4": "longer",
    "qyrz8wqd2c9m": "no prefix",
    "1qyrz8wqd2c9m": "no prefix",
    "y1b0jsk6g": "does not occur",
    "lt1igcx5c0": "does not occur",
    "in1muywd": "too short",
    "mm1crxm3i": "does not occur",
    "au1s5cgom": "does not occur",
    "M1VUXWEZ": "checksum",
    "16plkw9": "no prefix",
    "1p2gdwpf": "no prefix",
}
# The witness program of BIP-350's "Test vectors for v0-v16 native segregated witness addresses", version 1.
SEGWIT_V1 = "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"
SEGWIT_V1_PROGRAM = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"


@pytest.mark.parametrize("text", VALID)
def test_bip350_valid(text: str) -> None:
    prefix, groups = bech32m.decode_groups(text)
    assert bech32m.encode_groups(prefix, groups) == text.lower()


@pytest.mark.parametrize(("text", "why"), INVALID.items())
def test_bip350_invalid(text: str, why: str) -> None:
    with pytest.raises(bech32m.Bech32Error, match=why):
        bech32m.decode_groups(text)


def test_bip350_witness_program() -> None:
    prefix, groups = bech32m.decode_groups(SEGWIT_V1)
    assert (prefix, groups[0]) == ("bc", 1)
    as_bytes = bech32m.encode("bc", bytes.fromhex(SEGWIT_V1_PROGRAM))
    assert bech32m.decode_groups(as_bytes)[1] == groups[1:]


@given(st.binary(max_size=48), st.sampled_from(["hb", "a", "1", "x1y"]))
def test_bytes_come_back(data: bytes, prefix: str) -> None:
    text = bech32m.encode(prefix, data)
    assert bech32m.decode(text) == (prefix, data)
    assert bech32m.decode(text.upper()) == (prefix, data)


@given(st.integers(0, 2**5 - 1), st.integers(1, 8))
def test_padding_must_be_zero_and_short(last: int, groups: int) -> None:
    text = bech32m.encode_groups("hb", [0] * (groups - 1) + [last])
    pad = groups * 5 % 8
    if pad > 4 or last & (1 << pad) - 1:
        with pytest.raises(bech32m.Bech32Error, match="last character"):
            bech32m.decode(text)
    else:
        assert bech32m.encode("hb", bech32m.decode(text)[1]) == text


@given(st.binary(min_size=32, max_size=32))
def test_address_text_comes_back(raw: bytes) -> None:
    text = format_address(Address(raw))
    assert len(text) == 61
    assert text.startswith("hb1")
    assert parse_address(text) == raw == parse_address(text.upper())


@given(st.binary(min_size=32, max_size=32), st.data())
def test_up_to_four_wrong_characters_are_caught(raw: bytes, data: st.DataObject) -> None:
    text = format_address(Address(raw))
    places = data.draw(st.sets(st.integers(3, 60), min_size=1, max_size=4))
    changed = list(text)
    for place in places:
        changed[place] = data.draw(st.sampled_from([c for c in bech32m.ALPHABET if c != text[place]]))
    with pytest.raises(ConfigError, match="checksum"):
        parse_address("".join(changed))


ADDRESS = format_address(Address(bytes(range(32))))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no prefix"),
        (ADDRESS[:10] + ADDRESS[10:].upper(), "mixes"),
        (ADDRESS[:-1], "checksum"),
        (" " + ADDRESS, "blank"),
        (bech32m.encode("bc", bytes(32)), "should begin with hb1"),
        (bech32m.encode("hb", bytes(31)), "31 bytes instead of 32"),
        ("x" * 100_000, "longer"),
        ("\u017f" + ADDRESS, "ASCII"),
    ],
)
def test_what_is_no_address_is_refused_in_one_line(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@given(st.text(max_size=100))
def test_any_text_is_an_address_or_a_config_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ConfigError:
        return
    assert format_address(address) == text.lower()


def test_a_bech32_checksum_is_not_a_bech32m_checksum() -> None:
    with pytest.raises(bech32m.Bech32Error, match="checksum"):
        bech32m.decode_groups("a12uel5l")  # valid in BIP-173


def test_address_and_key_hash_cover_suite_and_key() -> None:
    key = b"k" * 32
    assert address_of(1, key) == tagged_hash("address", b"\x01" + key)
    assert key_hash(1, key) == sha256(b"\x01" + key).digest() == key_id(1, key)
    assert len({address_of(1, key), address_of(2, key), key_hash(1, key), key_hash(2, key)}) == 4
