"""The trust file: what a subscriber believes before it has read a single byte of the ledger.

JSON: { "format": 1, "chain_id": hex, "shards": n, "attestors": [{"suite": n, "public_key": hex}], "threshold": k,
"assurance": "HEADERS" | "EXECUTION", "last_checkpoint": null | {"round": n, "hash": hex} }.

Where operators replace the attestors by a control record, holders of the file decide for themselves whether to follow:
they put the new keys here. `shards` is genesis's number: it gives the map
from slots to shards, so that absence can't be proved from a shard that would not hold the key anyway.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from pipeline.client.locked_file import locked, replace_text
from pipeline.codec.types import MAX_SHARDS, ChainId, Hash32
from pipeline.errors import ConfigError, VerificationFailed
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance
from pipeline.ledger.genesis import SignerKey

_T = TypeVar("_T")
_FORMAT: Final = 1
_MAX_BYTES: Final = 16 * 2**20
_EXPECTED: Final = "expected is a trust.json as `hauptbuch init` makes it: get it again from whom you trust"


@dataclass(frozen=True, slots=True)
class SeenCheckpoint:
    """The newest checkpoint that was verified."""

    round: int
    hash: Hash32


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count, how many it takes, and what the signers must have done (`assurance`) at least."""

    chain_id: ChainId
    shards: int
    attestors: tuple[SignerKey, ...]
    threshold: int
    assurance: Assurance
    last_checkpoint: SeenCheckpoint | None = None

    @classmethod
    def of(cls, chain: Chain, assurance: Assurance) -> "Trust":
        """What genesis says."""
        genesis = chain.genesis
        return cls(chain.chain_id, genesis.shards, genesis.attestors, genesis.attestor_threshold, assurance)

    def to_json(self) -> str:
        """The file's text."""
        seen = self.last_checkpoint
        return json.dumps(
            {
                "format": _FORMAT,
                "chain_id": self.chain_id.hex(),
                "shards": self.shards,
                "attestors": [{"suite": key.suite, "public_key": key.public_key.hex()} for key in self.attestors],
                "threshold": self.threshold,
                "assurance": self.assurance.name,
                "last_checkpoint": seen and {"round": seen.round, "hash": seen.hash.hex()},
            },
            indent=2,
        )

    @classmethod
    def from_json(cls, text: str) -> "Trust":
        """Read the file's text. Raises `ConfigError`."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise ConfigError("it is not JSON, or is cut short") from None
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            raise ConfigError(f"it is not a trust file of format {_FORMAT}")
        trust = cls(
            ChainId(_field(value, "chain_id", _hash)),
            _field(value, "shards", _number),
            _field(value, "attestors", _keys),
            _field(value, "threshold", _number),
            _field(value, "assurance", lambda name: Assurance[name]),
            _field(value, "last_checkpoint", _seen),
        )
        trust.validate()
        return trust

    def validate(self) -> None:
        """Raises `ConfigError` where nothing, or anything, would pass."""
        if not 1 <= self.shards <= MAX_SHARDS:
            raise ConfigError(f"`shards` is not a number from 1 to {MAX_SHARDS}")
        if not 1 <= self.threshold <= len(self.attestors):
            raise ConfigError(f"`threshold` does not fit {len(self.attestors)} attestors")
        if not all(0 <= key.suite <= 255 for key in self.attestors):
            raise ConfigError("an attestor's suite is not a number from 0 to 255")
        if len({key.key_id for key in self.attestors}) != len(self.attestors):
            raise ConfigError("an attestor is listed twice")

    def seen(self, checkpoint: SeenCheckpoint) -> "Trust":
        """With a newer checkpoint as the last one."""
        return replace(self, last_checkpoint=checkpoint)


def load_trust(path: Path) -> Trust:
    """Read a trust file. Raises `ConfigError` naming it."""
    try:
        with path.open("rb") as file:  # its size says nothing where it is a pipe or a device
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"trust file {path} can't be read: {error.strerror}; {_EXPECTED}") from None
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"trust file {path} is too large to be one; {_EXPECTED}")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"trust file {path} can't be read: it is not UTF-8; {_EXPECTED}") from None
    try:
        return Trust.from_json(text)
    except ConfigError as error:
        raise ConfigError(f"trust file {path} can't be used: {error}; {_EXPECTED}") from None


def save_trust(path: Path, trust: Trust) -> None:
    """Write it, but never go back: the newer of the last checkpoints stays, the file's or that of `trust`.

    So processes that loaded the same file may save in any order. Where `path` is a link, the file that it names is
    written. A crash leaves the old file or the new one. Raises `ConfigError`, and `VerificationFailed` for
    equivocation: the file remembers another checkpoint of the same round.
    """
    # Only where it is a link itself: the way there may lead through another process's file system.
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        with locked(target):
            replace_text(target, _no_older(trust, target).to_json() + "\n")
    except OSError as error:
        raise ConfigError(f"trust file {path} can't be written: {error.strerror}") from None


def _no_older(trust: Trust, path: Path) -> Trust:
    """With the last checkpoint that the file knows, if it is the newer one."""
    if not path.exists():
        return trust
    known = load_trust(path)
    kept, new = known.last_checkpoint, trust.last_checkpoint
    if kept is None or known.chain_id != trust.chain_id:
        return trust
    if new is None or new.round < kept.round:
        return trust.seen(kept)
    if new.round == kept.round and new.hash != kept.hash:
        raise equivocation(f"round {new.round} was signed as {kept.hash.hex()} and as {new.hash.hex()}")
    return trust


def equivocation(what: str) -> VerificationFailed:
    """The error for two checkpoints that can't both be true."""
    return VerificationFailed(f"equivocation: {what}; keep both, they prove that the attestors lied")


def _field(value: dict[str, Any], name: str, read: Callable[[Any], _T]) -> _T:
    try:
        return read(value[name])
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"`{name}` is missing, or is not what stands there in a trust file") from None


def _keys(items: Any) -> tuple[SignerKey, ...]:
    return tuple(SignerKey(_number(item["suite"]), bytes.fromhex(item["public_key"])) for item in items)


def _hash(text: object) -> Hash32:
    raw = bytes.fromhex(text) if isinstance(text, str) else b""
    if len(raw) != 32:
        raise ValueError("a hash has 64 hexadecimal digits")
    return Hash32(raw)


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no number")
    return value


def _seen(value: Any) -> SeenCheckpoint | None:
    return None if value is None else SeenCheckpoint(_number(value["round"]), _hash(value["hash"]))
