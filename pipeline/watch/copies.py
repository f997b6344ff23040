"""A warm copy of a shard as seen from outside."""

from collections.abc import Iterable, Iterator

import structlog
from prometheus_client.metrics_core import Metric

from pipeline.codec.types import ShardId
from pipeline.errors import HauptbuchError
from pipeline.shards.observer import CopyObserver
from pipeline.watch.names import family


def percent(height: int, end: int) -> int:
    """How much of the blocks up to `end` stands, in whole percent."""
    return 100 * (height + 1) // (end + 1) if end >= 0 else 100


class CopyWatch(CopyObserver):
    """Logs how a copy comes along and keeps its height."""

    def __init__(self, shard: ShardId) -> None:
        """Of a copy that is kept from now on."""
        self.shard = shard
        self.height: int | None = None
        self.is_warm = False
        self._log = structlog.get_logger("hauptbuch").bind(shard=shard)

    def catching_up(self, height: int, end: int) -> None:
        """As the observer."""
        self.height, self.is_warm = height, False
        self._log.info(f"shard {self.shard}: standby, block {height} of {end}, {percent(height, end)} %", height=height)

    def follows(self, height: int) -> None:
        """As the observer."""
        self.height = height
        if not self.is_warm:
            self.is_warm = True
            self._log.info(f"shard {self.shard}: standby, block {height}, warm", height=height)

    def failed(self, error: HauptbuchError) -> None:
        """As the observer."""
        self.is_warm = False
        self._log.error(f"shard {self.shard}: standby stopped: {error}", height=self.height)

    def gone(self) -> None:
        """As the observer."""
        self._log.debug(f"shard {self.shard}: no standby any more", height=self.height)


def collect_copies(copies: Iterable[CopyWatch]) -> Iterator[Metric]:
    """Heights and warmth of the copies of a worker."""
    copies = list(copies)
    heights = [([copy.shard], float(copy.height)) for copy in copies if copy.height is not None]
    yield family("hauptbuch_standby_height", heights)
    yield family("hauptbuch_standby_warm", [([copy.shard], float(copy.is_warm)) for copy in copies])
