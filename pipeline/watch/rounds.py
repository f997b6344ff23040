"""A synchronizer or attestor as seen from outside: its rounds, what it checked, and what is under way meanwhile."""

from collections import deque
from collections.abc import Callable, Collection, Iterator
from time import monotonic, perf_counter, time
from typing import Final

import structlog
from prometheus_client.metrics_core import Metric

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Hash32
from pipeline.errors import HauptbuchError
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.cursor import ShardCursor
from pipeline.sync.ledger_follower import LedgerFollower
from pipeline.sync.life import SyncState
from pipeline.sync.observer import RoundObserver
from pipeline.sync.round_task import RoundTask
from pipeline.watch.flight import FlightBook, FlightValues
from pipeline.watch.lasting import GAP_S, Lasting
from pipeline.watch.log_meter import MeasuredLog, hidden_records
from pipeline.watch.names import Sample, family, histogram
from pipeline.watch.process import ProcessWatch

_MAX_VALUES: Final = 100
"""Series of value under way: anyone can make assets, and each would be a label."""
_MAX_NAMED: Final = 8


class RoundWatch(ProcessWatch, RoundObserver):
    """`task` is set by whoever made it, before its first step."""

    def __init__(
        self,
        chain: Chain,
        role: str,
        clock_s: Callable[[], float] = monotonic,
        wall_clock_s: Callable[[], float] = time,
    ) -> None:
        """`role` is what logs call it."""
        super().__init__(clock_s)
        self.task: RoundTask | None = None
        self._chain = chain
        self._role = role
        self._wall_clock_s = wall_clock_s
        self._flight = FlightBook()
        self._values = FlightValues(chain)
        # Of the round that is being committed and the one that began meanwhile.
        self._begun_s: deque[float] = deque(maxlen=2)
        self._waiting = Lasting(clock_s)
        self._held_up = Lasting(clock_s, GAP_S)
        self._round = histogram("hauptbuch_round_seconds", self.registry)
        self._log = structlog.get_logger("hauptbuch").bind(role=role)
        self.registry.register(self)

    def moved(self, state: SyncState, error: HauptbuchError | None) -> None:
        """As the observer."""
        follower = self._follower
        if follower is not None:
            self._flight.begin([shard.cursor for shard in follower.ledger.shards])
        if error is None:
            number = None if follower is None else follower.ledger.round
            at = "" if number is None else f", round {number}"
            self._log.info(f"{self._role}: {state.value}{at}", state=state.value, round=number)
        else:
            self.incidents.halts += state is SyncState.HALTED
            self._log.error(f"{self._role}: {state.value}: {error}", state=state.value)

    def setback(self, error: HauptbuchError) -> None:
        """As the observer."""
        self.incidents.fenced_anew(error)
        self._begun_s.clear()
        self._log.warning(f"{self._role}: fenced anew: {error}")

    def held_up(self, error: HauptbuchError) -> None:
        """As the observer: where it lasts."""
        if self._held_up.is_due(None):
            self._log.warning(f"{self._role}: held up: {error}")

    def checked(self, header: BlockHeader, cursor: ShardCursor) -> None:
        """As the observer."""
        self._flight.checked(header, cursor)

    def begun(self) -> None:
        """As the observer."""
        self._begun_s.append(perf_counter())

    def waits(self, number: int, signers: Collection[Hash32]) -> None:
        """As the observer: a round that waits for long is told, with whose signatures it lacks."""
        governance = None if self._follower is None else self._follower.governance
        if governance is None or len(signers) >= governance.attestor_threshold or not self._waiting.is_due(number):
            return
        keys = enumerate(governance.attestors, 1)
        missing = [f"attestor {n} ({key.key_id.hex()[:16]})" for n, key in keys if key.key_id not in signers]
        named = ", ".join(missing[:_MAX_NAMED]) + (", ..." if len(missing) > _MAX_NAMED else "")
        self._log.warning(
            f"{self._role}: round {number} waits with {len(signers)} of {governance.attestor_threshold} signatures; "
            f"see that these run, with their keys, clocks and assurance: {named}",
            round=number,
        )

    def declines(self, number: int, why: str) -> None:
        """As the observer: where it lasts."""
        if self._waiting.is_due(number):
            self._log.warning(f"{self._role}: round {number} is not signed here: {why}", round=number)

    def done(self, number: int) -> None:
        """As the observer."""
        seconds = None
        if self._begun_s:
            seconds = perf_counter() - self._begun_s.popleft()
            self._round.observe(seconds)
        self._log.debug(f"{self._role}: round {number}", round=number, seconds=seconds)

    def obstacles(self) -> list[str]:
        """That it does not run."""
        task = self.task
        if task is not None and task.state is SyncState.RUNNING:
            return []
        why = "" if task is None or task.error is None else f": {task.error}"
        return [f"{self._role}: {'starting' if task is None else task.state.value}{why}"]

    def measure(self, log: MeasuredLog) -> list[Metric]:
        """What open transactions hide, and the value under way."""
        sources = [TopicPartition(Topic.CONTROL, 0), TopicPartition(Topic.CHECKPOINTS, 0)]
        sources += [TopicPartition(Topic.BLOCKS, shard) for shard in sorted(dict(self._flight.heads))]
        values = sorted(self._values.measure(log, self._flight).items(), key=lambda item: -item[1])[:_MAX_VALUES]
        samples: list[Sample] = [((*channel, asset.hex()), float(value)) for (channel, asset), value in values]
        return [hidden_records(log, sources), family("hauptbuch_channel_in_flight_value", samples)]

    def collect_own(self) -> Iterator[Metric]:
        """Of rounds, shards and channels."""
        task, follower = self.task, self._follower
        if task is not None:
            states = [([state.value], float(task.state is state)) for state in SyncState]
            yield family("hauptbuch_signer_state", states)
        if follower is not None:
            ledger, tracks = follower.ledger, list(enumerate(follower.tracks))
            yield family("hauptbuch_signed_round", [([], ledger.round)])
            signed_at: list[Sample] = [([], ledger.timestamp_ms / 1000)] if ledger.round >= 0 else []
            yield family("hauptbuch_signed_round_timestamp_seconds", signed_at)
            yield family("hauptbuch_signed_height", [([shard], track.signed_height) for shard, track in tracks])
            yield family("hauptbuch_checked_height", [([shard], track.checked_height) for shard, track in tracks])
        underway = list(self._flight.underway())
        bundles = [(entry.channel, float(entry.sent - entry.executed)) for entry in underway]
        yield family("hauptbuch_channel_in_flight_bundles", bundles)
        now_s = self._wall_clock_s()
        ages = [(entry.channel, max(0.0, now_s - entry.since_ms / 1000)) for entry in underway]
        yield family("hauptbuch_channel_in_flight_age_seconds", ages)

    @property
    def _follower(self) -> LedgerFollower | None:
        return None if self.task is None else self.task.follower
