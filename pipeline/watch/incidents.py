"""What went wrong in one process, counted: fencings by cause, and halts."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from pipeline.errors import HauptbuchError, OutcomeUnknown, TaskFenced, TransactionAbortable
from pipeline.watch.names import family


def cause_of(error: HauptbuchError) -> str:
    """Why a writer is opened anew: fenced by another one, transaction aborted, outcome unknown, or no answer."""
    match error:
        case TaskFenced():
            return "fenced"
        case TransactionAbortable():
            return "aborted"
        case OutcomeUnknown():
            return "unknown"
        case _:
            return "unanswered"


class Incidents:
    """Written by the driver's thread alone."""

    def __init__(self) -> None:
        """Nothing happened yet."""
        self.halts = 0
        self._fencings = dict.fromkeys(("fenced", "aborted", "unknown", "unanswered"), 0)

    def fenced_anew(self, error: HauptbuchError) -> None:
        """Uncommitted work was dropped for `error`."""
        self._fencings[cause_of(error)] += 1

    def collect(self) -> Iterator[Metric]:
        """Both counters."""
        yield family("hauptbuch_fencings_total", [([cause], count) for cause, count in self._fencings.items()])
        yield family("hauptbuch_halts_total", [([], self.halts)])
