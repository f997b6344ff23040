"""The plan of a run: its mixture of faults and its list of decisions, so that decisions can be left out one by one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final, NamedTuple

from pipeline.errors import ConfigError
from pipeline.testing.simulator.chaos import Chaos

_MOST_DECISIONS: Final = 700


class Decision(NamedTuple):
    """One action of the scheduler's. All chance inside it comes from its own `seed`, so it does not depend on what was
    decided before. `faulty`: whether commits, disks and the log may fail in it."""

    number: int
    action: str
    seed: int
    faulty: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run depends on."""

    seed: int
    setup: int
    chaos: Chaos
    decisions: tuple[Decision, ...]

    def only(self, kept: Mapping[int, bool]) -> "Plan":
        """The decisions of these numbers alone; the value says whether anything may fail in them."""
        left = [item._replace(faulty=kept[item.number]) for item in self.decisions if item.number in kept]
        return replace(self, decisions=tuple(left))

    @property
    def kept(self) -> dict[int, bool]:
        """Number -> whether anything may fail, as `only` takes it."""
        return {item.number: item.faulty for item in self.decisions}


def draw_plan(seed: int, transactions: int | None = None) -> Plan:
    """The plan of a seed; `transactions` replaces how many are published."""
    random = Random(seed)
    chaos = Chaos.draw(random)
    setup = random.getrandbits(64)
    names, weights = list(chaos.weights), list(chaos.weights.values())
    left = chaos.transactions if transactions is None else transactions
    decisions: list[Decision] = []
    while left > 0 and len(decisions) < _MOST_DECISIONS:
        (action,) = random.choices(names, weights)
        decisions.append(Decision(len(decisions), action, random.getrandbits(64)))
        left -= action == "publish"
    return Plan(seed, setup, chaos, tuple(decisions))


def kept_text(kept: Mapping[int, bool]) -> str:
    """As the command line takes it: `3,5!,9`; the mark stands where something may fail."""
    return ",".join(f"{number}{'!' if faulty else ''}" for number, faulty in sorted(kept.items()))


def read_kept(text: str) -> dict[int, bool]:
    """Read what `kept_text` wrote. Raises `ConfigError`."""
    try:
        return {int(item.rstrip("!")): item.endswith("!") for item in text.split(",") if item}
    except ValueError:
        raise ConfigError(f"{text!r} is no list of decisions: numbers and commas, as in 3,5!,9") from None
