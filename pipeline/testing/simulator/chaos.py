"""What may go wrong in one simulation, and how often; each seed draws its own mixture."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from pipeline.log.port import Append
from pipeline.testing.faulty_log import CommitFault, Failing


@dataclass(frozen=True, slots=True)
class Chaos:
    """Chances of one commit to fail and of a store to be armed with a crash at one of its writes.

    `attestors`: how many sign at first, `threshold` of whom it takes; 0: the proposer signs alone. `weights`: how often
    the scheduler chooses each action.
    """

    shards: int
    workers: int
    transactions: int
    attestors: int
    threshold: int
    idle_tasks: bool
    executes_again: bool
    commit_fails: float
    store_crashes: float
    log_crashes: float
    weights: dict[str, int]

    @classmethod
    def draw(cls, random: Random) -> "Chaos":
        """Some seeds are calm, some wild; most are wild in a few ways only."""
        wild = random.choice((0, 1, 1, 3))

        def sometimes(weight: int) -> int:
            return wild * weight if random.random() < 0.6 else 0

        attestors, threshold = random.choice(((0, 1), (0, 1), (0, 1), (1, 1), (2, 1), (2, 2), (3, 2)))
        weights = {
            "step": 100 + 20 * attestors,
            "publish": random.choice((15, 25, 60)),
            "lie": random.choice((0, 4, 12)),
            "lie about signatures": random.choice((0, 4, 8) if attestors else (0, 0, 4)),
            "lie about control": random.choice((0, 1, 2)),
            "forge": random.choice((0, 0, 1)),
            "govern": random.choice((0, 1, 3)),
            "subscribe": 3,
            "tick": random.choice((10, 30, 60)),
            "crash worker": sometimes(1),
            "lose store": sometimes(1),
            "take over": sometimes(3),
            "crash signer": sometimes(1),
            "replace signer": sometimes(1),
            "lose signer's disk": sometimes(1),
            "away": sometimes(2 if attestors else 0),
            "back": 2 if attestors else 0,
            "power cut": sometimes(1) if random.random() < 0.5 else 0,
        }
        return cls(
            shards=random.randint(1, 4),
            workers=random.randint(1, 3),
            transactions=random.randint(10, 60),
            attestors=attestors,
            threshold=threshold,
            idle_tasks=random.random() < 0.5,
            executes_again=random.random() < 0.3,
            commit_fails=random.choice((0.0, 0.1, 0.2, 0.4)) if wild else 0.0,
            store_crashes=random.choice((0.0, 0.1, 0.3, 0.6)) if wild else 0.0,
            log_crashes=random.choice((0.0, 0.5, 0.9)) if wild else 0.0,
            weights=weights,
        )


def draw_failing(random: Random) -> Failing:
    """How one commit fails."""
    fault = random.choice((*CommitFault, CommitFault.PREFIX, CommitFault.COMMITTED, CommitFault.LATE))
    seed = random.getrandbits(32)
    return Failing(fault, random.random() < 0.5, lambda appends: part_of(appends, Random(seed)))


def part_of(appends: Sequence[Append], random: Random) -> list[Append]:
    """The first append, and of each partition its first few: what a delayed end makes visible."""
    left = {append.target: random.randint(0, 2) for append in appends}
    part = list(appends[:1])
    for append in appends[1:]:
        if left[append.target]:
            part.append(append)
            left[append.target] -= 1
    return part
