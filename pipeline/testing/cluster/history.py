"""What clients of a ledger were told, as JSON lines: the history that `checker` holds against the log.

Each line is written whole, and only after it was told, so that what a client that died has said still counts. Hashes
and addresses are hexadecimal, amounts minor units.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple, Self

from pipeline.errors import ConfigError


class Acked(NamedTuple):
    """A record of `transactions` was published: the log gave it this offset."""

    client: str
    partition: int
    offset: int
    sha256: str


class Told(NamedTuple):
    """The receipt of a record, `digest` being its SHA-256."""

    client: str
    partition: int
    offset: int
    digest: str
    code: int
    nonce_consumed: bool


class Settled(NamedTuple):
    """All effects of a record were said to be executed, with the refunds that they caused."""

    client: str
    partition: int
    offset: int


class SawRoot(NamedTuple):
    """A state root that verified. `checkpoint` is the round's hash."""

    client: str
    shard: int
    height: int
    block_hash: str
    state_root: str
    round: int
    checkpoint: str


class Proved(NamedTuple):
    """A balance that a light client verified under the root of this block; 0 where its absence was proved."""

    client: str
    address: str
    asset: str
    amount: int
    shard: int
    height: int


class Refused(NamedTuple):
    """Something that was published as true and does not verify."""

    client: str
    what: str


Event = Acked | Told | Settled | SawRoot | Proved | Refused
_KINDS: Final[dict[str, type[Event]]] = {
    kind.__name__: kind for kind in (Acked, Told, Settled, SawRoot, Proved, Refused)
}


def event_line(event: Event) -> str:
    """One line."""
    return json.dumps({"kind": type(event).__name__, **event._asdict()}, separators=(",", ":")) + "\n"


def read_events(text: str, where: str = "history") -> list[Event]:
    """Lines of one client, in their order; a last one that a kill cut short says nothing. Raises `ConfigError`."""
    events: list[Event] = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            continue
        try:
            fields = json.loads(line)
            events.append(_KINDS[fields.pop("kind")](**fields))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{where} line {number} is no event of a history: {error}") from None
    return events


def read_histories(paths: Iterable[Path]) -> list[Event]:
    """Of several clients, one file after the other. Raises `ConfigError`."""
    return [event for path in paths for event in read_events(path.read_text(encoding="utf-8"), path.name)]


class Recorder:
    """Appends to a client's file without a buffer: what was told outlives the process."""

    def __init__(self, path: Path) -> None:
        """Goes on where an older life of the file ended."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def __enter__(self) -> Self:
        """Open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        os.close(self._descriptor)

    def tell(self, events: Iterable[Event]) -> None:
        """Write them."""
        raw = "".join(map(event_line, events)).encode()
        while raw:
            raw = raw[os.write(self._descriptor, raw) :]
