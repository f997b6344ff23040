"""Cross-shard communication as one sees it from outside: where entries go, whether channels hold, what is under way.

No rule lives here: routing is the shard map's, admission is the engine's `follows`; shards send and execute bundles
by themselves. What this adds is the view over all channels, with errors that name channel and sequence.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.codec.types import AssetId, ShardId, TxId
from pipeline.errors import InvalidCrossShardMessage, InvalidTransaction, TaskDiverged
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import DeadLetterReason
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.inbound import ReadBundle, follows, read_bundle
from pipeline.ledger.packing import RELAY_ENTRY, ChannelHead
from pipeline.ledger.receipts import ChannelUse, TransactionReceipt
from pipeline.ledger.relay import EffectKind
from pipeline.ledger.transactions import Freeze, Mint, SignedTransaction, Transfer
from pipeline.log.port import EventLog
from pipeline.shards.submission import Submission, check_form
from pipeline.shards.traffic import CommunicationMonitor, TrafficReport

_PAGE: Final = 256
_PAGE_BYTES: Final = 16 << 20
_KEPT_ERRORS: Final = 64
_WITHOUT_AMOUNT: Final = (EffectKind.FREEZE, EffectKind.THAW)


class RouteShare(NamedTuple):
    """What of a transaction goes to one shard: entries, and amounts by asset in minor units."""

    shard: ShardId
    entries: int
    amounts: dict[AssetId, int]


@dataclass(frozen=True, slots=True)
class Route:
    """Where a transaction's entries go from its sender's shard; `remote` ascends by shard."""

    source: ShardId
    local: RouteShare
    remote: tuple[RouteShare, ...]

    @property
    def crosses_shards(self) -> bool:
        """Whether any entry leaves the sender's shard."""
        return bool(self.remote)


@dataclass(frozen=True, slots=True)
class CrossShardResult:
    """A transaction's messages: the bundles that carry its effects, (destination, sequence) each."""

    tx_id: TxId
    source: ShardId
    messages: tuple[ChannelUse, ...]


class MessageRouter:
    """Splits transactions by the shard map."""

    def __init__(self, chain: Chain) -> None:
        """Routes by the map of `chain`."""
        self._chain = chain

    def owner_of(self, identifier: bytes) -> ShardId:
        """The shard of a 32-byte address or asset. Raises `InvalidTransaction` for another length."""
        if len(identifier) != 32:
            raise InvalidTransaction(f"an address or asset has 32 bytes, not {len(identifier)}")
        return self._chain.shard_map.owner_of(identifier)

    def route(self, transaction: SignedTransaction) -> Route:
        """Where the entries go. Raises as `check_form`."""
        return self.route_submission(check_form(self._chain, transaction))

    def route_submission(self, submission: Submission) -> Route:
        """The same for a transaction that was read before."""
        source, prepared = submission.shard, submission.prepared
        entries: Counter[ShardId] = Counter()
        amounts: defaultdict[ShardId, Counter[AssetId]] = defaultdict(Counter)
        for operation, placed in zip(prepared.body.operations, prepared.placed, strict=True):
            match operation:
                case Transfer(asset) | Mint(asset):
                    for entry in placed:
                        entries[entry.owner] += 1
                        amounts[entry.owner][asset] += entry.amount
                case Freeze(_, account):
                    entries[self.owner_of(account)] += 1
                case _:
                    entries[source] += 1
        shares = {shard: RouteShare(shard, entries[shard], dict(amounts[shard])) for shard in entries}
        local = shares.pop(source, RouteShare(source, 0, {}))
        return Route(source, local, tuple([shares[shard] for shard in sorted(shares)]))


class CrossShardValidator:
    """Reads relay partitions and holds every bundle to its channel; a shard would halt or bury what is refused here."""

    def __init__(self, chain: Chain, log: EventLog) -> None:
        """Starts every destination at offset 0, unless `resume` says otherwise."""
        self._chain = chain
        self._log = log
        self._positions: dict[ShardId, int] = {}
        self._heads: dict[tuple[ShardId, ShardId], ChannelHead] = {}

    def resume(self, cursor: ShardCursor) -> None:
        """Go on where a shard has executed its relay partition."""
        self._positions[cursor.shard] = cursor.positions[1]
        for head in cursor.channels_in.values():
            self._heads[ShardId(head.peer), cursor.shard] = head

    def check(self, destination: ShardId, record: LogRecord) -> bool:
        """Hold one record of `relay[destination]` to its channel; False for a repeat of an earlier bundle.

        Raises `InvalidCrossShardMessage` naming channel and sequence; the channel then stays where it was.
        """
        where = f"relay partition {destination} offset {record.offset}"
        read = read_bundle(self._chain, destination, record)
        if isinstance(read, DeadLetterReason):
            raise InvalidCrossShardMessage(f"{where}: {read.name.lower()}; the shard sets it aside as a dead letter")
        channel = (read.bundle.source, destination)
        try:
            is_next = follows(self._chain, destination, self._heads.get(channel), read)
        except TaskDiverged as error:
            raise InvalidCrossShardMessage(f"{where}: {error}") from None
        if not is_next:
            return False
        self._check_content(destination, read, where)
        self._heads[channel] = ChannelHead(read.bundle.source, read.bundle.sequence, read.head)
        return True

    def scan(self, destination: ShardId) -> tuple[int, list[InvalidCrossShardMessage]]:
        """Check the bundles committed since: how many new ones hold, and the first of what does not."""
        source = TopicPartition(Topic.RELAY, destination)
        held, refused = 0, list[InvalidCrossShardMessage]()
        while records := self._log.read(source, self._positions.get(destination, 0), _PAGE, _PAGE_BYTES):
            for record in records:
                try:
                    held += self.check(destination, record)
                except InvalidCrossShardMessage as error:
                    if len(refused) < _KEPT_ERRORS:
                        refused.append(error)
            self._positions[destination] = records[-1].offset + 1
        return held, refused

    def validate(self, destination: ShardId) -> int:
        """Check the bundles committed since; how many new ones there were.

        Raises `InvalidCrossShardMessage` for the first that does not hold; the next call goes on behind all of them.
        """
        held, refused = self.scan(destination)
        if refused:
            raise refused[0]
        return held

    def last_sequence(self, source: ShardId, destination: ShardId) -> int:
        """The last bundle of a channel that was checked; 0 before the first."""
        head = self._heads.get((source, destination))
        return head.sequence if head else 0

    def _check_content(self, destination: ShardId, read: ReadBundle, where: str) -> None:
        bundle = read.bundle
        name = f"{where}: relay channel {bundle.source} -> {destination}: bundle {bundle.sequence}"
        owners = self._chain.shard_map.owners
        for group in read.groups:
            for entry, to, amount in RELAY_ENTRY.iter_unpack(group.entries):
                if owners[to[0] << 4 | to[1] >> 4] != destination:
                    raise InvalidCrossShardMessage(f"{name} entry {entry}: its receiver lives on another shard")
                if any(amount) == (group.kind in _WITHOUT_AMOUNT):
                    raise InvalidCrossShardMessage(f"{name} entry {entry}: a {_kind(group.kind)} of a wrong amount")


def _kind(kind: int) -> str:
    return EffectKind(kind).name.lower()


class CrossShardCommunicator:
    """Router, validator and monitor of one chain."""

    def __init__(self, chain: Chain, log: EventLog) -> None:
        """Nothing is read before a shard is named."""
        self.message_router = MessageRouter(chain)
        self.cross_shard_validator = CrossShardValidator(chain, log)
        self.communication_monitor = CommunicationMonitor(chain, log)
        self._shards: set[ShardId] = set()

    def start_communication(self, cursors: Iterable[ShardCursor]) -> None:
        """Follow these shards from where they stand."""
        for cursor in cursors:
            self.initialize_shard_communication(cursor)

    def initialize_shard_communication(self, cursor: ShardCursor) -> None:
        """Follow one more shard. Nothing to do where it is followed."""
        if cursor.shard not in self._shards:
            self._shards.add(cursor.shard)
            self.cross_shard_validator.resume(cursor)
            self.communication_monitor.watch(cursor)

    def handle_cross_shard_transaction(self, submission: Submission, receipt: TransactionReceipt) -> CrossShardResult:
        """The messages that a receipt names, each checked on the log against its channel.

        Raises `InvalidCrossShardMessage` where one goes to a shard that the transaction has no entry for, is not on
        the log, or does not hold.
        """
        source, validator = submission.shard, self.cross_shard_validator
        if receipt.channels:
            destinations = {share.shard for share in self.message_router.route_submission(submission).remote}
            for use in receipt.channels:
                name = f"relay channel {source} -> {use.destination}: bundle {use.sequence} is named by a receipt"
                if use.destination not in destinations:
                    raise InvalidCrossShardMessage(f"{name} whose transaction has no entry for it")
                destination = ShardId(use.destination)
                if validator.last_sequence(source, destination) < use.sequence:
                    # What is wrong with others' messages is not this transaction's fault.
                    validator.scan(destination)
                if validator.last_sequence(source, destination) < use.sequence:
                    raise InvalidCrossShardMessage(f"{name} and is not on the log, or does not hold; audit the shard")
        return CrossShardResult(receipt.tx_id, source, receipt.channels)

    def report(self) -> TrafficReport:
        """What is under way."""
        return self.communication_monitor.report()
