"""Plays cases by seed, judges after each, and counts."""

import shutil
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from pipeline.errors import HauptbuchError
from pipeline.testing.kills.judge import LedgerBroken
from tests.kafka.matrix.brokers import Brokers
from tests.kafka.matrix.cases import CASES, Case, House
from tests.kafka.matrix.fleet import Life
from tests.kafka.matrix.stage import Stage
from tests.kafka.matrix.store_faults import disk_full, mounts_are_permitted

_CASES_A_LEDGER = 5
_LEDGERS_A_CLUSTER = 2
_COSTS = {House.THREE: 4}
"""How many times as long a case takes as on other houses."""
_STEADY_SHARE = 0.16
_LEAST_STEADY_S = 60.0
_WARM_SHARE = 1 / 3  # of a life: until its caches are as full as they become, some 4 minutes
_MEGABYTE = 1 << 20
Say = Callable[[str], None]


@dataclass
class Line:
    """What is known of one case."""

    runs: int = 0
    held: int = 0
    kills: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


@dataclass
class Report:
    """Of a whole run. `flat`: what the memory of undisturbed workers did, one line each."""

    lines: dict[str, Line] = field(default_factory=dict)
    kills: int = 0
    ledgers: int = 0
    transactions: int = 0
    blocks: int = 0
    events: dict[str, int] = field(default_factory=dict)
    peak_rss: int = 0
    flat: list[str] = field(default_factory=list)
    is_flat: bool = True
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.is_flat and not any(line.broken for line in self.lines.values())

    def table(self) -> list[str]:
        width = max((len(name) for name in self.lines), default=0)
        rows = [f"{'case':{width}}  times  kills  verdict"]
        for name, line in sorted(self.lines.items()):
            verdict = "held" if not line.broken else f"BROKEN {len(line.broken)}: {line.broken[0][:300]}"
            rows.append(f"{name:{width}}  {line.runs:5d}  {line.kills:5d}  {verdict}")
            rows += [f"{'':{width}}    {count} x {note}" for note, count in sorted(line.notes.items())]
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(self.events.items()))
        rows += [
            f"{self.kills} kills, {self.ledgers} ledgers, {self.transactions} receipts, {self.blocks} blocks in "
            f"{self.seconds / 60:.0f} min",
            f"clients recorded {told}",
            f"peak memory of a worker {self.peak_rss / _MEGABYTE:.0f} MiB",
            *self.flat,
        ]
        return rows


def play(stage: Stage, case: Case, report: Report, say: Say) -> bool:
    """Whether it held. Load, fault, rest, judgement; a ledger that broke stays where it is."""
    line = report.lines.setdefault(case.name, Line())
    started, before = time.monotonic(), stage.tally.kills
    stage.tally.notes.clear()
    stage.may_end = set(_MAY_END.get(case.house, ()))
    line.runs += 1
    try:
        stage.play()
        stage.pause(0.3, 1.5)
        case.play(stage)
        stage.mend() if not case.retires else None
        stage.rest()
        if not case.retires:
            stage.require_no_halt()
        stage.judge()
    except (LedgerBroken, AssertionError, HauptbuchError, OSError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        line.broken.append(f"{stage.root}: {type(error).__name__} {error} ({where.name}, line {where.lineno})"[:3000])
        say(f"BROKEN {case.name}: {line.broken[-1]}")
        return False
    finally:
        killed = stage.tally.kills - before
        line.kills += killed
        report.kills += killed
        line.seconds += time.monotonic() - started
        for note in stage.tally.notes:
            line.notes[note] = line.notes.get(note, 0) + 1
    line.held += 1
    say(f"held: {case.name}, {killed} kills, {time.monotonic() - started:.0f} s; ledger of {stage.tally.blocks} blocks")
    return True


# A signer whose transaction was open for too long is fenced, and can't prove that it is still the owner: it ends,
# and whoever supervises it starts it again.
_MAY_END: dict[House, tuple[str, ...]] = {
    House.PROXIED: ("sync",),
    House.QUORUM: (),
    House.THREE: ("sync",),
    House.PLAIN: (),
}


@contextmanager
def brokers_of(house: House, root: Path) -> Iterator[Brokers]:
    brokers = Brokers(root, 3 if house is House.THREE else 1)
    try:
        yield brokers
    finally:
        brokers.close()


@contextmanager
def stage_of(house: House, root: Path, brokers: Brokers, seed: int, report: Report) -> Iterator[Stage]:
    """A ledger for cases of this house; its figures are added at the end."""
    attestors = 3 if house is House.QUORUM else 1
    stage = Stage(root, brokers, seed, attestors=attestors, proxied=house is House.PROXIED)
    report.ledgers += 1
    try:
        yield stage
    finally:
        report.transactions += stage.tally.transactions
        report.blocks += stage.tally.blocks
        for kind, count in stage.tally.events.items():
            report.events[kind] = report.events.get(kind, 0) + count
        samples = [rss for life in stage.fleet.lives.values() if life.command == "worker" for _, rss in life.rss]
        report.peak_rss = max([report.peak_rss, *samples])
        stage.close()


def soak(root: Path, seed: int, minutes: float, say: Say, only: Iterable[Case] = ()) -> Report:
    """Cases by weight until the time is over; then memory under a load that nobody disturbs."""
    random, report, started = Random(seed), Report(), time.monotonic()
    cases = [case for case in (tuple(only) or CASES) if case.play is not disk_full or mounts_are_permitted()]
    until = started + minutes * 60 * (1 - _STEADY_SHARE)
    number = 0
    houses = list(dict.fromkeys(case.house for case in cases))
    weights = [sum(case.weight for case in cases if case.house is house) / _COSTS.get(house, 1) for house in houses]
    unplayed = {case.name for case in cases}
    while time.monotonic() < until:
        # First every house once, the longest list first; then by weight.
        house = houses[number] if number < len(houses) else random.choices(houses, weights)[0]
        number += 1
        place = root / f"brokers-{number}"
        try:
            with brokers_of(house, place) as brokers:
                broken = _soak_ledgers(root / f"{number}", brokers, house, cases, unplayed, random, report, until, say)
        except (HauptbuchError, OSError) as error:  # the report of all others must not be lost
            report.lines.setdefault("start or end of brokers", Line()).broken.append(f"{place}: {error}"[:2000])
            say(f"BROKEN brokers: {error}")
            continue
        if not broken:
            shutil.rmtree(place, ignore_errors=True)
    if not only:
        _steady(root, random.getrandbits(32), minutes * 60 * _STEADY_SHARE, report, say)
    report.seconds = time.monotonic() - started
    return report


def _soak_ledgers(
    root: Path,
    brokers: Brokers,
    house: House,
    cases: Iterable[Case],
    unplayed: set[str],
    random: Random,
    report: Report,
    until: float,
    say: Say,
) -> bool:
    """Some ledgers on these brokers; whether one broke."""
    mine = [case for case in cases if case.house is house]
    is_first = any(case.name in unplayed for case in mine)
    for ledger in range(1 if is_first or house in _COSTS else _LEDGERS_A_CLUSTER):
        where = root / f"ledger-{ledger}"
        try:
            with stage_of(house, where, brokers, random.getrandbits(32), report) as stage:
                held = _soak_ledger(stage, mine, unplayed, random, report, until, say)
        except (LedgerBroken, AssertionError, HauptbuchError, OSError) as error:
            report.lines.setdefault("start of a ledger", Line()).broken.append(f"{where}: {error}"[:2000])
            say(f"BROKEN start: {error}")
            held = False
        if not held:
            return True
        shutil.rmtree(where)
        if time.monotonic() > until:
            break
    return False


def _soak_ledger(
    stage: Stage,
    cases: Sequence[Case],
    unplayed: set[str],
    random: Random,
    report: Report,
    until: float,
    say: Say,
) -> bool:
    """Cases on one ledger, those first that were never played; whether all held."""
    for _ in range(min(_CASES_A_LEDGER, len(cases))):
        new = [case for case in cases if case.name in unplayed]
        chosen = new or cases
        case = random.choices(chosen, [one.weight for one in chosen])[0]
        unplayed.discard(case.name)
        if not play(stage, case, report, say):
            return False
        if case.retires or time.monotonic() > until:
            break
    return True


def _steady(root: Path, seed: int, seconds: float, report: Report, say: Say) -> None:
    """Load that nobody disturbs: the memory of its workers must not grow."""
    with (
        brokers_of(House.PLAIN, root / "brokers-steady") as brokers,
        stage_of(House.PLAIN, root / "steady", brokers, seed, report) as stage,
    ):
        workers = stage.fleet.workers
        stage.play()
        time.sleep(max(seconds, _LEAST_STEADY_S))
        for life in workers:
            early, late = memory_of(life)
            is_flat = late <= early * 1.1 + 8 * _MEGABYTE
            report.is_flat &= is_flat
            report.flat.append(
                f"{life.slot}: of {life.rss[-1][0]:.0f} s but the first third, {early / _MEGABYTE:.0f} MiB in the "
                f"second quarter, {late / _MEGABYTE:.0f} MiB in the last: {'flat' if is_flat else 'GROWS'}"
            )
            say(report.flat[-1])
        stage.rest()
        stage.judge()
        say(f"held: steady load of {seconds:.0f} s, {stage.tally.transactions} receipts")


def memory_of(life: Life) -> tuple[float, float]:
    """Median resident bytes in the second and in the last quarter of what was sampled after a worker was warm."""
    warm = [rss for age, rss in life.rss if age > life.rss[-1][0] * _WARM_SHARE]
    quarter = max(1, len(warm) // 4)
    return statistics.median(warm[quarter : 2 * quarter] or warm), statistics.median(warm[-quarter:])
