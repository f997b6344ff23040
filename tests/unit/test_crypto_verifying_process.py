"""The verifying process: the suites' answers, whatever becomes of the process; it starts only where much waits."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.crypto import verifier as verifier_module
from pipeline.crypto.suites import STANDARD_SUITES, SuiteId, SuiteSet
from pipeline.crypto.verifier import PoolVerifier, VerifyJob
from pipeline.crypto.verifying_process import VerifyingProcess
from pipeline.testing.suite import TEST_SUITES, DeterministicSuite

KEY = STANDARD_SUITES[SuiteId.ML_DSA_44].generate(bytes(32))
SIGNATURE = KEY.sign(b"0", b"c")
MANY = verifier_module._MANY_JOBS


def job(number: int) -> VerifyJob:
    """Holds for number 0 only."""
    return VerifyJob(KEY.suite_id, KEY.public_key, b"%d" % number, b"c", SIGNATURE)


def ready(process: VerifyingProcess) -> VerifyingProcess:
    deadline = time.monotonic() + 20
    while not process.is_ready():
        assert time.monotonic() < deadline, "never ready"
        time.sleep(0.01)
    return process


@pytest.fixture
def process() -> Iterator[VerifyingProcess]:
    made = VerifyingProcess()
    yield made
    made.close()
    made.close()


def test_it_answers_as_the_suites_do(process: VerifyingProcess) -> None:
    assert not process.is_ready()  # it can't be that fast
    ready(process)
    jobs = [job(number) for number in (3, 0, 5)]
    hostile = [
        job(0)._replace(suite=0x77),
        job(0)._replace(public_key=b""),
        job(0)._replace(signature=b"x"),
        job(0)._replace(context=bytes(300)),
        job(0)._replace(suite=SuiteId.ML_DSA_65),
    ]
    assert process.verify(jobs + hostile) == [False, True] + [False] * 6
    assert process.verify([job(0)] * 500) == [True] * 500  # more than a pipe holds
    assert process.verify([]) == []


def test_a_signal_for_the_terminal_does_not_end_it(process: VerifyingProcess) -> None:
    os.kill(ready(process).pid, signal.SIGINT)
    assert process.verify([job(0)]) == [True]


def test_its_death_is_an_error_of_the_system(process: VerifyingProcess) -> None:
    os.kill(ready(process).pid, signal.SIGKILL)
    with pytest.raises(OSError, match=r"ended|pipe"):
        process.verify([job(0)])


def test_one_that_never_starts_is_an_error_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    made = VerifyingProcess()
    with pytest.raises(OSError, match="did not start"):
        ready(made)
    made.close()
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(OSError, match="embedded"):
        VerifyingProcess()


def test_it_ends_with_its_parent() -> None:
    program = (
        "import os, time; from pipeline.crypto.verifying_process import VerifyingProcess; p = VerifyingProcess()\n"
        "while not p.is_ready(): time.sleep(0.01)\n"
        "print(p.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    pid = int(ended.stdout)
    deadline = time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < deadline, "it outlived its parent"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_pool_starts_processes_where_many_wait_and_goes_on_without_them() -> None:
    pool = PoolVerifier(STANDARD_SUITES, 2)
    pool.prefetch([job(number) for number in range(-100, 0)])
    assert pool._processes is None
    pool.prefetch([job(number) for number in range(MANY)])
    assert pool._processes is not None
    assert len(pool._processes) == 2
    assert [pool.verify(job(number)) for number in range(MANY)] == [number == 0 for number in range(MANY)]
    first, second = [ready(process) for process in pool._processes]
    pool.prefetch([job(number) for number in range(1_000, 1_000 + MANY)])
    os.kill(first.pid, signal.SIGKILL)
    jobs = [job(number) for number in range(2_000, 2_000 + 4 * MANY)]
    pool.begin(jobs)
    os.kill(second.pid, signal.SIGKILL)
    pool.prefetch([*jobs, job(0)])
    assert not any(pool.verify(j) for j in jobs)
    assert pool.verify(job(0))
    pool.close()
    pool.close()
    assert not _runs(first.pid)


def test_processes_do_the_work_once_they_are_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []

    class Counted(VerifyingProcess):
        def verify(self, questions):  # type: ignore[no-untyped-def]
            handed.append(len(questions))
            return super().verify(questions)

    monkeypatch.setattr(verifier_module, "VerifyingProcess", Counted)
    pool = PoolVerifier(STANDARD_SUITES, 2)
    pool.prefetch([job(number) for number in range(MANY)])
    for process in pool._processes or ():
        ready(process)
    handed.clear()
    pool.prefetch([job(number) for number in range(1_000, 1_000 + MANY)])
    assert sum(handed) == MANY
    assert max(handed) > 8
    pool.close()


def test_threads_go_on_where_no_process_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    pool = PoolVerifier(STANDARD_SUITES, 2)
    pool.prefetch([job(number) for number in range(MANY)])
    assert pool._processes == []
    assert pool.verify(job(0))
    assert not pool.verify(job(1))
    pool.close()


def test_other_suites_stay_with_the_threads() -> None:
    pool = PoolVerifier(TEST_SUITES, 2)
    key = DeterministicSuite().generate(bytes(32))
    pool.prefetch([VerifyJob(0xFF, key.public_key, b"%d" % n, b"c", key.sign(b"%d" % n, b"c")) for n in range(MANY)])
    assert pool._processes is None
    pool.close()
    ours = PoolVerifier(SuiteSet(STANDARD_SUITES.values()), 1)
    ours.prefetch([job(number) for number in range(MANY)])
    assert ours._processes is None
    ours.close()
