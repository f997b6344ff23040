"""Bech32m: bytes as text with a checksum (BIP-350, on the alphabet and layout of BIP-173).

Text is prefix, `1`, then 5-bit groups, the last six of which are the checksum. Bytes pad with zero bits to
whole groups; on decoding, other padding is refused, so that every value has one lower-case form.
"""

from typing import Final

ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
MAX_CHARACTERS: Final = 90
CHECKSUM_CHARACTERS: Final = 6

_BECH32M: Final = 0x2BC830A3
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_VALUE: Final = {character: value for value, character in enumerate(ALPHABET)}


class Bech32Error(ValueError):
    """Text that is not bech32m; the message says why, without a full stop."""


def _polymod(values: list[int]) -> int:
    """The BCH code of BIP-173 over 5-bit groups."""
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate(_GENERATOR):
            if top >> bit & 1:
                check ^= term
    return check


def _expand(prefix: str) -> list[int]:
    """The prefix as the checksum sees it: high bits, 0, low bits."""
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def encode_groups(prefix: str, groups: list[int]) -> str:
    """Text of 5-bit groups under a lower-case prefix."""
    check = _polymod([*_expand(prefix), *groups, *([0] * CHECKSUM_CHARACTERS)]) ^ _BECH32M
    checksum = [check >> 5 * (CHECKSUM_CHARACTERS - 1 - i) & 31 for i in range(CHECKSUM_CHARACTERS)]
    return prefix + "1" + "".join(ALPHABET[group] for group in (*groups, *checksum))


def decode_groups(text: str) -> tuple[str, list[int]]:
    """Lower-case prefix and 5-bit groups. Raises `Bech32Error`."""
    if len(text) > MAX_CHARACTERS:
        raise Bech32Error(f"it is longer than {MAX_CHARACTERS} characters")
    if any(not 33 <= ord(character) <= 126 for character in text):
        raise Bech32Error("it holds a blank or a character that is not ASCII")
    if text.lower() != text and text.upper() != text:
        raise Bech32Error("it mixes upper and lower case")
    prefix, separator, data = text.lower().rpartition("1")
    if not separator or not prefix:
        raise Bech32Error("it has no prefix followed by the digit 1")
    if len(data) < CHECKSUM_CHARACTERS:
        raise Bech32Error("it is too short")
    wrong = next((character for character in data if character not in _VALUE), None)
    if wrong is not None:
        raise Bech32Error(f"the character {wrong!r} does not occur in addresses")
    groups = [_VALUE[character] for character in data]
    if _polymod(_expand(prefix) + groups) != _BECH32M:
        raise Bech32Error("its checksum does not fit, so a character is wrong or missing")
    return prefix, groups[:-CHECKSUM_CHARACTERS]


def encode(prefix: str, data: bytes) -> str:
    """Text of whole bytes."""
    pad = -len(data) * 8 % 5
    bits = int.from_bytes(data) << pad
    count = (len(data) * 8 + pad) // 5
    return encode_groups(prefix, [bits >> 5 * (count - 1 - i) & 31 for i in range(count)])


def decode(text: str) -> tuple[str, bytes]:
    """Lower-case prefix and bytes. Raises `Bech32Error`."""
    prefix, groups = decode_groups(text)
    pad = len(groups) * 5 % 8
    bits = 0
    for group in groups:
        bits = bits << 5 | group
    if pad > 4 or bits & (1 << pad) - 1:
        raise Bech32Error("its last character carries bits that belong to no byte")
    return prefix, (bits >> pad).to_bytes(len(groups) * 5 // 8)
