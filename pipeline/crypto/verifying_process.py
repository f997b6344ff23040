"""A process that verifies signatures for this one, so that its threads need the interpreter once a batch.

A thread that verifies beside a busy thread waits for its turn after every signature, and takes a turn from it. One that
hands over to a process does so once a batch. The process is not spawned by `multiprocessing`, which would import the
main module again: whoever opens a node need not know of it. It ends when its input closes, so it outlives neither
`close` nor the death of its parent.
"""

import marshal
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from struct import Struct
from typing import Final

from pipeline.crypto.suites import STANDARD_SUITES

_LENGTH: Final = Struct(">I")
_READY: Final = b"\xff"
_CLOSE_SECONDS: Final = 5.0

Question = tuple[int, bytes, bytes, bytes, bytes]
"""As `pipeline.crypto.verifier.VerifyJob`: the arguments of `SuiteSet.verify`."""


def serve() -> None:
    """Body of the process: one byte an answer, until the input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when a Ctrl-C at the terminal ends us
    questions, answers, verify = sys.stdin.buffer, sys.stdout.buffer, STANDARD_SUITES.verify
    reply = _READY
    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            answers.write(reply)
            answers.flush()
            length = questions.read(_LENGTH.size)
            if len(length) < _LENGTH.size:
                return
            batch = marshal.loads(questions.read(*_LENGTH.unpack(length)))  # noqa: S302 - only the parent writes here
            reply = bytes([verify(*question) for question in batch])


class VerifyingProcess:
    """Answers batches of questions by the standard suites. One batch at a time."""

    def __init__(self) -> None:
        """Start it; does not wait until it is ready. Raises `OSError` where it can't be started."""
        if not sys.executable:
            raise OSError("an embedded interpreter has no program to start")
        # The same modules as here, wherever they came from.
        program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
        command = [sys.executable, "-c", program]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None, "a pipe"
        self._poll = select.poll()  # `select.select` knows no files above 1,023, and stores open many
        self._poll.register(self._process.stdout, select.POLLIN)
        self._is_ready = False

    @property
    def pid(self) -> int:
        """Process id, for logs."""
        return self._process.pid

    def is_ready(self) -> bool:
        """Whether it takes questions by now; never waits. Raises `OSError` if it ended instead."""
        answers = self._process.stdout
        assert answers is not None, "a pipe"
        if not self._is_ready and self._poll.poll(0):
            if answers.read(1) != _READY:
                raise BrokenPipeError("the verifying process did not start; its message is on standard error")
            self._is_ready = True
        return self._is_ready

    def verify(self, questions: Sequence[Question]) -> list[bool]:
        """The answers, in order; other threads run meanwhile. Raises `OSError` if the process has ended."""
        process = self._process
        assert process.stdin is not None, "a pipe"
        assert process.stdout is not None, "a pipe"
        # Both ends are one build of Python, and nobody else writes here. Plain tuples and ints only can be marshalled.
        batch = marshal.dumps([(int(suite), *others) for suite, *others in questions])
        process.stdin.write(_LENGTH.pack(len(batch)) + batch)
        process.stdin.flush()
        answers = process.stdout.read(len(questions))
        if len(answers) < len(questions):
            raise BrokenPipeError("the verifying process ended")
        return [answer == 1 for answer in answers]

    def close(self) -> None:
        """End the process. Idempotent."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None, "a pipe"
            with suppress(OSError):  # it ended before it read what was written
                stream.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
