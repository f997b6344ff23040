"""A small file that several processes update: a lock beside it, and a replacement that a crash leaves whole."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import monotonic, sleep
from typing import Final

_PATIENCE_S: Final = 10.0
_PAUSE_S: Final = 0.01


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path`, which need not exist. Raises `OSError`; `TimeoutError` where another keeps it.

    The lock is a file of its own, since `path` is replaced: a lock on it would stay with the old one. It is left there,
    since who removed it would take it from under whoever waits.
    """
    # Reading suffices for a lock, so that several users of one file can share it.
    flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path.parent / f".{path.name}.lock", flags, 0o644)
    try:
        _take(descriptor)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> None:
    end_s = monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > end_s:
                raise TimeoutError(0, "another process keeps it locked") from None
            sleep(_PAUSE_S)
        else:
            return


def replace_text(path: Path, text: str) -> None:
    """Write `path` so that a crash leaves the old content or the new one. An existing file's mode stays.

    Raises `OSError`.
    """
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(text)
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Else a crash may bring the old name back."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
