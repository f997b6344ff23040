"""How long a single payment takes on a real broker: to its receipt, to its effect on another shard, to a signed root.

A thread publishes at a steady rate, each payment when it is due, and all times count from then: a late publication is
waiting, too. Another thread observes as any client does. Every payment crosses shards.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter, sleep

from benchmarks.bed import receiver
from benchmarks.kafka_bed import Bed, bed
from pipeline.cli.demo.phases import Percentiles
from pipeline.client.producer import Publication, Signed

RATE = 200.0
"""Single payments a second that the aims are for."""
CALM_RATE = 40.0
"""So few that nobody waits for a processor: what is left are the hops."""
SENDERS = 64


@dataclass(frozen=True)
class Window:
    """Milliseconds from publishing."""

    receipt: Percentiles
    settled: Percentiles
    root: Percentiles


def run(
    bootstrap: str, shards: int, seconds: float, windows: int, warm_up_s: float, rates: Sequence[float] = (RATE,)
) -> dict[float, list[Window]]:
    """One worker, one synchronizer; a warm-up, then windows of measurement at each rate."""
    with bed(bootstrap, shards) as ledger:
        ledger.fund({f"payer-{number}": 10**9 for number in range(SENDERS)})
        window(ledger, payments(ledger, int(RATE * warm_up_s)), RATE)
        measured: dict[float, list[Window]] = {}
        for rate in rates:
            count = int(rate * seconds)
            signed = payments(ledger, windows * count)
            starts = range(0, len(signed), count)
            measured[rate] = [window(ledger, signed[start : start + count], rate) for start in starts]
        return measured


def payments(ledger: Bed, count: int) -> list[Signed]:
    """Payments of one unit, each to another shard than its payer's."""
    shard_map = ledger.chain.shard_map
    receivers = [receiver(f"receiver-{number}") for number in range(2_000)]
    away = [
        [item for item in receivers if shard_map.owner_of(item) != shard]
        for shard in range(ledger.chain.genesis.shards)
    ]
    unsigned = []
    for number in range(count):
        name = f"payer-{number % SENDERS}"
        others = away[shard_map.owner_of(ledger.sender(name).address)]
        unsigned.append(ledger.pay(name, [(others[number * 7 % len(others)], 1)]))
    return ledger.producer.sign(unsigned)


def window(ledger: Bed, signed: Sequence[Signed], rate: float) -> Window:
    """Publish so many of these a second and observe each to its end."""
    observed = ledger.tracker.begin()
    published: deque[tuple[Publication, float]] = deque()
    started = perf_counter() + 0.05

    def publish() -> None:
        for number, item in enumerate(signed):
            due = started + number / rate
            sleep(max(0.0, due - perf_counter()))
            published.append((ledger.producer.begin_publish([item]), due))

    thread = threading.Thread(target=publish)

    def is_done() -> bool:
        is_over = not thread.is_alive()
        while published and (futures := published[0][0].poll()) is not None:
            ledger.tracker.published(futures, [published.popleft()[1]])
        return is_over and not published and ledger.tracker.is_done()

    thread.start()
    try:
        ledger.watch(is_done, observed)
    finally:
        thread.join()
    return Window(*(Percentiles.of(times) for times in (observed.receipt_s, observed.settled_s, observed.root_s)))
