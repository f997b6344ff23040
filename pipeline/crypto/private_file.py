"""Files that hold secrets: mode 0600, written whole or not at all, refused when others could touch them."""

import os
import secrets
import stat
from pathlib import Path

from pipeline.errors import ConfigError


def read_private(path: Path, max_bytes: int) -> bytes:
    """All of a small regular file that only its owner can touch; judged on the open file, not on its name.

    Raises `ConfigError`.
    """
    try:
        # O_NONBLOCK, or a named pipe put there would keep us waiting for its writer.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _require_private(path, os.fstat(handle))
            with open(handle, "rb", closefd=False) as file:
                raw = file.read(max_bytes + 1)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such key file; restore it from a backup, or bring it back from where it was taken"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: can't read the key file: {error.strerror}") from error
    if len(raw) > max_bytes:
        raise ConfigError(f"{path}: not a key file: longer than {max_bytes} bytes")
    return raw


def _require_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path}: not a regular file; name the key file itself")
    if status.st_mode & 0o077:
        raise ConfigError(f"{path}: others may read or change this key file; run `chmod 600 {path}`")


def write_new(path: Path, content: bytes) -> None:
    """Create `path` durably: readers see nothing or all of it; an existing file stays as it is.

    Raises `ConfigError`.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(handle, "wb") as file:
                os.fchmod(handle, 0o600)
                file.write(content)
                file.flush()
                os.fsync(handle)
            # A hard link fails where the name is taken, a rename would replace a key that may hold money.
            os.link(temporary, path)
        finally:
            os.unlink(temporary)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except FileExistsError:
        raise ConfigError(f"{path}: exists already; choose another name or move it away") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't write the key file: {error.strerror}") from error
