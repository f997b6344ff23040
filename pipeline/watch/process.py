"""One process as seen from outside: whether it steps, whether it serves, and what it counts."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pipeline.watch.incidents import Incidents
from pipeline.watch.log_meter import LogMeter, MeasuredLog
from pipeline.watch.names import family

STALL_S: Final = 60.0
"""A driver that did not step for this long is stuck: a worker has lost its shards by then."""


def _none_verified() -> int:
    return 0


class ProcessWatch(Collector, ABC):
    """Metrics and health of one process; registers itself with `registry`.

    `verified` tells how many signatures were checked; whoever has the verifier sets it. `meter` asks the cluster, where
    metrics are served.
    """

    def __init__(self, clock_s: Callable[[], float] = monotonic) -> None:
        """Begins as if it had stepped just now."""
        self.registry = CollectorRegistry()
        self.incidents = Incidents()
        self.verified: Callable[[], int] = _none_verified
        self.meter: LogMeter | None = None
        self._clock_s = clock_s
        self._stepped_s = clock_s()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def stepped(self) -> None:
        """The driver is about to step."""
        self._stepped_s = self._clock_s()

    def watching(self, is_done: Callable[[], bool]) -> Callable[[], bool]:
        """`is_done`, which a driver asks before each step, so that each step is noticed."""

        def watched() -> bool:
            self.stepped()
            return is_done()

        return watched

    @property
    def step_age_s(self) -> float:
        """Time since the driver's last step."""
        return self._clock_s() - self._stepped_s

    def ailments(self) -> list[str]:
        """Why this process is not alive, a line each."""
        age_s = self.step_age_s
        return [f"no step for {age_s:.0f} s: the driver is stuck, restart the process"] if age_s > STALL_S else []

    @abstractmethod
    def obstacles(self) -> list[str]:
        """Why this process does not serve now, a line each."""

    @abstractmethod
    def measure(self, log: MeasuredLog) -> list[Metric]:
        """What only the log can tell; in the thread of the meter. Raises as the log does."""

    @abstractmethod
    def collect_own(self) -> Iterator[Metric]:
        """Metrics beyond those of every process."""

    def collect(self) -> Iterator[Metric]:
        """All that is not a histogram; called by the registry, in the thread of a scrape."""
        yield family("hauptbuch_step_age_seconds", [([], self.step_age_s)])
        yield family("hauptbuch_signatures_verified_total", [([], self.verified())])
        yield from self.incidents.collect()
        yield from self.collect_own()
        if self.meter is not None:
            yield from self.meter.collect()

    def describe(self) -> Iterator[Metric]:
        """Nothing: so that registering does not collect."""
        return iter(())
