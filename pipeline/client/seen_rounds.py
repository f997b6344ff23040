"""What a client remembers of the rounds it verified, so that a second checkpoint of one of them is recognized."""

from typing import Final, NamedTuple

from pipeline.client.trust import SeenCheckpoint, equivocation
from pipeline.codec.types import Hash32
from pipeline.ledger.checkpoints import Checkpoint

MAX_ROUNDS: Final = 4096
"""A client that follows a ledger for years must not grow with it: the round that was verified first is forgotten first,
and a contradiction of a forgotten one passes, as for a client that never saw it. An audit of the log misses none."""


class _Seen(NamedTuple):
    hash: Hash32
    previous_hash: Hash32


class SeenRounds:
    """The hashes of the `MAX_ROUNDS` rounds that were verified last, and of the checkpoints that they continue."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._rounds: dict[int, _Seen] = {}

    def add(self, checkpoint: Checkpoint, own_hash: Hash32, last: SeenCheckpoint | None) -> None:
        """Remember a verified checkpoint. `last` was seen too, perhaps by an earlier process.

        Raises `VerificationFailed` for equivocation, and then remembers only what was seen before.
        """
        number, previous_hash = checkpoint.round, checkpoint.previous_hash
        known = self._hash_of(number, last)
        if known is not None and known != own_hash:
            raise equivocation(f"round {number} was signed as {known.hex()} and as {own_hash.hex()}")
        before = self._hash_of(number - 1, last)
        if before is not None and before != previous_hash:
            raise equivocation(_broken(number, previous_hash, before))
        after = self._rounds.get(number + 1)
        if after is not None and after.previous_hash != own_hash:
            raise equivocation(_broken(number + 1, after.previous_hash, own_hash))
        self._rounds[number] = _Seen(own_hash, previous_hash)
        if len(self._rounds) > MAX_ROUNDS:
            del self._rounds[next(iter(self._rounds))]

    def _hash_of(self, number: int, last: SeenCheckpoint | None) -> Hash32 | None:
        if last is not None and last.round == number:
            return last.hash
        seen = self._rounds.get(number)
        return None if seen is None else seen.hash


def _broken(number: int, continued: Hash32, signed: Hash32) -> str:
    return f"round {number} continues {continued.hex()}, but round {number - 1} was signed as {signed.hex()}"
