"""Verifiers: a memo must never change an answer, however it was filled; signing on all processors."""

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.crypto.suites import STANDARD_SUITES, SuiteSet
from pipeline.crypto.verifier import InlineVerifier, PoolVerifier, Verifier, VerifyJob, parallel_sign
from pipeline.errors import ConfigError
from pipeline.testing.suite import TEST_SUITES, DeterministicSuite

SEEDS = [bytes((i,)) * 32 for i in range(4)]


class CountingSuite(DeterministicSuite):
    """The deterministic suite, counting questions and the threads that asked."""

    __slots__ = ("asked", "threads")

    def __init__(self) -> None:
        self.asked: Counter[bytes] = Counter()
        self.threads: set[str] = set()

    def verify(self, public_key: bytes, message: bytes, context: bytes, signature: bytes) -> bool:
        self.asked[message] += 1
        self.threads.add(threading.current_thread().name)
        return super().verify(public_key, message, context, signature)


def job(message: bytes, good: bool = True, seed: bytes = SEEDS[0]) -> VerifyJob:
    key = DeterministicSuite().generate(seed)
    signature = key.sign(message if good else message + b"!", b"c")
    return VerifyJob(0xFF, key.public_key, message, b"c", signature)


@pytest.fixture(params=[InlineVerifier, PoolVerifier])
def verifier(request: pytest.FixtureRequest) -> Iterator[tuple[Verifier, CountingSuite]]:
    suite = CountingSuite()
    made = request.param(SuiteSet([suite]))
    yield made, suite
    made.close()


def test_answers_do_not_depend_on_prefetching(verifier: tuple[Verifier, CountingSuite]) -> None:
    made, _ = verifier
    jobs = [job(bytes((i,)), good=i % 3 != 0) for i in range(20)]
    made.prefetch(jobs[:10])
    assert [made.verify(j) for j in jobs] == [i % 3 != 0 for i in range(20)]
    assert made.verify(jobs[0]._replace(suite=1)) is False


def test_each_job_is_verified_once(verifier: tuple[Verifier, CountingSuite]) -> None:
    made, suite = verifier
    jobs = [job(bytes((i,)), good=i % 2 == 0) for i in range(9)]
    made.prefetch(jobs + jobs)
    made.prefetch(jobs)
    for _ in range(3):
        assert [made.verify(j) for j in jobs] == [i % 2 == 0 for i in range(9)]
    assert set(suite.asked.values()) == {1}


def test_a_memo_never_answers_for_other_bytes(verifier: tuple[Verifier, CountingSuite]) -> None:
    made, _ = verifier
    true = job(b"message")
    made.prefetch([true])
    assert made.verify(true)
    for other in (
        true._replace(suite=0x01),
        true._replace(public_key=job(b"", seed=SEEDS[1]).public_key),
        true._replace(message=b"messagf"),
        true._replace(message=b"messagec", context=b""),
        true._replace(context=b"d"),
        true._replace(signature=bytes(32)),
    ):
        assert made.verify(other) is False
    assert made.verify(true)


def test_closing_twice_is_fine_and_verify_still_answers(verifier: tuple[Verifier, CountingSuite]) -> None:
    made, _ = verifier
    made.close()
    made.close()
    assert made.verify(job(b"m"))
    assert not made.verify(job(b"m", good=False))


def test_key_sizes_are_those_of_the_suites(verifier: tuple[Verifier, CountingSuite]) -> None:
    made, suite = verifier
    assert made.accepts_key(0xFF, bytes(32))
    assert not made.accepts_key(0xFF, bytes(31))
    assert not made.accepts_key(0x01, bytes(1312))  # not in the set of this verifier
    assert suite.asked.total() == 0


def test_the_pool_works_in_its_threads_and_spreads() -> None:
    barrier = threading.Barrier(3, timeout=10)

    class Meeting(CountingSuite):
        def verify(self, public_key: bytes, message: bytes, context: bytes, signature: bytes) -> bool:
            barrier.wait()  # breaks unless three threads work at once
            return super().verify(public_key, message, context, signature)

    suite = Meeting()
    pool = PoolVerifier(SuiteSet([suite]), threads=3)
    pool.prefetch([job(bytes((i,))) for i in range(24)])
    pool.close()
    assert len(suite.threads) == 3
    assert all(name.startswith("verify") for name in suite.threads)


def test_an_exception_in_a_thread_reaches_the_caller() -> None:
    class Broken(DeterministicSuite):
        def verify(self, public_key: bytes, message: bytes, context: bytes, signature: bytes) -> bool:
            raise ConfigError("no ML-DSA here")

    pool = PoolVerifier(SuiteSet([Broken()]), threads=2)
    with pytest.raises(ConfigError, match="no ML-DSA here"):
        pool.prefetch([job(bytes((i,))) for i in range(8)])
    pool.close()


def test_a_few_are_not_worth_handing_over() -> None:
    suite = CountingSuite()
    pool = PoolVerifier(SuiteSet([suite]), threads=2)
    jobs = [job(bytes((i,)), good=i != 3) for i in range(7)]
    assert not pool.begin(jobs)
    pool.prefetch(jobs)
    assert [pool.verify(j) for j in jobs] == [i != 3 for i in range(7)]
    assert suite.threads == {threading.current_thread().name}
    assert set(suite.asked.values()) == {1}
    assert pool.begin(jobs)  # nothing is left to do
    assert pool.begin([])
    more = [job(b"%d" % i) for i in range(8)]
    assert pool.begin([*jobs, *more])
    pool.prefetch(more)
    assert set(suite.asked.values()) == {1}
    pool.close()


class HeldSuite(CountingSuite):
    """Answers nothing until it is let go."""

    __slots__ = ("go",)

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def verify(self, public_key: bytes, message: bytes, context: bytes, signature: bytes) -> bool:
        assert self.go.wait(20), "never let go"
        return super().verify(public_key, message, context, signature)


def test_what_was_begun_is_answered_beside_the_caller_and_once() -> None:
    suite = HeldSuite()
    pool = PoolVerifier(SuiteSet([suite]), threads=2)
    jobs = [job(bytes((i,)), good=i % 3 != 0) for i in range(40)]
    pool.begin(jobs)
    pool.begin(jobs[:10])
    assert suite.asked.total() == 0  # begin did not wait
    suite.go.set()
    pool.prefetch(jobs)
    assert [pool.verify(j) for j in jobs] == [i % 3 != 0 for i in range(40)]
    assert set(suite.asked.values()) == {1}
    assert threading.current_thread().name not in suite.threads
    pool.close()


def test_who_asks_for_what_was_begun_waits_for_it_alone() -> None:
    suite = HeldSuite()
    pool = PoolVerifier(SuiteSet([suite]), threads=1)
    jobs = [job(bytes((i,)), good=i % 3 != 0) for i in range(80)]
    pool.begin(jobs)
    threading.Timer(0.05, suite.go.set).start()
    assert pool.verify(jobs[70])
    assert list(suite.asked).index(jobs[70].message) < 16  # behind the chunk that was under way
    assert not pool.verify(jobs[69])
    assert [pool.verify(j) for j in jobs] == [i % 3 != 0 for i in range(80)]
    assert set(suite.asked.values()) == {1}
    assert threading.current_thread().name not in suite.threads
    pool.close()


def test_what_somebody_waits_for_goes_before_what_was_begun() -> None:
    suite = HeldSuite()
    pool = PoolVerifier(SuiteSet([suite]), threads=1)
    order: list[bytes] = []
    begun = [job(b"begun %d" % i) for i in range(64)]
    wanted = [job(b"wanted %d" % i) for i in range(8)]
    pool.begin(begun)
    threading.Timer(0.05, suite.go.set).start()
    pool.prefetch([*wanted, begun[60]])
    order = list(suite.asked)
    assert {j.message for j in wanted} <= set(order[:24])  # behind the chunk that was under way, and the one with 60
    assert b"begun 30" not in order[:24]
    pool.close()


def test_no_more_is_begun_than_the_memo_will_keep() -> None:
    suite = HeldSuite()
    pool = PoolVerifier(SuiteSet([suite]), threads=1, max_memo_bytes=100_000)
    batches = [[job(b"%d/%d" % (batch, i) + bytes(2_000)) for i in range(8)] for batch in range(10)]
    for batch in batches:
        pool.begin(batch)
    suite.go.set()
    for batch in batches:
        pool.prefetch(batch)
        assert all(pool.verify(j) for j in batch)
    assert sum(map(len, batches)) == suite.asked.total()
    pool.close()


def test_closing_leaves_what_was_begun_undone() -> None:
    suite = HeldSuite()
    pool = PoolVerifier(SuiteSet([suite]), threads=1)
    pool.begin([job(b"%d" % i) for i in range(800)])
    suite.go.set()
    pool.close()
    assert suite.asked.total() < 800
    assert pool.verify(job(b"7"))


def test_an_exception_in_what_was_begun_reaches_one_caller_only() -> None:
    class Broken(DeterministicSuite):
        def verify(self, public_key: bytes, message: bytes, context: bytes, signature: bytes) -> bool:
            if message == b"broken":
                raise ConfigError("no ML-DSA here")
            return super().verify(public_key, message, context, signature)

    pool = PoolVerifier(SuiteSet([Broken()]), threads=1)
    others = [job(bytes((i,))) for i in range(8)]
    pool.begin([job(b"broken"), *others[1:]])
    with pytest.raises(ConfigError, match="no ML-DSA here"):
        pool.prefetch([job(b"broken"), *others[1:], job(b"whole")])
    pool.prefetch([job(b"other %d" % i) for i in range(8)])
    assert pool.verify(job(b"whole"))
    pool.close()


@pytest.mark.parametrize("make", [InlineVerifier, PoolVerifier])
def test_the_memo_is_bounded_by_bytes(make: type[InlineVerifier]) -> None:
    suite = CountingSuite()
    made = make(SuiteSet([suite]), max_memo_bytes=20_000)
    jobs = [job(bytes((i,)) * 1000) for i in range(40)]
    made.prefetch(jobs)
    for j in jobs:
        assert made.verify(j)
    kept = [j for generation in (made._memo._young, made._memo._old) for j in generation]
    assert sum(len(j.message) for j in kept) <= 20_000
    assert len(kept) >= 6
    asked = suite.asked.total()
    assert made.verify(jobs[-1])
    assert suite.asked.total() == asked  # the newest are kept
    assert made.verify(jobs[0])
    assert suite.asked.total() == asked + 1  # the oldest were dropped
    made.close()


def test_a_job_larger_than_the_memo_is_still_answered() -> None:
    made = InlineVerifier(TEST_SUITES, max_memo_bytes=100)
    assert made.verify(job(b"x" * 5000))
    assert not made.verify(job(b"x" * 5000, good=False))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), max_size=40),
    st.integers(1, 4),
    st.integers(0, 4000),
)
def test_every_mixture_of_prefetch_and_verify_agrees_with_the_suite(
    steps: list[tuple[int, bool, bool]], threads: int, memo: int
) -> None:
    pool = PoolVerifier(TEST_SUITES, threads, max_memo_bytes=memo)
    waiting: list[VerifyJob] = []
    for message, good, prefetch in steps:
        j = job(bytes((message,)), good)
        waiting.append(j)
        if prefetch:
            pool.prefetch(waiting)
        assert pool.verify(j) is good
    pool.close()


def test_parallel_sign_keeps_the_order() -> None:
    keys = [DeterministicSuite().generate(seed) for seed in SEEDS]
    jobs = [(keys[i % 4], bytes((i,))) for i in range(23)]
    for threads in (None, 1, 2, 5, 50):
        assert parallel_sign(jobs, b"c", threads) == [key.sign(message, b"c") for key, message in jobs]
    assert parallel_sign([], b"c") == []
    with pytest.raises(ConfigError, match="256 bytes"):
        parallel_sign(jobs, b"c" * 256)


def test_real_signatures_through_the_pool() -> None:
    keys = [STANDARD_SUITES[suite_id].generate(SEEDS[0]) for suite_id in (1, 2, 3)]
    signatures = parallel_sign([(key, b"m") for key in keys], b"c", 2)
    jobs = [VerifyJob(k.suite_id, k.public_key, b"m", b"c", s) for k, s in zip(keys, signatures, strict=True)]
    bad = [j._replace(message=b"n") for j in jobs]
    pool = PoolVerifier(STANDARD_SUITES, 2)
    pool.prefetch(jobs + bad)
    assert [pool.verify(j) for j in jobs + bad] == [True] * 3 + [False] * 3
    pool.close()
