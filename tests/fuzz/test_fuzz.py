"""No bytes from outside do anything but decode to themselves or raise the documented error, and soon.

`corpus/` holds valid samples of a real run and nasty cases; every example is one of them after a few mutations.
"""

import time
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.decoders import DECODERS, ENDS_AT_ITSELF, Decoder
from tests.fuzz.mutations import CORPUS, Case, corpus, huge, hurt, hurt_inputs

HUGE_BYTES = 600_000
SECONDS = 2.0  # with room for the measuring of coverage; what grows faster than its input takes longer than this
NAMES = sorted(DECODERS)
OF_MANY = {"csv", "outputs"}
"""Not one record but a list of any length: 1 µs a byte is what its shortest rows cost."""


def check(decoder: Decoder, raw: bytes) -> bool:
    """Whether it decodes; asserts all else. Processor time, since other work may have the machine."""
    start = time.process_time()
    message = ""
    try:
        again: bytes | None = decoder.again(raw)
    except decoder.errors as error:
        again, message = None, str(error)
    if time.process_time() - start >= SECONDS:  # once more: collecting the test's own garbage counts too
        start = time.process_time()
        with suppress(*decoder.errors):
            decoder.again(raw)
        assert time.process_time() - start < SECONDS
    if again is None:
        assert "\n" not in message
        assert len(message) < 2_000, "an error must not echo a hostile record"
    elif decoder.canonical:
        assert again == raw
    elif decoder.name in ENDS_AT_ITSELF:
        assert decoder.again(again) == again
    return again is not None


def test_every_decoder_has_a_corpus_and_every_corpus_a_decoder() -> None:
    assert {path.stem for path in CORPUS.glob("*.txt")} == DECODERS.keys()
    assert all(any(case.decodes for case in corpus(name)) for name in NAMES)


@pytest.mark.parametrize(
    "case", [case for name in NAMES for case in corpus(name)], ids=lambda case: f"{case[0]}-{case[1]}"
)
def test_the_kept_corpus_decodes_as_it_says(case: Case) -> None:
    assert check(DECODERS[case.decoder], case.raw) == case.decodes


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_hurt_bytes_decode_to_themselves_or_are_refused(name: str, data: st.DataObject) -> None:
    check(DECODERS[name], data.draw(hurt_inputs(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_very_many_hurt_bytes(name: str, data: st.DataObject) -> None:
    check(DECODERS[name], data.draw(hurt_inputs(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(raw=st.binary(max_size=300))
def test_noise(name: str, raw: bytes) -> None:
    check(DECODERS[name], raw)


@pytest.mark.parametrize("name", NAMES)
def test_huge_hostile_bytes_are_refused_soon(name: str) -> None:
    for raw in huge(name, HUGE_BYTES // 8 if name in OF_MANY else HUGE_BYTES).values():
        check(DECODERS[name], raw)


@pytest.mark.parametrize("how", ["flip", "set", "remove"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_altered_key_file_yields_the_same_key_or_none(how: str, data: st.DataObject) -> None:
    (sample,) = [case.raw for case in corpus("key") if case.decodes]
    decoder, numbers = DECODERS["key"], st.integers(0, 10**6)
    raw = hurt(sample, how, data.draw(numbers), data.draw(numbers), data.draw(st.binary(min_size=1, max_size=1)), 0)
    try:
        key = decoder.again(raw)
    except decoder.errors:
        return
    assert key == decoder.again(sample)
