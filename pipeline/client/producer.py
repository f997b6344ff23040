"""Building, signing and publishing transactions, and following what becomes of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.client.receipts import ReceiptWatcher
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Address, TxId
from pipeline.crypto import contexts
from pipeline.crypto.addresses import address_of
from pipeline.crypto.port import PrivateKey
from pipeline.crypto.verifier import parallel_sign
from pipeline.errors import ConfigError, InvalidTransaction, OutcomeUnknown, PoisonRecord, Retryable
from pipeline.ledger.chain import Chain
from pipeline.ledger.leaves import Account
from pipeline.ledger.receipts import TransactionReceipt
from pipeline.ledger.transactions import Mode, Operation, SignedTransaction, TransactionBody, tx_id_of
from pipeline.log.port import Append, Delivery, EventLog


class Sender:
    """An account that sends: its key and next nonce.

    The public key goes out with the first transaction only; the ledger records it then. `sends_key` forces it.
    """

    __slots__ = ("address", "key", "next_nonce", "sends_key")

    def __init__(self, key: PrivateKey, account: Account | None = None, address: Address | None = None) -> None:
        """`account`: as the ledger has it now; None: it never sent. `address`: where the key was rotated."""
        self.key = key
        self.address = address_of(key.suite_id, key.public_key) if address is None else address
        self.next_nonce = 0 if account is None else account.nonce
        self.sends_key = account is None or not account.suite


class Unsigned(NamedTuple):
    """A body with its nonce."""

    sender: Sender
    body: bytes
    nonce: int
    includes_key: bool


class Signed(NamedTuple):
    """A record to publish; publishing it again is harmless, since one nonce is consumed once."""

    target: TopicPartition
    record: bytes
    tx_id: TxId
    nonce: int


class PublicationUnknown(OutcomeUnknown):
    """The log did not confirm these records, and some may stand there.

    Give `batch` to `publish` once more. Built anew they would be other transactions, and pay twice.
    """

    def __init__(self, cause: OutcomeUnknown, batch: Sequence[Signed]) -> None:
        """`batch` as it was to be published."""
        super().__init__(f"{cause}; publish the same records again, building them anew would pay twice")
        self.batch = tuple(batch)


@dataclass(frozen=True, slots=True)
class TransactionFuture:
    """A published record. Resolved by the receipt at its offset, as the delivery report gave it."""

    watcher: ReceiptWatcher
    signed: Signed
    offset: int

    @property
    def tx_id(self) -> TxId:
        """H(`transaction`, body)."""
        return self.signed.tx_id

    def receipt(self) -> TransactionReceipt | None:
        """What became of this very record; None while it has no receipt."""
        return self.watcher.receipt(self.signed.target.partition, self.offset)

    def result(self) -> TransactionReceipt | None:
        """What became of the transaction: the receipt that consumed the nonce, of whichever record of these bytes.

        Where none did, this record's own receipt.
        """
        if not self.watcher.has_receipt(self.signed.target.partition, self.offset):
            return None
        return self.watcher.result(self.tx_id) or self.receipt()

    def is_settled(self) -> bool:
        """Whether there is a result and all its effects on other shards, with their refunds, are executed."""
        result = self.result()
        return result is not None and self.watcher.is_settled(result)


class Publication:
    """Records on their way to the log."""

    def __init__(self, watcher: ReceiptWatcher, batch: Sequence[Signed], delivery: Delivery) -> None:
        """Made by `TransactionProducer.begin_publish`."""
        self._watcher = watcher
        self._batch = batch
        self._delivery = delivery

    def poll(self) -> list[TransactionFuture] | None:
        """None while the log has not confirmed them. Raises as `TransactionProducer.publish`."""
        try:
            offsets = self._delivery.poll()
        except OutcomeUnknown as error:
            raise PublicationUnknown(error, self._batch) from error
        return None if offsets is None else _futures(self._watcher, self._batch, offsets)


def _appends(batch: Sequence[Signed]) -> list[Append]:
    return [Append(item.target, None, item.record) for item in batch]


def _futures(watcher: ReceiptWatcher, batch: Sequence[Signed], offsets: Sequence[int]) -> list[TransactionFuture]:
    return [TransactionFuture(watcher, item, offset) for item, offset in zip(batch, offsets, strict=True)]


def _take_back(batch: Sequence[Unsigned]) -> None:
    """Free the nonces of what will never be published, as far as no later ones were built."""
    for sender, _, nonce, includes_key in reversed(batch):
        if sender.next_nonce == nonce + 1:
            sender.next_nonce = nonce
            sender.sends_key = sender.sends_key or includes_key


class TransactionProducer:
    """Publishes for any number of senders. The partition follows from the shard map, never from a partitioner."""

    def __init__(self, log: EventLog, chain: Chain, watcher: ReceiptWatcher, threads: int | None = None) -> None:
        """`threads` sign in parallel; all processors by default."""
        self._log = log
        self._chain = chain
        self._watcher = watcher
        self._threads = threads

    def build(
        self,
        sender: Sender,
        operations: Sequence[Operation],
        *,
        mode: Mode = Mode.ATOMIC,
        gas_limit: int = 2**62,
        gas_price: int = 0,
        valid_until_ms: int | None = None,
    ) -> Unsigned:
        """The body under the sender's next nonce, which is used up.

        Raises `InvalidTransaction` for values out of range.
        """
        nonce = sender.next_nonce
        try:
            body = TransactionBody(
                self._chain.chain_id,
                sender.address,
                nonce,
                tuple(operations),
                mode,
                gas_limit,
                gas_price,
                valid_until_ms,
                self._chain.genesis.protocol,
            ).to_bytes()
        except (ValueError, OverflowError) as error:
            raise InvalidTransaction(f"a transaction that can't be encoded: {error}") from None
        includes_key = sender.sends_key
        sender.next_nonce, sender.sends_key = nonce + 1, False
        return Unsigned(sender, body, nonce, includes_key)

    def sign(self, batch: Sequence[Unsigned]) -> list[Signed]:
        """Sign on all processors while the caller waits. Raises `InvalidTransaction` for a record that is too large.

        Then the whole batch is to be built again: its nonces are free, unless later ones of the sender were built.
        """
        jobs = [(item.sender.key, item.body) for item in batch]
        try:
            signatures = parallel_sign(jobs, contexts.TRANSACTION, self._threads)
            return [self._signed(item, signature) for item, signature in zip(batch, signatures, strict=True)]
        except BaseException:
            _take_back(batch)  # nobody can publish these, so the next ones would wait for their nonces for ever
            raise

    def _signed(self, item: Unsigned, signature: bytes) -> Signed:
        key = item.sender.key
        public_key = key.public_key if item.includes_key else None
        record = SignedTransaction(item.body, key.suite_id, public_key, signature).to_record()
        limit = self._chain.genesis.limits.record_bytes
        if len(record) > limit:
            raise InvalidTransaction(f"a transaction of {len(record)} bytes; {limit} are allowed, send fewer entries")
        return Signed(self._target(item.sender.address), record, tx_id_of(item.body), item.nonce)

    def _target(self, sender: Address) -> TopicPartition:
        return TopicPartition(Topic.TRANSACTIONS, self._chain.shard_map.owner_of(sender))

    def restore(self, record: bytes) -> Signed:
        """What `sign` gave, from its `record` alone: for who kept the bytes and publishes them again after a restart.

        Raises `InvalidTransaction` where they are no transaction of this chain.
        """
        try:
            body = SignedTransaction.from_record(record).body
            fields = TransactionBody.from_bytes(body)
        except PoisonRecord as error:
            raise InvalidTransaction(f"these bytes are no signed transaction: {error}") from None
        if fields.chain_id != self._chain.chain_id:
            raise InvalidTransaction(f"this transaction is of another chain, {fields.chain_id.hex()[:16]}")
        return Signed(self._target(fields.sender), record, tx_id_of(body), fields.nonce)

    def publish(self, batch: Sequence[Signed]) -> list[TransactionFuture]:
        """Append to the log, in order. Raises as `EventLog.append`; the same call again is then safe.

        Where some may stand there that is a `PublicationUnknown`, which holds the batch.
        """
        try:
            offsets = self._log.append(_appends(batch))
        except OutcomeUnknown as error:
            raise PublicationUnknown(error, batch) from error
        return _futures(self._watcher, batch, offsets)

    def begin_publish(self, batch: Sequence[Signed]) -> "Publication":
        """As `publish`, without waiting for the log: many can be on their way, in order. Raises as `publish`."""
        try:
            delivery = self._log.begin_append(_appends(batch))
        except OutcomeUnknown as error:
            raise PublicationUnknown(error, batch) from error
        return Publication(self._watcher, batch, delivery)

    def send(self, sender: Sender, *operations: Operation) -> TransactionFuture:
        """Build, sign and publish one ATOMIC transaction.

        Raises as these three. After a `PublicationUnknown` go on with `publish(error.batch)`: the same call again would
        be another transaction.
        """
        unsigned = [self.build(sender, operations)]
        signed = self.sign(unsigned)
        try:
            return self.publish(signed)[0]
        except (ConfigError, Retryable):
            _take_back(unsigned)  # it is not on the log, and nobody else has it
            raise

    def all_settled(self, futures: Iterable[TransactionFuture]) -> bool:
        """Whether all have results whose effects are executed. Reads what is new first."""
        self._watcher.poll()
        return all(future.is_settled() for future in futures)
