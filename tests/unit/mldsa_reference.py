"""The public key of an expanded ML-DSA secret key, straight from FIPS 204; for vectors that give no public key.

Plain and slow: polynomials are lists of 256 integers modulo q, products go through the number-theoretic transform.
"""

from hashlib import shake_128, shake_256
from typing import Final, NamedTuple

Q: Final = 8380417
N: Final = 256
DROPPED_BITS: Final = 13


class Shape(NamedTuple):
    """Rows, columns and secret bound of FIPS 204 table 1."""

    k: int
    l: int  # noqa: E741 - the name in the standard
    eta: int


SHAPES: Final = {"ML-DSA-44": Shape(4, 4, 2), "ML-DSA-65": Shape(6, 5, 4), "ML-DSA-87": Shape(8, 7, 2)}


def _reversed_bits(value: int) -> int:
    return int(f"{value:08b}"[::-1], 2)


ZETAS: Final = [pow(1753, _reversed_bits(i), Q) for i in range(N)]


def ntt(polynomial: list[int]) -> list[int]:
    """Algorithm 41."""
    values, index, length = list(polynomial), 0, 128
    while length >= 1:
        for start in range(0, N, 2 * length):
            index += 1
            zeta = ZETAS[index]
            for j in range(start, start + length):
                term = zeta * values[j + length] % Q
                values[j + length] = (values[j] - term) % Q
                values[j] = (values[j] + term) % Q
        length //= 2
    return values


def inverse_ntt(transformed: list[int]) -> list[int]:
    """Algorithm 42."""
    values, index, length = list(transformed), N, 1
    while length < N:
        for start in range(0, N, 2 * length):
            index -= 1
            zeta = -ZETAS[index]
            for j in range(start, start + length):
                low, high = values[j], values[j + length]
                values[j] = (low + high) % Q
                values[j + length] = zeta * (low - high) % Q
        length *= 2
    scale = pow(N, -1, Q)
    return [value * scale % Q for value in values]


def matrix_entry(rho: bytes, row: int, column: int) -> list[int]:
    """Algorithms 30 and 32: one polynomial of the matrix, transformed already."""
    stream = shake_128(rho + bytes((column, row))).digest(3 * 400)  # 256 of 400 always suffice in the vectors
    values = [int.from_bytes(stream[i : i + 3], "little") & 0x7FFFFF for i in range(0, len(stream), 3)]
    return [value for value in values if value < Q][:N]


def unpack(data: bytes, bits: int, offset: int) -> list[list[int]]:
    """Algorithm 19 over whole polynomials: `offset` minus each little-endian group of `bits`."""
    number, mask = int.from_bytes(data, "little"), (1 << bits) - 1
    values = [offset - (number >> bits * i & mask) for i in range(len(data) * 8 // bits)]
    return [values[i : i + N] for i in range(0, len(values), N)]


def public_key_of(parameter_set: str, secret: bytes) -> bytes:
    """The matrix seed ‖ t1, t1 being the high bits of A s1 + s2 (algorithm 6 lines 3 to 8, algorithm 22)."""
    shape = SHAPES[parameter_set]
    bits = (2 * shape.eta).bit_length()
    size = N * bits // 8
    rho, body = secret[:32], secret[128:]
    first = [ntt(p) for p in unpack(body[: shape.l * size], bits, shape.eta)]
    second = unpack(body[shape.l * size : (shape.l + shape.k) * size], bits, shape.eta)
    packed = b""
    for row in range(shape.k):
        total = [0] * N
        for column in range(shape.l):
            entry = matrix_entry(rho, row, column)
            total = [(t + a * b) % Q for t, a, b in zip(total, entry, first[column], strict=True)]
        values = [(a + b) % Q for a, b in zip(inverse_ntt(total), second[row], strict=True)]
        high = [(value + (1 << DROPPED_BITS - 1) - 1) >> DROPPED_BITS for value in values]
        packed += sum(h << 10 * i for i, h in enumerate(high)).to_bytes(N * 10 // 8, "little")
    public_key = rho + packed
    assert shake_256(public_key).digest(64) == secret[64:128], "the secret key's own hash of its public key"
    return public_key


def representative(public_key: bytes, message: bytes) -> bytes:
    """µ of the internal interface: algorithm 8 line 6, where the message has no context and no framing."""
    return shake_256(shake_256(public_key).digest(64) + message).digest(64)
