"""Slots and leaf keys of state keys."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec.types import StateKey, slot_of_id
from pipeline.tree.keys import leaf_key_of, slot_of_key

ids = st.binary(min_size=32, max_size=32)


@given(ids, ids, st.binary(min_size=1, max_size=60), st.integers(0, 4095))
def test_slot_is_of_the_leading_id(first: bytes, second: bytes, name: bytes, slot: int) -> None:
    expected = slot_of_id(first)
    for key in (
        b"account/" + first,
        b"key/" + first,
        b"balance/" + first + b"/" + second,
        b"asset/" + first,
        b"data/" + first + b"/" + name,
    ):
        assert slot_of_key(StateKey(key)) == expected
    assert slot_of_key(StateKey(b"fees/" + slot.to_bytes(2))) == slot


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"account/",
        b"account/" + bytes(31),
        b"account/" + bytes(33),
        b"Account/" + bytes(32),
        b"key/" + bytes(31),
        b"balance/" + bytes(65),
        b"balance/" + bytes(32) + b"/" + bytes(31),
        b"balance/" + bytes(32) + b"/" + bytes(33),
        b"asset/" + bytes(33),
        b"data/" + bytes(32) + b"/",
        b"data/" + bytes(32) + b"?name",
        b"fees/\x10\x00",
        b"fees/\x00",
        b"fees/\x00\x00\x00",
        b"other/" + bytes(32),
    ],
)
def test_anything_else_is_not_a_state_key(key: bytes) -> None:
    with pytest.raises(ValueError, match="not a state key"):
        slot_of_key(StateKey(key))


def test_leaf_key_is_the_tagged_hash() -> None:
    key = b"account/" + bytes(range(32))
    assert leaf_key_of(StateKey(key)) == sha256(b"hauptbuch/state-key/v1\x00" + key).digest()
