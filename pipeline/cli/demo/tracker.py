"""When does a published transaction have its receipt, its effects on other shards, a signed root over its block?

Reads the log as any client does, only what is new, between the node's steps. Receipts of a shard come in the order of
offsets and bundles of a channel in the order of sequences, so looking at the first of each queue is enough.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pipeline.client.light import LightClient, VerifiedRoot
from pipeline.client.producer import TransactionFuture
from pipeline.client.receipts import ReceiptWatcher
from pipeline.client.subscriber import StateRootSubscriber
from pipeline.codec.topics import Topic
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import Code
from pipeline.ledger.receipts import TransactionReceipt
from pipeline.log.port import EventLog
from pipeline.shards.block_reader import BlockReader

_BLOCKS: Final = 256


class _Waiting(NamedTuple):
    due_s: float
    offset: int


class _Unsettled(NamedTuple):
    due_s: float
    receipt: TransactionReceipt


@dataclass(slots=True)
class Observed:
    """What was seen of a phase: times from publishing, in seconds, and counts."""

    receipt_s: list[float] = field(default_factory=list)
    settled_s: list[float] = field(default_factory=list)
    root_s: list[float] = field(default_factory=list)
    crossed: int = 0
    rejected: int = 0


class Tracker:
    """Follows published transactions to their ends. `poll` it between steps."""

    def __init__(self, log: EventLog, chain: Chain, watcher: ReceiptWatcher, client: LightClient) -> None:
        """`client` decides which roots count."""
        shards = range(chain.genesis.shards)
        self._watcher = watcher
        self._subscriber = StateRootSubscriber(log, client, shards)
        self._blocks = [BlockReader(log, shard, 0, chain.chain_id) for shard in shards]
        self._ends: list[list[int]] = [[] for _ in shards]
        self._roots: list[VerifiedRoot] = []
        self._signed_heights = [-1 for _ in shards]
        self._without_receipt: list[deque[_Waiting]] = [deque() for _ in shards]
        self._without_root: list[deque[_Waiting]] = [deque() for _ in shards]
        self._unsettled: defaultdict[tuple[int, int], deque[_Unsettled]] = defaultdict(deque)
        self.observed = Observed()

    @property
    def refused_roots(self) -> int:
        """Records of `state-roots` that did not verify."""
        return self._subscriber.refused_total

    def begin(self) -> Observed:
        """What is seen from now on counts for a new phase."""
        assert self.is_done(), "a phase begins when the last one has ended"
        self.observed = Observed()
        return self.observed

    def published(self, futures: Sequence[TransactionFuture], due_s: Sequence[float]) -> None:
        """Follow these; `due_s` is when each was due to be published, by the caller's clock."""
        for future, due in zip(futures, due_s, strict=True):
            waiting = _Waiting(due, future.offset)
            self._without_receipt[future.signed.target.partition].append(waiting)
            self._without_root[future.signed.target.partition].append(waiting)

    def is_done(self) -> bool:
        """Whether each has its receipt, has settled, and is under a signed root."""
        return not (any(self._without_receipt) or any(self._without_root) or any(self._unsettled.values()))

    def covers(self, heights: Sequence[int]) -> bool:
        """Whether the roots seen sign these blocks, one height a shard."""
        return all(signed >= height for signed, height in zip(self._signed_heights, heights, strict=True))

    def poll(self, now_s: float) -> None:
        """Read what is new. Raises as the readers do."""
        self._watcher.poll()
        for shard, queue in enumerate(self._without_receipt):
            while queue and self._watcher.has_receipt(shard, queue[0].offset):
                self._take_receipt(shard, queue.popleft(), now_s)
        for unsettled in self._unsettled.values():
            while unsettled and self._watcher.is_settled(unsettled[0].receipt):
                self.observed.settled_s.append(now_s - unsettled.popleft().due_s)
        self._poll_roots(now_s)

    def _take_receipt(self, shard: int, waiting: _Waiting, now_s: float) -> None:
        receipt = self._watcher.receipt(shard, waiting.offset)
        assert receipt is not None, "has_receipt said so"
        observed = self.observed
        observed.receipt_s.append(now_s - waiting.due_s)
        observed.rejected += receipt.code is not Code.OK
        if not receipt.channels:
            observed.settled_s.append(now_s - waiting.due_s)
            return
        observed.crossed += 1
        self._unsettled[shard, receipt.channels[-1].destination].append(_Unsettled(waiting.due_s, receipt))

    def _poll_roots(self, now_s: float) -> None:
        self._roots += self._subscriber.poll()
        if not self._roots:
            return
        for reader, ends in zip(self._blocks, self._ends, strict=True):
            while blocks := reader.read(_BLOCKS):
                ends += [block.header.input(Topic.TRANSACTIONS).next for block in blocks]
        roots, self._roots = self._roots, []
        for root in roots:
            shard = root.state_root.shard
            if root.state_root.height >= len(self._ends[shard]):  # a reader of one topic may be ahead of another's
                self._roots.append(root)
                continue
            self._signed_heights[shard] = root.state_root.height
            end = self._ends[shard][root.state_root.height]
            queue = self._without_root[shard]
            while queue and queue[0].offset < end:
                self.observed.root_s.append(now_s - queue.popleft().due_s)
