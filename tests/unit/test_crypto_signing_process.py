"""The signing process: signatures hold, the caller is not held up, deaths on either side are mended or final."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.crypto import signing_process
from pipeline.crypto.port import PrivateKey
from pipeline.crypto.signing_process import SigningProcess
from pipeline.crypto.suites import STANDARD_SUITES, SuiteId
from pipeline.errors import ConfigError, Fatal, Retryable
from pipeline.testing.suite import DeterministicSuite

SLH = STANDARD_SUITES[SuiteId.SLH_DSA_SHA2_128S]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def signer() -> Iterator[SigningProcess]:
    made = SigningProcess(SLH.generate(None))
    yield made
    made.close()
    made.close()


def test_it_signs_as_its_key_does(signer: SigningProcess) -> None:
    assert isinstance(signer, PrivateKey)
    assert signer.suite_id == SuiteId.SLH_DSA_SHA2_128S
    signature = signer.sign(b"message", b"context")
    assert SLH.verify(signer.public_key, b"message", b"context", signature)
    assert SLH.load(signer.secret).public_key == signer.public_key


def test_the_caller_goes_on_meanwhile(signer: SigningProcess) -> None:
    signer.sign(b"warm", b"")
    signer.begin(b"message", b"context")
    polls = 0
    while (signature := signer.poll()) is None:
        time.sleep(0.001)
        polls += 1
    assert polls > 20  # signing here would hold everything for the quarter of a second that it takes
    assert SLH.verify(signer.public_key, b"message", b"context", signature)


def test_a_signal_for_the_terminal_does_not_end_it(signer: SigningProcess) -> None:
    signer.sign(b"warm", b"")
    pid = signer.pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    assert SLH.verify(signer.public_key, b"m", b"", signer.sign(b"m", b""))
    assert signer.pid == pid


def test_a_death_is_retryable_and_mended(signer: SigningProcess) -> None:
    signer.sign(b"warm", b"")
    pid = signer.pid
    assert pid is not None
    signer.begin(b"m", b"")
    os.kill(pid, signal.SIGKILL)
    signer._process.join(10)
    with pytest.raises(Retryable, match="sign again"):
        signer.poll()
    assert signer.pid != pid
    assert SLH.verify(signer.public_key, b"m", b"", signer.sign(b"m", b""))


def test_a_death_between_requests_is_retryable_and_mended(signer: SigningProcess) -> None:
    signer.sign(b"warm", b"")
    pid = signer.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    signer._process.join(10)
    with pytest.raises(Retryable):
        signer.begin(b"m", b"")
    assert SLH.verify(signer.public_key, b"m", b"", signer.sign(b"m", b""))


def test_misuse_is_caught(signer: SigningProcess) -> None:
    with pytest.raises(ConfigError, match="256 bytes"):
        signer.begin(b"m", b"c" * 256)
    with pytest.raises(AssertionError, match="nothing was begun"):
        signer.poll()
    with pytest.raises(ConfigError, match="0xff has no signing process"):
        SigningProcess(DeterministicSuite().generate(bytes(32)))


def test_a_process_that_never_answers_is_fatal() -> None:
    made = SigningProcess(SLH.generate(None))
    assert made.pid is not None
    os.kill(made.pid, signal.SIGKILL)
    made._process.join(10)
    with pytest.raises(Fatal, match="can't start"):
        made.sign(b"m", b"")
    with pytest.raises(AssertionError, match="closed"):
        made.begin(b"m", b"")


def test_closing_ends_even_a_process_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = SigningProcess(SLH.generate(None))
    made.sign(b"warm", b"")
    assert made.pid is not None
    os.kill(made.pid, signal.SIGSTOP)
    monkeypatch.setattr(signing_process, "_CLOSE_SECONDS", 0.1)
    made.close()
    assert made._process.exitcode == -signal.SIGKILL


SCRIPT = """
import time
from pipeline.crypto.signing_process import SigningProcess
from pipeline.crypto.suites import STANDARD_SUITES
if __name__ == "__main__":
    signer = SigningProcess(STANDARD_SUITES[0x11].generate(None))
    signer.sign(b"m", b"")
    print(signer.pid, flush=True)
    time.sleep(60)
"""


def test_it_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    """Whether it runs; an orphan that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
