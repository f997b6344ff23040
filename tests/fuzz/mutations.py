"""Inputs that are nearly right: the kept corpus, and hypothesis strategies that hurt it."""

from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from hypothesis import strategies as st

CORPUS: Final = Path(__file__).parent / "corpus"


class Case(NamedTuple):
    """One kept input; `decodes` says whether it must."""

    decoder: str
    label: str
    decodes: bool
    raw: bytes


@cache
def corpus(decoder: str) -> tuple[Case, ...]:
    """The kept inputs of a decoder."""
    lines = (CORPUS / f"{decoder}.txt").read_text().splitlines()
    parts = [line.split(" ") for line in lines]
    return tuple([Case(decoder, label, verdict == "yes", bytes.fromhex(raw)) for label, verdict, raw in parts])


@cache
def everything() -> tuple[bytes, ...]:
    """All kept inputs of all decoders, for splices."""
    return tuple([case.raw for path in sorted(CORPUS.glob("*.txt")) for case in corpus(path.stem)])


def varint(number: int) -> bytes:
    """An Avro long."""
    rest, out = (number << 1) ^ (number >> 63), bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


LENGTHS: Final = (-1, 0, 1, 2, 63, 64, 2**15, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
HURTS: Final = ("flip", "set", "cut", "remove", "insert", "double", "splice", "length", "overlong", "tail")
_FEW: Final = st.binary(min_size=1, max_size=8)
_HURT: Final = st.tuples(
    st.sampled_from(HURTS), st.integers(0, 2**31), st.integers(0, 2**31), _FEW, st.sampled_from(LENGTHS)
)


def hurt(data: bytes, how: str, first: int, second: int, few: bytes, length: int) -> bytes:
    """One mutation; numbers are taken modulo what there is."""
    at = first % (len(data) + 1)
    end = min(len(data), at + 1 + second % 40)
    match how:
        case "cut":
            return data[:at]
        case "remove":
            return data[:at] + data[end:]
        case "insert":
            return data[:at] + few + data[at:]
        case "double":
            return data[:end] + data[at:]
        case "tail":
            return data + few
        case "splice":
            other = everything()[second % len(everything())]
            return data[:at] + other[first % (len(other) + 1) :][:4096]
        case "length":
            return data[:at] + varint(length) + data[at + 1 :]
    if at == len(data):
        return data
    match how:
        case "flip":
            new = bytes([data[at] ^ 1 << second % 8])
        case "set":
            new = few[:1]
        case _:
            new = bytes([data[at] | 0x80, *[0x80] * (second % 10), 0])
    return data[:at] + new + data[at + 1 :]


@st.composite
def hurt_inputs(draw: st.DrawFn, decoder: str) -> bytes:
    """A kept input of the decoder after one to four mutations."""
    data = draw(st.sampled_from(corpus(decoder))).raw
    for mutation in draw(st.lists(_HURT, min_size=1, max_size=4)):
        data = hurt(data, *mutation)
    return data


def huge(decoder: str, size: int) -> dict[str, bytes]:
    """Hostile inputs of `size` bytes: what makes a careless reader allocate, recurse or go quadratic."""
    sample = next(case for case in corpus(decoder) if case.decodes).raw
    head = sample[:10] if sample.startswith(b"\xc3\x01") else b""
    inputs = {
        "zeros": head + bytes(size),
        "ones": head + b"\xff" * size,
        "endless varint": head + b"\x80" * size,
        "small numbers": head + b"\x02" * size,
        "many empty items": head + varint(size // 2) + bytes(size),
        "sample, then zeros": sample + bytes(size),
        "sample, then a count": sample + varint(2**40) + bytes(size),
        "sample over and over": sample * (size // max(1, len(sample)) + 1),
        "half a sample, then twos": sample[: len(sample) // 2] + b"\x02" * size,
        "open brackets": b"[" * size,
        "digits": b"9" * size,
        "quotes": b'"' * size,
        "newlines": sample + b"\n" * size,
    }
    return {label: data[:size] for label, data in inputs.items()}
