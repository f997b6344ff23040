"""A node's directory: where everything is, and the lock that makes one process its owner.

hauptbuch.toml  genesis.avro  trust.json  names.sqlite  lock
keys/NAME.json  log/  shards/N/  sync/
"""

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from pipeline.errors import ConfigError, PoisonRecord
from pipeline.ledger.chain import Chain
from pipeline.ledger.genesis import Genesis

_LOOKS: Final = 10
_LOOK_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class NodeLayout:
    """Paths of one directory."""

    root: Path

    @property
    def config(self) -> Path:
        """Settings."""
        return self.root / "hauptbuch.toml"

    @property
    def genesis(self) -> Path:
        """The framed genesis record."""
        return self.root / "genesis.avro"

    @property
    def trust(self) -> Path:
        """What a subscriber of this chain trusts."""
        return self.root / "trust.json"

    @property
    def names(self) -> Path:
        """Names of demo accounts."""
        return self.root / "names.sqlite"

    @property
    def log(self) -> Path:
        """The embedded log."""
        return self.root / "log"

    @property
    def sync(self) -> Path:
        """The synchronizer's store."""
        return self.root / "sync"

    def key(self, name: str) -> Path:
        """A key file."""
        return self.root / "keys" / f"{name}.json"

    def shard(self, number: int) -> Path:
        """A shard's state store."""
        return self.root / "shards" / str(number)

    def chain(self) -> Chain:
        """The chain of the genesis file. Raises `ConfigError` where there is none or it is unusable."""
        try:
            raw = self.genesis.read_bytes()
        except FileNotFoundError:
            raise ConfigError(f"{self.root} holds no ledger: run `hauptbuch init {self.root} --shards N`") from None
        except NotADirectoryError:
            raise ConfigError(f"{self.root} is no directory; give one that `hauptbuch init` made") from None
        except OSError as error:
            raise ConfigError(f"{self.genesis} can't be read: {error.strerror}") from None
        try:
            return Chain.of(Genesis.from_record(raw))
        except PoisonRecord as error:
            raise ConfigError(f"{self.genesis} is no genesis: {error}; restore the file") from None


class DirectoryLock:
    """Exclusive ownership of a directory, released by the kernel when the process dies."""

    def __init__(self, layout: NodeLayout) -> None:
        """Take the lock. Raises `ConfigError` where another process holds it."""
        self._root = layout.root
        path = layout.root / "lock"
        try:
            layout.root.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{layout.root} can't be locked: {error.strerror}") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise ConfigError(f"{layout.root} is in use by pid {_owner(layout) or '?'}") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def __enter__(self) -> "DirectoryLock":
        """Held already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release."""
        self.release()

    def release(self) -> None:
        """Give the directory up. Idempotent."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


def _owner(layout: NodeLayout) -> int | None:
    """Who holds the lock. It may have taken it just now, and the file still be empty or name one that died."""
    for _ in range(_LOOKS):
        owner = lock_holder(layout)
        if owner is not None:
            return owner
        time.sleep(_LOOK_SECONDS)
    return None


def lock_holder(layout: NodeLayout) -> int | None:
    """The process that runs the directory's node, None where none does. Takes no lock, so nobody is ever in the way."""
    try:
        pid = int((layout.root / "lock").read_text(encoding="ascii"))
        os.kill(pid, 0)
    except PermissionError:
        return pid
    except (OSError, ValueError, OverflowError):
        return None
    return pid
