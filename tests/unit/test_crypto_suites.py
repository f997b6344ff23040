"""Suites: sizes, round trips, hostile bytes, the set, contexts; the deterministic suite."""

import hashlib

import pytest
from cryptography.hazmat.backends.openssl.backend import backend
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.crypto import contexts
from pipeline.crypto.mldsa import MlDsaSuite
from pipeline.crypto.slhdsa import SlhDsaSuite
from pipeline.crypto.suites import STANDARD_SUITES, PrivateKey, Suite, SuiteId, SuiteSet
from pipeline.errors import ConfigError
from pipeline.testing.suite import DETERMINISTIC_SUITE_ID, TEST_SUITES, DeterministicSuite

SEED = bytes(range(32))
ML_DSA = [SuiteId.ML_DSA_44, SuiteId.ML_DSA_65, SuiteId.ML_DSA_87]


@pytest.fixture(scope="module")
def keys() -> dict[int, PrivateKey]:
    """One key a suite; SLH-DSA has no seeds."""
    made = {suite_id: STANDARD_SUITES[suite_id].generate(SEED) for suite_id in ML_DSA}
    slow = STANDARD_SUITES[SuiteId.SLH_DSA_SHA2_128S].generate(None)
    fake = DeterministicSuite().generate(SEED)
    return {**made, slow.suite_id: slow, fake.suite_id: fake}


@pytest.fixture(scope="module")
def signatures(keys: dict[int, PrivateKey]) -> dict[int, bytes]:
    return {suite_id: key.sign(b"message", b"context") for suite_id, key in keys.items()}


@pytest.mark.parametrize("suite_id", list(TEST_SUITES))
def test_round_trip_and_sizes(suite_id: int, keys: dict[int, PrivateKey], signatures: dict[int, bytes]) -> None:
    suite, key, signature = TEST_SUITES[suite_id], keys[suite_id], signatures[suite_id]
    assert isinstance(suite, Suite)
    assert isinstance(key, PrivateKey)
    assert key.suite_id == suite.suite_id == suite_id
    assert len(key.public_key) == suite.public_key_bytes
    assert len(signature) == suite.signature_bytes
    assert suite.verify(key.public_key, b"message", b"context", signature)
    assert TEST_SUITES.verify(suite_id, key.public_key, b"message", b"context", signature)
    assert suite.load(key.secret).public_key == key.public_key


@pytest.mark.parametrize("suite_id", list(TEST_SUITES))
def test_what_differs_does_not_verify(suite_id: int, keys: dict[int, PrivateKey], signatures: dict[int, bytes]) -> None:
    verify, public_key, signature = TEST_SUITES[suite_id].verify, keys[suite_id].public_key, signatures[suite_id]
    flipped = bytes((signature[0] ^ 1,)) + signature[1:]
    for hostile in (
        (public_key, b"messagf", b"context", signature),
        (public_key, b"messagec", b"ontext", signature),
        (public_key, b"message", b"", signature),
        (public_key, b"message", b"c" * 256, signature),
        (public_key, b"message", b"context", flipped),
        (public_key, b"message", b"context", signature[:-1]),
        (public_key, b"message", b"context", signature + b"\0"),
        (public_key, b"message", b"context", b""),
        (public_key[:-1], b"message", b"context", signature),
        (public_key + b"\0", b"message", b"context", signature),
        (b"", b"message", b"context", signature),
        (b"\xff" * len(public_key), b"message", b"context", signature),
        (bytes(len(public_key)), b"message", b"context", bytes(len(signature))),
    ):
        assert verify(*hostile) is False


@pytest.mark.parametrize("suite_id", list(TEST_SUITES))
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_hostile_bytes_never_raise(suite_id: int, data: st.DataObject) -> None:
    suite = TEST_SUITES[suite_id]

    def hostile(size: int) -> st.SearchStrategy[bytes]:
        noise = st.integers(0, 2**32).map(lambda n: hashlib.shake_128(n.to_bytes(8)).digest(size))
        return st.one_of(noise, st.binary(max_size=64), st.just(bytes(size)), st.just(b"\xff" * size))

    public_key = data.draw(hostile(suite.public_key_bytes))
    signature = data.draw(hostile(suite.signature_bytes))
    message = data.draw(st.binary(max_size=64))
    context = data.draw(st.binary(max_size=300))
    assert suite.verify(public_key, message, context, signature) is False


@pytest.mark.parametrize("suite_id", list(TEST_SUITES))
def test_contexts_are_at_most_255_bytes(suite_id: int, keys: dict[int, PrivateKey]) -> None:
    with pytest.raises(ConfigError, match="256 bytes; use at most 255"):
        keys[suite_id].sign(b"message", b"c" * 256)


@pytest.mark.parametrize("suite_id", list(TEST_SUITES))
@pytest.mark.parametrize("context", [b"", b"c" * 255])
@pytest.mark.parametrize("message", [b"", b"m" * 100_000])
def test_shortest_and_longest(suite_id: int, context: bytes, message: bytes, keys: dict[int, PrivateKey]) -> None:
    key = keys[suite_id]
    signature = key.sign(message, context)
    assert TEST_SUITES[suite_id].verify(key.public_key, message, context, signature)
    assert not TEST_SUITES[suite_id].verify(key.public_key, message, context + b"c", signature)


@pytest.mark.parametrize("suite_id", list(TEST_SUITES))
def test_a_secret_never_shows(suite_id: int, keys: dict[int, PrivateKey]) -> None:
    key = keys[suite_id]
    for text in (repr(key), str(key), f"{key}"):
        assert repr(key.secret)[2:20] not in text
        assert key.secret.hex() not in text
        assert "secret" not in text


@pytest.mark.parametrize("suite_id", ML_DSA)
def test_seeds(suite_id: int) -> None:
    suite = STANDARD_SUITES[suite_id]
    assert suite.generate(SEED).public_key == suite.generate(SEED).public_key
    assert suite.generate(SEED).secret == SEED
    assert suite.generate(None).public_key != suite.generate(None).public_key
    for wrong in (b"", SEED[:-1], SEED + b"\0"):
        with pytest.raises(ConfigError, match="give 32 bytes"):
            suite.generate(wrong)


def test_slh_dsa_takes_no_seed_and_checks_its_secret() -> None:
    suite = SlhDsaSuite()
    with pytest.raises(ConfigError, match="can't make a key from a seed"):
        suite.generate(SEED)
    with pytest.raises(ConfigError, match="give 64 bytes"):
        suite.load(SEED)
    assert repr(suite) == "SlhDsaSuite(SLH-DSA-SHA2-128s)"


def test_signing_is_hedged(keys: dict[int, PrivateKey]) -> None:
    assert keys[1].sign(b"m", b"c") != keys[1].sign(b"m", b"c")


def test_a_build_without_ml_dsa_says_so_instead_of_answering_false(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = MlDsaSuite(SuiteId.ML_DSA_44)
    key = suite.generate(SEED)
    signature = key.sign(b"m", b"")
    monkeypatch.setattr(type(backend), "mldsa_supported", lambda _: False)
    with pytest.raises(ConfigError, match="has no ML-DSA"):
        suite.generate(SEED)
    with pytest.raises(ConfigError, match="has no ML-DSA"):
        suite.verify(key.public_key, b"m", b"", signature)


def test_parsed_keys_are_bounded_and_least_recent_go_first() -> None:
    suite = MlDsaSuite(SuiteId.ML_DSA_44, parsed_keys=2)
    for seed in (b"a", b"b", b"a", b"c", b"a"):
        key = suite.generate(seed * 32)
        assert suite.verify(key.public_key, b"m", b"", key.sign(b"m", b""))
    cache = suite._parse.cache_info()
    assert (cache.currsize, cache.hits, cache.misses) == (2, 2, 3)


def test_standard_suites() -> None:
    assert {int(i): STANDARD_SUITES[i].name for i in STANDARD_SUITES} == {
        0x01: "ML-DSA-44",
        0x02: "ML-DSA-65",
        0x03: "ML-DSA-87",
        0x11: "SLH-DSA-SHA2-128s",
    }
    assert DETERMINISTIC_SUITE_ID not in STANDARD_SUITES
    assert DETERMINISTIC_SUITE_ID not in list(SuiteId)
    assert repr(STANDARD_SUITES) == "SuiteSet(ML-DSA-44, ML-DSA-65, ML-DSA-87, SLH-DSA-SHA2-128s)"
    assert repr(STANDARD_SUITES[2]) == "MlDsaSuite(ML-DSA-65)"


def test_suite_set_is_an_immutable_mapping() -> None:
    empty = SuiteSet([])
    one = empty.with_suite(DeterministicSuite())
    assert (len(empty), len(one), list(one)) == (0, 1, [0xFF])
    assert one.require(0xFF).name == one.named("Deterministic-TEST").name
    with pytest.raises(ConfigError, match="two suites have the id 0xff"):
        one.with_suite(DeterministicSuite())
    with pytest.raises(ConfigError, match="no signature suite 0x01; use one of 0xff deterministic-test"):
        one.require(1)
    with pytest.raises(ConfigError, match="no signature suite 'RSA'"):
        one.named("RSA")
    with pytest.raises(TypeError):
        one[1] = DeterministicSuite()  # type: ignore[index]


@given(st.integers(-(2**70), 2**70).filter(lambda i: i not in TEST_SUITES))
def test_unknown_suites_verify_nothing(suite_id: int) -> None:
    assert TEST_SUITES.verify(suite_id, b"", b"", b"", b"") is False


@pytest.mark.parametrize("suite_id", list(TEST_SUITES))
def test_key_sizes(suite_id: int) -> None:
    size = TEST_SUITES[suite_id].public_key_bytes
    assert TEST_SUITES.accepts_key(suite_id, bytes(size))
    for other in (0, size - 1, size + 1):
        assert not TEST_SUITES.accepts_key(suite_id, bytes(other))
    assert not TEST_SUITES.accepts_key(0x55, bytes(size))


def test_context_strings() -> None:
    strings = [contexts.TRANSACTION, contexts.CHECKPOINT, contexts.CONTROL, contexts.ROTATION]
    assert [s.decode() for s in strings] == [
        f"hauptbuch/{name}/v1" for name in ("transaction", "checkpoint", "control", "rotation")
    ]
    assert all(len(s) <= contexts.MAX_CONTEXT_BYTES for s in strings)


def test_deterministic_suite_is_deterministic_and_wants_a_seed() -> None:
    suite = DeterministicSuite()
    key = suite.generate(SEED)
    assert key.sign(b"m", b"c") == suite.load(SEED).sign(b"m", b"c")
    assert key.public_key != suite.generate(b"x" * 32).public_key
    for wrong in (None, b"", SEED * 2):
        with pytest.raises(ConfigError, match="seed of 32 bytes"):
            suite.generate(wrong)
