"""A client that pays without end, honestly and otherwise, and records what it is told."""

from collections.abc import Sequence
from hashlib import sha256
from random import Random
from typing import Final

from pipeline.client.producer import Sender, Signed, TransactionProducer
from pipeline.client.receipts import ReceiptWatcher
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import TxId
from pipeline.crypto.port import PrivateKey
from pipeline.errors import OutcomeUnknown, Retryable
from pipeline.ledger.chain import Chain
from pipeline.ledger.transactions import Burn, Freeze, Mode, Operation, SignedTransaction
from pipeline.log.port import EventLog
from pipeline.testing.cluster.history import Acked, Event, Recorder, Settled, Told
from pipeline.testing.cluster.observed import Place, receipt_digest
from pipeline.testing.cluster.people import FUNDS, everyone, funding, payment, people_of, unit_of

_BATCH: Final = 6
_NOBODY: Final = TxId(bytes(32))


class Payer:
    """Pays from the accounts of `people_of(number)`; with the treasury's key it funds everyone, mints and freezes."""

    def __init__(
        self,
        name: str,
        number: int,
        log: EventLog,
        chain: Chain,
        recorder: Recorder,
        random: Random,
        treasury: PrivateKey | None = None,
    ) -> None:
        """Nothing is published yet. No other client may use the same accounts at the same time."""
        self._name = name
        self._chain = chain
        self._random = random
        self._recorder = recorder
        self._watcher = ReceiptWatcher(log, chain.chain_id, range(chain.genesis.shards))
        self._producer = TransactionProducer(log, chain, self._watcher, threads=1)
        self._senders = [Sender(person.key) for person in people_of(number)]
        self._treasury = None if treasury is None else Sender(treasury)
        self._receivers = [person.address for person in everyone()]
        self._publishing: list[Signed] = []
        self._published: list[Signed] = []
        self._outstanding: dict[Place, bool] = {}

    @property
    def is_resting(self) -> bool:
        """Whether all that was published is acknowledged, answered and settled, and told."""
        return not self._publishing and not self._outstanding

    def resume(self) -> None:
        """Take the next nonces from the receipts, which must be those of a ledger at rest; fund everyone if need be."""
        self._watcher.poll()
        senders = [*self._senders, *([self._treasury] if self._treasury else [])]
        nonces: dict[bytes, int] = {}
        for receipt in self._watcher.transactions():
            if receipt.nonce_consumed:
                nonces[receipt.sender] = max(nonces.get(receipt.sender, 0), receipt.nonce + 1)
        for sender in senders:
            sender.next_nonce = nonces.get(sender.address, 0)
            sender.sends_key = sender.next_nonce == 0
        if self._treasury is not None and self._treasury.next_nonce == 0:
            self._publishing += self._signed(self._treasury, *funding(self._chain))

    def play(self) -> None:
        """Publish a few records, unless older ones are not acknowledged yet; tell what is new."""
        if not self._publishing:
            for _ in range(self._random.randint(1, _BATCH)):
                self._publishing += self._any()
        self.follow()

    def follow(self) -> None:
        """Publish again what was not acknowledged; tell what is new."""
        if self._publishing:
            self._publish()
        try:
            self._watcher.poll()
        except Retryable:
            return
        self._tell_answers()

    def _publish(self) -> None:
        try:
            futures = self._producer.publish(self._publishing)
        except (OutcomeUnknown, Retryable):
            return  # some may stand; the same records again do no harm
        events: list[Event] = []
        for future in futures:
            signed = future.signed
            partition = signed.target.partition
            events.append(Acked(self._name, partition, future.offset, sha256(signed.record).hexdigest()))
            if signed.tx_id != _NOBODY:
                self._outstanding[partition, future.offset] = False
        self._published = [*self._published, *self._publishing][-200:]
        self._publishing = []
        self._recorder.tell(events)

    def _tell_answers(self) -> None:
        events: list[Event] = []
        for place, told in list(self._outstanding.items()):
            receipt = self._watcher.receipt(*place)
            if receipt is None:
                continue
            if not told:
                self._outstanding[place] = True
                digest, code = receipt_digest(receipt), int(receipt.code)
                events.append(Told(self._name, *place, digest, code, receipt.nonce_consumed))
            if self._watcher.is_settled(receipt):
                del self._outstanding[place]
                events.append(Settled(self._name, *place))
        self._recorder.tell(events)

    # What is published

    def _any(self) -> Sequence[Signed]:
        random = self._random
        sender = random.choice(self._senders)
        match random.random():
            case chance if chance < 0.1 and self._published:
                return [random.choice(self._published)]
            case chance if chance < 0.13:
                shard = random.randrange(self._chain.genesis.shards)
                junk = random.randbytes(random.randrange(1, 200))
                return [Signed(TopicPartition(Topic.TRANSACTIONS, shard), junk, _NOBODY, 0)]
            case chance if chance < 0.17:
                return self._stolen(sender)
            case chance if chance < 0.19:
                return self._from_the_future(sender)
            case chance if chance < 0.26 and self._treasury is not None:
                return self._signed(self._treasury, self._issuing())
            case _:
                return self._signed(sender, self._payment())

    def _payment(self) -> Operation:
        random = self._random
        entries = [
            (random.choice(self._receivers), random.choice((1, 10, 999, 2 * FUNDS)))
            for _ in range(random.choice((1, 1, 2, 8)))
        ]
        return payment(self._chain, *entries)

    def _issuing(self) -> Operation:
        """Freezing makes effects bounce, so that refunds cross the shards too."""
        random, unit = self._random, unit_of(self._chain)
        if random.random() < 0.3:
            return Burn(unit, random.randrange(1, 100))
        return Freeze(unit, random.choice(self._receivers), random.random() < 0.4)

    def _signed(self, sender: Sender, *operations: Operation) -> list[Signed]:
        mode = self._random.choice((Mode.ATOMIC, Mode.INDEPENDENT))
        price = self._random.choice((0, 0, 1))
        return self._producer.sign([self._producer.build(sender, operations, mode=mode, gas_price=price)])

    def _stolen(self, sender: Sender) -> list[Signed]:
        """The sender's next nonce under a signature that does not hold: it must not be burnt."""
        kept = sender.next_nonce, sender.sends_key
        (signed,) = self._signed(sender, self._payment())
        sender.next_nonce, sender.sends_key = kept
        transaction = SignedTransaction.from_record(signed.record)
        noise = self._random.randbytes(len(transaction.signature))
        forged = SignedTransaction(transaction.body, transaction.suite, transaction.public_key, noise)
        return [signed._replace(record=forged.to_record())]

    def _from_the_future(self, sender: Sender) -> list[Signed]:
        """A nonce that is not due yet."""
        kept = sender.next_nonce, sender.sends_key
        sender.next_nonce += 1000
        signed = self._signed(sender, self._payment())
        sender.next_nonce, sender.sends_key = kept
        return signed
