"""Verifying many signatures: threads fill a memo, the engine asks the memo in its turn.

The memo only answers questions that were asked with exactly these bytes, so prefetching never changes a
result: the engine picks suite and key itself and verifies inline on a miss.

Threads beside a busy main thread starve (each release of the GIL costs a wait of the switch interval), so
`prefetch` keeps its caller waiting and gives every thread one list of jobs instead of one future a job.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, Protocol, TypeVar

from pipeline.crypto.suites import PrivateKey, SuiteSet

MEMO_BYTES: Final = 128 * 2**20
_JOB_OVERHEAD: Final = 400  # bytes of a tuple, five objects and a dict entry, so that tiny jobs count too

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


class VerifyJob(NamedTuple):
    """One question: does this signature hold?"""

    suite: int
    public_key: bytes
    message: bytes
    context: bytes
    signature: bytes


class Verifier(Protocol):
    """Answers `VerifyJob`s. Belongs to one driving thread."""

    def prefetch(self, jobs: Sequence[VerifyJob]) -> None:
        """Answer these ahead, as fast as the machine can; returns when all are answered."""

    def verify(self, job: VerifyJob) -> bool:
        """The answer. Never raises on hostile bytes."""

    def accepts_key(self, suite: int, public_key: bytes) -> bool:
        """Whether the suite is known and the key has its size."""

    def close(self) -> None:
        """Give threads back. Idempotent."""


class _Memo:
    """Job -> answer in two generations; the older is dropped whole, so eviction costs nothing per job.

    Keyed by the job itself: a bytes object keeps its hash, so the second look-up of the same objects costs
    0.4 µs, and equality compares bytes where hashes collide. Bounded by bytes, since hostile messages can be
    large.
    """

    __slots__ = ("_limit", "_old", "_size", "_young", "count")

    def __init__(self, max_bytes: int) -> None:
        self._limit = max_bytes // 2
        self.count = 0
        self._old: dict[VerifyJob, bool] = {}
        self._young: dict[VerifyJob, bool] = {}
        self._size = 0

    def get(self, job: VerifyJob) -> bool | None:
        answer = self._young.get(job)
        return self._old.get(job) if answer is None else answer

    def put(self, job: VerifyJob, answer: bool) -> None:
        self._size += len(job.public_key) + len(job.message) + len(job.signature) + _JOB_OVERHEAD
        if self._size > self._limit:
            self._old, self._young = self._young, {}
            self._size = 0
        self._young[job] = answer
        self.count += 1


class InlineVerifier:
    """Verifies in the calling thread and remembers."""

    def __init__(self, suites: SuiteSet, max_memo_bytes: int = MEMO_BYTES) -> None:
        """`max_memo_bytes` bounds what is remembered."""
        self._suites = suites
        self._memo = _Memo(max_memo_bytes)

    @property
    def verified(self) -> int:
        """How many signatures were checked, each counted once."""
        return self._memo.count

    def prefetch(self, jobs: Sequence[VerifyJob]) -> None:
        """Nothing: there is no other thread to do it, and `verify` would do the same work."""

    def verify(self, job: VerifyJob) -> bool:
        """From the memo, else inline."""
        answer = self._memo.get(job)
        if answer is None:
            answer = self._suites.verify(*job)
            self._memo.put(job, answer)
        return answer

    def accepts_key(self, suite: int, public_key: bytes) -> bool:
        """Whether the suite is known and the key has its size."""
        return self._suites.accepts_key(suite, public_key)

    def close(self) -> None:
        """Nothing to give back."""


class PoolVerifier(InlineVerifier):
    """Prefetches with threads; pays for suites whose verify releases the GIL (ML-DSA)."""

    def __init__(self, suites: SuiteSet, threads: int | None = None, max_memo_bytes: int = MEMO_BYTES) -> None:
        """`threads` defaults to the number of processors."""
        super().__init__(suites, max_memo_bytes)
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="verify")

    def prefetch(self, jobs: Sequence[VerifyJob]) -> None:
        """Verify all unknown jobs in the pool while this thread waits."""
        unknown = [job for job in dict.fromkeys(jobs) if self._memo.get(job) is None]
        for job, answer in zip(unknown, _spread(self._pool, self._threads, self._answer_all, unknown), strict=True):
            self._memo.put(job, answer)

    def close(self) -> None:
        """Stop the threads. `verify` still answers, `prefetch` no longer works."""
        self._pool.shutdown()

    def _answer_all(self, jobs: Sequence[VerifyJob]) -> list[bool]:
        verify = self._suites.verify
        return [verify(*job) for job in jobs]


def parallel_sign(jobs: Sequence[tuple[PrivateKey, bytes]], context: bytes, threads: int | None = None) -> list[bytes]:
    """Signatures of (key, message) pairs, in order, on all processors (or `threads`) while this thread waits.

    Pays for ML-DSA, whose signing releases the GIL. Raises `ConfigError` for a context over 255 bytes.
    """

    def sign_all(part: Sequence[tuple[PrivateKey, bytes]]) -> list[bytes]:
        return [key.sign(message, context) for key, message in part]

    threads = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(threads, thread_name_prefix="sign") as pool:
        return _spread(pool, threads, sign_all, jobs)


def _spread(
    pool: ThreadPoolExecutor,
    threads: int,
    work: Callable[[Sequence[_Job]], list[_Result]],
    jobs: Sequence[_Job],
) -> list[_Result]:
    """`work` over all jobs, in order.

    Threads take every n-th job, so that runs of dear ones are shared out.
    """
    parts = min(threads, len(jobs))
    if parts <= 1:
        return work(jobs)
    futures = [pool.submit(work, jobs[part::parts]) for part in range(parts)]
    columns = [future.result() for future in futures]
    return [columns[index % parts][index // parts] for index in range(len(jobs))]
