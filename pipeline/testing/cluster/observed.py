"""What the log of a ledger says, read without the readers that the ledger itself uses, for `checker`.

Nothing is refused here and nothing taken for a repeat unless it is the same bytes: judging is the checker's.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NamedTuple

from pipeline.codec.topics import LogRecord, Topic, TopicPartition
from pipeline.crypto.suites import STANDARD_SUITES, SuiteSet
from pipeline.errors import HauptbuchError, PoisonRecord
from pipeline.ledger.blocks import BlockHeader
from pipeline.ledger.chain import Chain
from pipeline.ledger.receipts import (
    BundleReceipt,
    DeadLetter,
    ReceiptChunk,
    TransactionReceipt,
    decode_receipt,
    encode_receipt,
)
from pipeline.ledger.relay import RelayBundle
from pipeline.log.port import EventLog
from pipeline.testing.simulator.outcomes import Outcomes
from pipeline.testing.simulator.prediction import Prediction

_PAGE: Final = 4_096
_PAGE_BYTES: Final = 16 << 20

Place = tuple[int, int]
"""Partition and offset of a record of `transactions`."""
Bundle = tuple[int, int, int]
"""Source, destination, sequence."""


class SeenReceipt(NamedTuple):
    """One of perhaps several receipts of a record."""

    digest: str
    sender: str
    nonce: int
    nonce_consumed: bool
    channels: tuple[tuple[int, int], ...]
    """(destination, sequence) of the bundles that carry its effects."""


class Balances:
    """Amounts by account, asset and height of the account's shard, as the reference model has them."""

    def __init__(self) -> None:
        """Everything is 0."""
        self._changes: dict[tuple[str, str], list[tuple[int, int]]] = {}

    def note(self, height: int, address: str, asset: str, amount: int) -> None:
        """What it is from this block on, until the next note."""
        changes = self._changes.setdefault((address, asset), [])
        if not changes or changes[-1][1] != amount:
            changes.append((height, amount))

    def at(self, height: int, address: str, asset: str) -> int:
        """After the block of this height."""
        amount = 0
        for since, value in self._changes.get((address, asset), []):
            if since > height:
                break
            amount = value
        return amount


@dataclass(slots=True)
class Observed:
    """The log's own account of what happened."""

    records: dict[Place, str] = field(default_factory=dict)
    """SHA-256 of each committed record of `transactions`."""
    receipts: dict[Place, list[SeenReceipt]] = field(default_factory=dict)
    dead: Counter[Place] = field(default_factory=Counter)
    roots: dict[tuple[int, int], set[tuple[str, str]]] = field(default_factory=dict)
    """(block hash, state root) of every header at (shard, height)."""
    sent: dict[Bundle, set[str]] = field(default_factory=dict)
    executed: Counter[Bundle] = field(default_factory=Counter)
    refunds: dict[Bundle, list[tuple[int, int]]] = field(default_factory=dict)
    """(destination, sequence) of the bundles that an executed one caused."""
    balances: Balances = field(default_factory=Balances)
    complaints: list[str] = field(default_factory=list)
    """Where the ledger and the reference model differ, or a record can't be read."""


def observe(log: EventLog, chain: Chain, suites: SuiteSet = STANDARD_SUITES) -> Observed:
    """Read the whole log, and run the reference model over it. Raises as `EventLog.read`."""
    observed = Observed()
    for shard in range(chain.genesis.shards):
        for record in _records(log, Topic.TRANSACTIONS, shard):
            observed.records[shard, record.offset] = sha256(record.value or b"").hexdigest()
        _read(observed, log, shard)
    model = _Model(chain, log, observed.balances, suites)
    complaint = model.complaint()
    if complaint:
        observed.complaints.append(complaint)
    return observed


def receipt_digest(receipt: TransactionReceipt) -> str:
    """SHA-256 of the canonical receipt."""
    return sha256(encode_receipt(receipt)).hexdigest()


def _records(log: EventLog, topic: Topic, partition: int) -> Iterator[LogRecord]:
    position, source = 0, TopicPartition(topic, partition)
    while page := log.read(source, position, _PAGE, _PAGE_BYTES):
        yield from page
        position = page[-1].offset + 1


def _distinct(log: EventLog, topic: Topic, partition: int) -> Iterator[LogRecord]:
    """Without repeats of the same bytes, which a recovered leader publishes."""
    seen: set[bytes] = set()
    for record in _records(log, topic, partition):
        digest = sha256(record.value or b"").digest()
        if digest not in seen:
            seen.add(digest)
            yield record


def _read(observed: Observed, log: EventLog, shard: int) -> None:
    readers = {
        Topic.RECEIPTS: _take_chunk,
        Topic.DEAD_LETTERS: _take_letter,
        Topic.BLOCKS: _take_header,
        Topic.RELAY: _take_bundle,
    }
    for topic, take in readers.items():
        for record in _distinct(log, topic, shard):
            try:
                take(observed, shard, record)
            except PoisonRecord as error:
                observed.complaints.append(f"{topic.topic_name} {shard}, offset {record.offset}: {error}")


def _take_chunk(observed: Observed, shard: int, record: LogRecord) -> None:
    for datum in ReceiptChunk.from_record(record.value).receipts:
        receipt = decode_receipt(datum)
        match receipt:
            case TransactionReceipt():
                channels = tuple((int(use.destination), int(use.sequence)) for use in receipt.channels)
                digest, sender = sha256(datum).hexdigest(), receipt.sender.hex()
                seen = SeenReceipt(digest, sender, receipt.nonce, receipt.nonce_consumed, channels)
                observed.receipts.setdefault((receipt.partition, receipt.offset), []).append(seen)
            case BundleReceipt():
                bundle = (int(receipt.source), shard, receipt.sequence)
                observed.executed[bundle] += 1
                observed.refunds[bundle] = [(int(use.destination), int(use.sequence)) for use in receipt.channels]


def _take_letter(observed: Observed, _shard: int, record: LogRecord) -> None:
    letter = DeadLetter.from_record(record.value)
    if letter.topic == Topic.TRANSACTIONS:
        observed.dead[letter.partition, letter.offset] += 1


def _take_header(observed: Observed, shard: int, record: LogRecord) -> None:
    header, block_hash = BlockHeader.from_record(record.value)
    observed.roots.setdefault((shard, header.height), set()).add((block_hash.hex(), header.state_root.hex()))


def _take_bundle(observed: Observed, shard: int, record: LogRecord) -> None:
    bundle = RelayBundle.from_record(record.value)
    digest = sha256(record.value or b"").hexdigest()
    observed.sent.setdefault((int(bundle.source), shard, bundle.sequence), set()).add(digest)


class _Model(Prediction):
    """The reference model, which notes every balance after every block."""

    def __init__(self, chain: Chain, log: EventLog, balances: Balances, suites: SuiteSet) -> None:
        self._balances = balances
        self._known: list[dict[tuple[bytes, bytes], int]] = [{} for _ in range(chain.genesis.partitions)]
        self._why = ""
        try:
            super().__init__(chain, log, Outcomes(chain, log), suites)
        except (AssertionError, HauptbuchError) as error:
            self._why = str(error) or "the log's blocks do not follow from each other"

    def complaint(self) -> str:
        """Run it to the end, or to where the ledger says otherwise; what that is, "" for nothing."""
        if not self._why:
            try:
                self.run()
            except (AssertionError, HauptbuchError, LookupError) as error:
                self._why = f"the model: {error!s:.300}"
        return self._why

    def _block(self, shard: int, header: BlockHeader) -> None:
        super()._block(shard, header)
        known, now = self._known[shard], self.shards[shard].state.balances
        for pair in changed(known, now):
            amount = known[pair] = now.get(pair, 0)
            self._balances.note(header.height, pair[0].hex(), pair[1].hex(), amount)


def changed(
    before: dict[tuple[bytes, bytes], int], after: dict[tuple[bytes, bytes], int]
) -> Sequence[tuple[bytes, bytes]]:
    """Accounts and assets whose amounts differ."""
    return [pair for pair in before.keys() | after.keys() if before.get(pair, 0) != after.get(pair, 0)]
