"""Verifying many signatures: threads fill a memo, the engine asks the memo in its turn.

The memo only answers questions that were asked with exactly these bytes, so verifying ahead never changes a
result: the engine picks suite and key itself and verifies inline on a miss.

What is begun ahead costs the engine's thread little and no time to wait; only what is missing in its turn does. Threads
beside a busy main thread wait a switch interval of the interpreter whenever they need it, so whoever executes beside
them shortens that interval (`pipeline.node.driving`), and where much waits, threads hand batches over to processes.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Final, NamedTuple, Protocol, TypeVar

from pipeline.crypto.suites import STANDARD_SUITES, PrivateKey, SuiteSet
from pipeline.crypto.verifying_process import VerifyingProcess

MEMO_BYTES: Final = 128 * 2**20
_JOB_OVERHEAD: Final = 400  # bytes of a tuple, five objects and a dict entry, so that tiny jobs count too
FEW_JOBS: Final = 8  # what a thread takes at a time, 2 ms of ML-DSA-65; fewer are not handed over
_MANY_JOBS: Final = 512  # so many waiting start the processes: half of what one of them takes to start
_LARGE_CHUNK_JOBS: Final = 32  # taken where so many wait: a process's thread needs the interpreter every 8 ms

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

    def begin(self, jobs: Sequence[VerifyJob]) -> bool:
        """Start to answer these beside the caller, who will probably ask. Returns at once.

        False: not all of them, there is no room now or they are too few. Ask again later, perhaps with more.
        """

    def prefetch(self, jobs: Sequence[VerifyJob]) -> None:
        """Answer these ahead, as fast as the machine can; returns when all are answered."""

    def verify(self, job: VerifyJob) -> bool:
        """The answer; waits for it where it was begun. Never raises on hostile bytes."""

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
        self._size += _size_bytes(job)
        if self._size > self._limit:
            self._old, self._young = self._young, {}
            self._size = 0
        self._young[job] = answer
        self.count += 1


def _size_bytes(job: VerifyJob) -> int:
    return len(job.public_key) + len(job.message) + len(job.signature) + _JOB_OVERHEAD


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

    def begin(self, jobs: Sequence[VerifyJob]) -> bool:  # noqa: ARG002 - of any
        """Nothing: there is no other thread to do it."""
        return True

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


class _Answers:
    """What a thread finds, and a latch to wait for it.

    No `Future`, whose own code stays locked for ever where a signal raises in the middle of it: the pool's threads, and
    whoever closes the pool, would wait for that lock.
    """

    __slots__ = ("_error", "_found", "_latch")

    def __init__(self) -> None:
        self._found: list[bool] | None = None
        self._error: BaseException | None = None
        self._latch = Lock()
        self._latch.acquire()

    def found(self, answers: list[bool]) -> None:
        self._found = answers
        self._latch.release()

    def failed(self, error: BaseException) -> None:
        self._error = error
        self._latch.release()

    def are_there(self) -> bool:
        return self._found is not None or self._error is not None

    def wait(self) -> None:
        with self._latch:
            pass

    def get(self) -> list[bool]:
        """Waits. Raises what the thread raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        assert self._found is not None, "found or failed"
        return self._found


class _Chunk(NamedTuple):
    """Jobs that one thread answers in one go."""

    jobs: list[VerifyJob]
    answers: _Answers


class _Chunks:
    """Chunks that wait for a thread: those that somebody waits for first, then those begun ahead, each in order."""

    __slots__ = ("_ahead", "_lock", "_wanted")

    def __init__(self) -> None:
        self._wanted: deque[_Chunk] = deque()
        self._ahead: deque[_Chunk] = deque()
        self._lock = Lock()

    def put(self, chunk: _Chunk, *, wanted: bool) -> None:
        with self._lock:
            (self._wanted if wanted else self._ahead).append(chunk)

    def want(self, chunks: list[_Chunk]) -> None:
        """Somebody waits for these now; those that no thread has taken go first."""
        with self._lock:
            wanted = {id(chunk) for chunk in chunks}
            moved = [chunk for chunk in self._ahead if id(chunk) in wanted]
            if moved:
                self._ahead = deque([chunk for chunk in self._ahead if id(chunk) not in wanted])
                self._wanted += moved

    def take(self) -> _Chunk:
        with self._lock:
            return (self._wanted or self._ahead).popleft()


class PoolVerifier(InlineVerifier):
    """Verifies ahead with threads; pays for suites whose verify releases the GIL (ML-DSA).

    Where many signatures of the standard suites wait, each thread gets a process, once, and until it is ready, or if it
    ended, verifies itself.
    """

    def __init__(self, suites: SuiteSet, threads: int | None = None, max_memo_bytes: int = MEMO_BYTES) -> None:
        """`threads` defaults to the number of processors."""
        super().__init__(suites, max_memo_bytes)
        self._max_begun_bytes = max_memo_bytes // 4  # with a batch more, less than a generation of the memo
        self._begun_bytes = 0
        self._begun: dict[VerifyJob, _Chunk] = {}
        self._in_order: deque[_Chunk] = deque()
        self._chunks = _Chunks()
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="verify")
        self._processes: list[VerifyingProcess] | None = None
        self._free: deque[VerifyingProcess] = deque()

    def begin(self, jobs: Sequence[VerifyJob]) -> bool:
        """Hand unknown jobs to the pool, unless they are few, and go on; not where the memo could keep no more."""
        self._collect()
        if self._begun_bytes >= self._max_begun_bytes:
            return False
        return self._hand_out(jobs, wanted=False)

    def prefetch(self, jobs: Sequence[VerifyJob]) -> None:
        """Verify all unknown jobs in the pool, unless they are few, while this thread waits."""
        self._hand_out(jobs, wanted=True)
        begun = self._begun
        chunks = list({id(chunk): chunk for job in jobs if (chunk := begun.get(job)) is not None}.values())
        self._chunks.want(chunks)
        for chunk in chunks:
            self._keep(chunk)

    def verify(self, job: VerifyJob) -> bool:
        """From the memo or whoever has begun it, else inline."""
        answer = self._memo.get(job)
        if answer is not None:
            return answer
        chunk = self._begun.get(job)
        if chunk is not None:
            if not chunk.answers.are_there():
                self._chunks.want([chunk])
            self._keep(chunk)
        return super().verify(job)

    def close(self) -> None:
        """Stop threads and processes. `verify` still answers, `prefetch` no longer works."""
        self._pool.shutdown(cancel_futures=True)
        self._begun.clear()  # nobody answers what was not taken yet
        for process in self._processes or ():
            process.close()

    def _hand_out(self, jobs: Sequence[VerifyJob], *, wanted: bool) -> bool:
        known, begun = self._memo.get, self._begun
        unknown = [job for job in dict.fromkeys(jobs) if job not in begun and known(job) is None]
        if len(unknown) < FEW_JOBS:
            # `verify` answers them. On a machine whose cores are all busy the one who hands over waits three times as
            # long for his turn as the answers take.
            return not unknown
        size = FEW_JOBS if len(unknown) < _MANY_JOBS else _LARGE_CHUNK_JOBS
        for start in range(0, len(unknown), size):
            chunk = _Chunk(unknown[start : start + size], _Answers())
            begun.update(dict.fromkeys(chunk.jobs, chunk))
            self._begun_bytes += sum(map(_size_bytes, chunk.jobs))
            self._in_order.append(chunk)
            self._chunks.put(chunk, wanted=wanted)
            self._pool.submit(self._answer_next)
        if self._processes is None and self._suites is STANDARD_SUITES and len(begun) >= _MANY_JOBS:
            self._start_processes()
        return True

    def _start_processes(self) -> None:
        self._processes = []
        with suppress(OSError):  # no room for a process: the threads go on
            for _ in range(self._threads):
                self._processes.append(VerifyingProcess())
        self._free += self._processes

    def _collect(self) -> None:
        """Move what was answered since into the memo."""
        while self._in_order and self._in_order[0].answers.are_there():
            self._keep(self._in_order.popleft())

    def _keep(self, chunk: _Chunk) -> None:
        """Wait for a chunk's answers and move them into the memo, unless they were before."""
        begun = self._begun
        chunk.answers.wait()
        jobs = [job for job in chunk.jobs if begun.get(job) is chunk]
        if jobs:
            for job in jobs:
                del begun[job]
                self._begun_bytes -= _size_bytes(job)
            for job, answer in zip(chunk.jobs, chunk.answers.get(), strict=True):
                self._memo.put(job, answer)

    def _answer_next(self) -> None:
        jobs, answers = self._chunks.take()
        try:
            answers.found(self._answer(jobs))
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that waits
            answers.failed(error)

    def _answer(self, jobs: list[VerifyJob]) -> list[bool]:
        with suppress(IndexError, OSError):  # none is free, or it ended: then nobody gets it again
            process = self._free.popleft()
            found = process.verify(jobs) if process.is_ready() else None
            self._free.append(process)
            if found is not None:
                return found
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
