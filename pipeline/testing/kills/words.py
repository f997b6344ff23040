"""What a process told to be durable before it died, a line each."""

from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.client.light import VerifiedRoot


class Ack(NamedTuple):
    """A published record of `transactions`."""

    partition: int
    offset: int
    sha256: str

    def __str__(self) -> str:
        """The line."""
        return f"ack {self.partition} {self.offset} {self.sha256}"


class SeenRoot(NamedTuple):
    """A state root that a subscriber verified; hashes in hexadecimal."""

    shard: int
    height: int
    block_hash: str
    state_root: str
    round: int
    checkpoint: str

    def __str__(self) -> str:
        """The line."""
        return f"root {self.shard} {self.height} {self.block_hash} {self.state_root} {self.round} {self.checkpoint}"


@dataclass(slots=True)
class Words:
    """All that was told."""

    acks: list[Ack] = field(default_factory=list)
    roots: list[SeenRoot] = field(default_factory=list)

    def hear(self, text: str) -> None:
        """Lines of a process; a last one that the kill cut short says nothing."""
        for line in text.splitlines(keepends=True):
            word, *rest = line.split()
            if not line.endswith("\n"):
                continue
            if word == "ack":
                self.acks.append(Ack(int(rest[0]), int(rest[1]), rest[2]))
            elif word == "root":
                numbers = (int(rest[0]), int(rest[1]))
                self.roots.append(SeenRoot(*numbers, rest[2], rest[3], int(rest[4]), rest[5]))


def seen_root(root: VerifiedRoot) -> SeenRoot:
    """What a verified root says."""
    head, checkpoint = root.state_root, root.checkpoint
    return SeenRoot(
        int(head.shard),
        int(head.height),
        head.block_hash.hex(),
        head.state_root.hex(),
        checkpoint.round,
        root.checkpoint_hash.hex(),
    )
