"""ML-DSA against an independent implementation, both ways, and both must refuse the same alterations."""

import hashlib
from typing import Any

import pytest
from pqcrypto.sign import ml_dsa_44, ml_dsa_65, ml_dsa_87

from pipeline.crypto.suites import STANDARD_SUITES, SuiteId

PAIRS = [(SuiteId.ML_DSA_44, ml_dsa_44), (SuiteId.ML_DSA_65, ml_dsa_65), (SuiteId.ML_DSA_87, ml_dsa_87)]
SIGNATURES = 100
LONGEST_CONTEXT = 253  # the other implementation refuses 254 and 255 bytes, which FIPS 204 allows


def message_and_context(index: int) -> tuple[bytes, bytes]:
    """Messages of 0 to 594 bytes, contexts from empty to the longest."""
    noise = hashlib.shake_256(index.to_bytes(2)).digest(600)
    return noise[: index * 6], noise[: index * LONGEST_CONTEXT // (SIGNATURES - 1)]


def other_accepts(other: Any, public_key: bytes, message: bytes, context: bytes, signature: bytes) -> bool:
    try:
        other.verify(public_key, message, signature, context)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("suite_id", "other"), PAIRS)
def test_ours_verify_there(suite_id: int, other: Any) -> None:
    suite = STANDARD_SUITES[suite_id]
    for index in range(SIGNATURES):
        key = suite.generate(hashlib.sha256(index.to_bytes(2)).digest())
        message, context = message_and_context(index)
        signature = key.sign(message, context)
        assert other_accepts(other, key.public_key, message, context, signature)
        assert not other_accepts(other, key.public_key, message + b"\0", context, signature)


# Theirs sign ten times slower than ours: the largest goes with the slow tests.
@pytest.mark.parametrize(("suite_id", "other"), [*PAIRS[:2], pytest.param(*PAIRS[2], marks=pytest.mark.slow)])
def test_theirs_verify_here(suite_id: int, other: Any) -> None:
    suite = STANDARD_SUITES[suite_id]
    for index in range(SIGNATURES):
        public_key, secret = other.keygen()
        message, context = message_and_context(index)
        signature = other.sign(secret, message, context)
        assert suite.verify(public_key, message, context, signature)
        assert not suite.verify(public_key, message + b"\0", context, signature)


@pytest.mark.parametrize(("suite_id", "other"), PAIRS)
def test_both_refuse_the_same_flipped_bits(suite_id: int, other: Any) -> None:
    suite = STANDARD_SUITES[suite_id]
    key = suite.generate(bytes(32))
    signature = key.sign(b"message", b"context")
    # The last bytes are the hint, whose encoding has rules of its own; the rest is sampled.
    for place in [*range(0, len(signature), 97), *range(len(signature) - 90, len(signature))]:
        flipped = bytearray(signature)
        flipped[place] ^= 1 << place % 8
        ours = suite.verify(key.public_key, b"message", b"context", bytes(flipped))
        assert ours is other_accepts(other, key.public_key, b"message", b"context", bytes(flipped)) is False
