"""One key that signs in a process of its own, for suites whose signing holds the GIL (SLH-DSA: 250 ms).

The process is spawned, gets the secret through a pipe (never through arguments or environment) and ends when
that pipe closes, so it outlives neither `close` nor the death of its parent. Spawning imports the main module
again: a script that uses this keeps its work under `if __name__ == "__main__"`.
"""

import multiprocessing
import signal
from multiprocessing.connection import Connection
from typing import Final, NoReturn

from pipeline.crypto.port import PrivateKey, checked_context
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import ConfigError, Fatal, Retryable

_CLOSE_SECONDS: Final = 5.0


def _serve(requests: Connection, suite_id: int, secret: bytes) -> None:
    """Body of the process: answer (context, message) with a signature until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when a Ctrl-C at the terminal ends us
    key = STANDARD_SUITES[suite_id].load(secret)
    try:
        while True:
            context = requests.recv_bytes()
            requests.send_bytes(key.sign(requests.recv_bytes(), context))
    except (EOFError, OSError):
        return


class SigningProcess:
    """A `PrivateKey` whose signing leaves this process free. One request at a time, one driving thread."""

    def __init__(self, key: PrivateKey) -> None:
        """Start the process; does not wait for it. Raises `ConfigError` for a suite that is not standard."""
        if key.suite_id not in STANDARD_SUITES:
            raise ConfigError(f"suite 0x{key.suite_id:02x} has no signing process; use a standard suite")
        self._key: Final = key
        self._pending = False
        self._answered = False
        self._closed = False
        self._start()

    @property
    def suite_id(self) -> int:
        """Suite of the key."""
        return self._key.suite_id

    @property
    def public_key(self) -> bytes:
        """Public key of the key."""
        return self._key.public_key

    @property
    def secret(self) -> bytes:
        """Secret of the key."""
        return self._key.secret

    @property
    def pid(self) -> int | None:
        """Process id, for logs."""
        return self._process.pid

    def begin(self, message: bytes, context: bytes) -> None:
        """Hand a message over. Raises `ConfigError` for a context over 255 bytes; else as `poll`."""
        assert not self._closed, "the signing process is closed"
        assert not self._pending, "one signature at a time"
        context = checked_context(context)
        try:
            self._connection.send_bytes(context)
            self._connection.send_bytes(message)
        except OSError:
            self._restart()
        self._pending = True

    def poll(self) -> bytes | None:
        """The signature, or None while it is being made; never waits.

        Raises `Retryable` if the process ended meanwhile (a new one is on its way: begin again), `Fatal` if
        it has never answered at all.
        """
        assert self._pending, "nothing was begun"
        return self._receive() if self._connection.poll() else None

    def sign(self, message: bytes, context: bytes) -> bytes:
        """Sign and wait; other threads run meanwhile. Raises as `begin` and `poll`."""
        self.begin(message, context)
        return self._receive()

    def close(self) -> None:
        """End the process. Idempotent."""
        self._closed = True
        self._connection.close()
        self._process.join(_CLOSE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=_serve, args=(theirs, int(self._key.suite_id), self._key.secret), name="sign", daemon=True
        )
        self._process.start()
        theirs.close()  # or its end would never be seen here

    def _receive(self) -> bytes:
        try:
            signature = self._connection.recv_bytes()
        except (EOFError, OSError):
            self._restart()
        self._pending = False
        self._answered = True
        return signature

    def _restart(self) -> NoReturn:
        self._pending = False
        self.close()
        if not self._answered:
            raise Fatal("the signing process can't start; its message is on standard error") from None
        self._closed = False
        self._start()
        raise Retryable("the signing process ended before it answered; sign again")
