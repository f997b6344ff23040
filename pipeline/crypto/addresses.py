"""Addresses and key ids, and the text form of an address.

The text form is bech32m (BIP-350) with the prefix `hb`: a checksum that catches any four wrong characters,
one case only, no look-alikes. `hb1` and 58 characters: 52 of data, 6 of checksum.
"""

from hashlib import sha256
from typing import Final

from pipeline.codec.types import Address, Hash32, tagged_hash
from pipeline.crypto import bech32m
from pipeline.errors import ConfigError

ADDRESS_PREFIX: Final = "hb"
ADDRESS_BYTES: Final = 32


def address_of(suite_id: int, public_key: bytes) -> Address:
    """H(`address`, suite byte ‖ public key): 32 bytes."""
    return Address(tagged_hash("address", bytes((suite_id,)), public_key))


def key_hash(suite_id: int, public_key: bytes) -> Hash32:
    """SHA-256(suite byte ‖ public key), as accounts record it."""
    return Hash32(sha256(bytes((suite_id,)) + public_key).digest())


def key_id(suite_id: int, public_key: bytes) -> Hash32:
    """How checkpoints and control records name a signer: the key hash."""
    return key_hash(suite_id, public_key)


def format_address(address: Address) -> str:
    """Lower-case bech32m, 61 characters."""
    assert len(address) == ADDRESS_BYTES
    return bech32m.encode(ADDRESS_PREFIX, address)


def parse_address(text: str) -> Address:
    """The address of its text form, in lower or upper case. Raises `ConfigError`."""
    shown = text if len(text) <= 80 else text[:80] + "…"
    try:
        prefix, data = bech32m.decode(text)
    except bech32m.Bech32Error as error:
        raise ConfigError(f"{shown!r} is not an address: {error}; copy it again in full") from None
    if prefix != ADDRESS_PREFIX:
        raise ConfigError(f"{shown!r} is not an address of this ledger: it should begin with {ADDRESS_PREFIX}1")
    if len(data) != ADDRESS_BYTES:
        raise ConfigError(f"{shown!r} is not an address: {len(data)} bytes instead of {ADDRESS_BYTES}")
    return Address(data)
