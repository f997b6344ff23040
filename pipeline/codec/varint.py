"""Avro longs and length-prefixed bytes by hand, for the few records that are read or written once a transaction.

A reader takes the canonical form only, and refuses at the first byte that is not.
"""

_SMALL = tuple(bytes([value << 1]) for value in range(64))
_MAX_BYTES = 10


class NotCanonical(Exception):  # noqa: N818 - control flow of the readers, which turn it into a PoisonRecord
    """Re-encoding would give other bytes, or nothing can be decoded."""


def long_bytes(value: int) -> bytes:
    """A long of 64 bits: zigzag, then 7 bits a byte, least significant first."""
    if 0 <= value < 64:
        return _SMALL[value]
    rest = value << 1 ^ value >> 63
    if 0x7F < rest <= 0x3FFF:
        return bytes((rest & 0x7F | 0x80, rest >> 7))
    if 0x3FFF < rest <= 0x1FFFFF:
        return bytes((rest & 0x7F | 0x80, rest >> 7 & 0x7F | 0x80, rest >> 14))
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def prefixed(data: bytes) -> bytes:
    """The encoding of an Avro `bytes` value."""
    return long_bytes(len(data)) + data


def read_long(data: bytes, position: int) -> tuple[int, int]:
    """A minimal long and the position behind it. Raises `NotCanonical`, or `IndexError` at the end of the data."""
    byte = data[position]
    if byte < 0x80:
        return byte >> 1 ^ -(byte & 1), position + 1
    second = data[position + 1]
    if 0 < second < 0x80:
        value = byte & 0x7F | second << 7
        return value >> 1 ^ -(value & 1), position + 2
    value, shift, start = byte & 0x7F, 7, position
    while byte >= 0x80:
        position += 1
        if position - start >= _MAX_BYTES:
            # Not after the loop: an endless varint of a hostile record would grow a number of its own length.
            raise NotCanonical
        byte = data[position]
        value |= (byte & 0x7F) << shift
        shift += 7
    if not byte or value >> 64:
        raise NotCanonical
    return (value >> 1) ^ -(value & 1), position + 1


def read_int(data: bytes, position: int) -> tuple[int, int]:
    """A long that fits 32 bits."""
    value, position = read_long(data, position)
    if not -(2**31) <= value < 2**31:
        raise NotCanonical
    return value, position


def read_prefixed(data: bytes, position: int) -> tuple[bytes, int]:
    """An Avro `bytes` value and the position behind it."""
    byte = data[position]
    if byte < 0x80 and not byte & 1:  # up to 63 bytes: the common case, without a call
        length, position = byte >> 1, position + 1
    else:
        length, position = read_long(data, position)
    end = position + length
    if length < 0 or end > len(data):
        raise NotCanonical
    return data[position:end], end
