"""The two phases: as fast as it goes, then paced at half that rate."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter, sleep
from typing import Final

from pipeline.cli.demo.ledger import DemoLedger
from pipeline.cli.demo.tracker import Tracker
from pipeline.client.producer import Signed
from pipeline.errors import InvalidTransactionResult

_PUBLISH_TOGETHER: Final = 1_000
_LONGEST_SLEEP_S: Final = 0.001
PACE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Throughput:
    """Phase 1. `seconds`: from the first publication until every receipt was read, `settled_seconds`: until all is
    settled and under a signed root."""

    transactions: int
    crossed: int
    blocks: int
    seconds: float
    settled_seconds: float

    @property
    def rate(self) -> float:
        """Transactions a second."""
        return self.transactions / self.seconds


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Percentiles":
        """Nearest rank."""
        ordered = sorted(seconds)
        return cls(*(1000 * ordered[-(-len(ordered) * rank // 100) - 1] for rank in (50, 99)))


@dataclass(frozen=True, slots=True)
class Latency:
    """Phase 2: from when a transaction was due."""

    transactions: int
    rate: float
    receipt: Percentiles
    settled: Percentiles
    root: Percentiles


def play_fast(ledger: DemoLedger, tracker: Tracker, signed: Sequence[Signed]) -> Throughput:
    """Publish all and wait until all is done. Raises `InvalidTransactionResult` for a rejected payment."""
    observed, blocks = tracker.begin(), ledger.blocks()
    started = perf_counter()
    for start in range(0, len(signed), _PUBLISH_TOGETHER):
        part = signed[start : start + _PUBLISH_TOGETHER]
        now_s = perf_counter()
        tracker.published(ledger.producer.publish(part), [now_s] * len(part))
        ledger.node.step()
        tracker.poll(perf_counter())
    receipts_s = 0.0

    def is_done() -> bool:
        nonlocal receipts_s
        tracker.poll(perf_counter())
        if not receipts_s and len(observed.receipt_s) == len(signed):
            receipts_s = perf_counter() - started
        return tracker.is_done()

    ledger.run_until(is_done)
    _refuse_rejected(observed.rejected)
    return Throughput(len(signed), observed.crossed, ledger.blocks() - blocks, receipts_s, perf_counter() - started)


def play_paced(ledger: DemoLedger, tracker: Tracker, signed: Sequence[Signed], rate: float) -> Latency:
    """Publish at `rate` a second, each when it is due, and measure from then: a late publication counts as waiting.

    Raises `InvalidTransactionResult` for a rejected payment.
    """
    observed = tracker.begin()
    waiting = deque(signed)
    started = perf_counter()
    while waiting:
        now_s = perf_counter()
        count = min(int((now_s - started) * rate) + 1 - (len(signed) - len(waiting)), len(waiting))
        if count > 0:
            first = len(signed) - len(waiting)
            part = [waiting.popleft() for _ in range(count)]
            tracker.published(ledger.producer.publish(part), [started + (first + i) / rate for i in range(count)])
        worked = ledger.node.step()
        tracker.poll(perf_counter())
        if not worked and waiting:
            next_due_s = started + (len(signed) - len(waiting)) / rate
            sleep(min(max(0.0, next_due_s - perf_counter()), _LONGEST_SLEEP_S))

    def is_done() -> bool:
        tracker.poll(perf_counter())
        return tracker.is_done()

    ledger.run_until(is_done)
    _refuse_rejected(observed.rejected)
    receipt, settled, root = (Percentiles.of(s) for s in (observed.receipt_s, observed.settled_s, observed.root_s))
    return Latency(len(signed), rate, receipt, settled, root)


def _refuse_rejected(rejected: int) -> None:
    if rejected:
        raise InvalidTransactionResult(f"{rejected} payments were rejected, though their payers were funded; audit it")
