"""A transactional producer whose transactions go their way in a thread of their own.

The client's calls wait for brokers, so a thread makes them; all of them have finite timeouts, and a commit that timed
out is only ever resumed by `commit_transaction`. After any error the producer is given up: the client knows too little
of newer transaction protocols to be trusted with a second life.
"""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.errors import (
    ConfigError,
    Fatal,
    HauptbuchError,
    OutcomeUnknown,
    Retryable,
    TaskFenced,
    TransactionAbortable,
)
from pipeline.log.kafka.faults import (
    error_in,
    is_fencing,
    plain_errors,
    refusal,
    usable_settings,
    write_fault,
)
from pipeline.log.kafka.settings import LOGGER, TRANSACTION_TIMEOUT_MS, Settings
from pipeline.log.port import Append, Committed

_OPEN_S: Final = 15.0
_CONNECTIONS: Final = 2
"""To the address that was given, then to a broker."""
_NO_BROKER: Final = frozenset({KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN})
_ANY: Final = TopicPartition(Topic.BLOCKS, 0)
_SLICE_S: Final = 0.25
_ABORT_S: Final = 2.0
_PAUSE_S: Final = 0.005
COMMIT_S: Final = TRANSACTION_TIMEOUT_MS / 1000 + 2


class KafkaWriter:
    """`TransactionalWriter` of the Kafka log; made by `KafkaLog.begin_writer`."""

    def __init__(
        self,
        settings: Settings,
        writer_id: str,
        check: Callable[[Sequence[Append]], None],
        name_of: Callable[[TopicPartition], str],
        opened: Callable[[], None],
        older: "KafkaWriter | None" = None,
    ) -> None:
        """Begins to fence older writers of this id.

        `check` refuses appends that can't be. `opened` is called in another thread once they are fenced, and may
        refuse. `older` of this process comes to the end of its own opening first: asked later, it would fence this one.
        """
        self._id = writer_id
        self._settings = settings
        self._check = check
        self._name_of = name_of
        self._opened = opened
        self._after = older
        self._settled = threading.Event()
        """Set once no client of this writer asks for an epoch any more."""
        self._jobs: SimpleQueue[tuple[Append, ...] | None] = SimpleQueue()
        self._result: Committed | HauptbuchError | None = None
        self._busy = False
        self._closed = False
        self._spent: HauptbuchError | None = None
        self._is_open: threading.Event = threading.Event()
        self._refused: HauptbuchError | None = None
        self._told_open = False
        self._thread = threading.Thread(target=self._serve, name=f"commit {writer_id}", daemon=True)
        self._thread.start()

    def poll_open(self) -> bool:
        """As the port."""
        self._check_usable()
        if not self._is_open.is_set():
            return False
        self._told_open = True
        if self._refused is not None:
            self._spent = self._refused
            raise self._refused
        return True

    def await_open(self) -> None:
        """Wait until it is open. Raises as `poll_open`."""
        self._is_open.wait()
        self.poll_open()

    @property
    def is_due(self) -> bool:
        """Whether `poll_commit` or `poll_open` has something to tell."""
        if self._closed:
            return False
        return self._result is not None if self._busy else self._is_open.is_set() and not self._told_open

    @property
    def is_busy(self) -> bool:
        """Whether the opening or a transaction is on its way, or its answer waits to be polled."""
        return (self._busy or not self._told_open) and not self._closed

    def supersede(self) -> None:
        """A newer writer of this id is being opened in this process."""
        self._spent = self._spent or TaskFenced(f"writer {self._id} was opened again elsewhere: this one is fenced")

    def begin_commit(self, appends: Sequence[Append]) -> None:
        """As the port."""
        self._check_usable()
        assert self._told_open, "nobody has been told yet that the writer is open"
        assert not self._busy, "the previous transaction was not polled to its end"
        self._check(appends)
        self._busy = True
        if appends:
            self._jobs.put(tuple(appends))
        else:
            self._result = Committed(())

    def poll_commit(self) -> Committed | None:
        """As the port. A fencing elsewhere is noticed by the next transaction."""
        self._check_usable()
        assert self._busy, "no transaction was begun"
        result = self._result
        if result is None:
            return None
        self._result, self._busy = None, False
        if isinstance(result, HauptbuchError):
            self._spent = result
            raise result
        return result

    def close(self) -> None:
        """As the port; does not wait for the thread."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)

    @property
    def is_alive(self) -> bool:
        """Whether the thread is still at work."""
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread of a closed writer."""
        self._thread.join(timeout_s)

    def _check_usable(self) -> None:
        if self._closed:
            raise Fatal(f"writer {self._id} is closed: open a new one")
        if self._spent is not None:
            raise type(self._spent)(str(self._spent))

    def _serve(self) -> None:
        producer = self._opened_producer()
        if producer is None:
            return
        while (job := self._jobs.get()) is not None:
            try:
                self._result = self._commit(producer, job)
            except HauptbuchError as error:
                # Anew, since the traceback of this one holds the client and with it its threads.
                self._result = type(error)(str(error))
                return
            except Exception as error:  # noqa: BLE001 - a thread that dies silently would be waited for for ever
                LOGGER.exception("writer %s", self._id)
                self._result = OutcomeUnknown(f"writer {self._id} failed: {type(error).__name__}: {error}")
                return
        producer.close()  # in this thread, since it can take its time

    def _opened_producer(self) -> Producer | None:
        """Open, and tell. None: it was refused, and the client is gone."""
        try:
            self._await_older()
            producer = self._open()
            if self._refused is None:
                self._opened()
                return producer
            producer.close()  # nobody waits for it any more
        except HauptbuchError as error:
            # Anew, since the traceback of this one holds the client and with it its threads.
            self._refused = self._refused or type(error)(str(error))
        except Exception as error:  # noqa: BLE001 - a thread that dies silently would be waited for for ever
            LOGGER.exception("writer %s", self._id)
            self._refused = self._refused or OutcomeUnknown(
                f"writer {self._id} can't be opened: {type(error).__name__}: {error}"
            )
        finally:
            self._settled.set()
            self._is_open.set()
        return None

    def _await_older(self) -> None:
        """Until no older client of this process asks for an epoch any more: answered later, it would fence this one."""
        deadline = time.monotonic() + _OPEN_S
        while (older := self._after) is not None:
            if not older._settled.wait(max(0.0, deadline - time.monotonic())):
                raise Retryable(
                    f"writer {self._id} can't be opened: an earlier request has no answer yet; are the brokers up?"
                )
            self._after = older._after  # None, or whom the older one waited for in vain

    def _open(self) -> Producer:
        """Fence older writers of this id.

        A connection comes first, since the client sleeps for half a second where it finds none. It does so too while an
        older writer's transaction is being ended. That is waited for: a client that is given up while it asks for its
        epoch can end the process, and its late request can fence the next one. So where the time is over only the
        caller is told, and this thread goes on.
        """
        with usable_settings():
            producer = Producer(self._settings)
        deadline, connected = time.monotonic() + _OPEN_S, 0
        while True:
            if self._closed and connected < _CONNECTIONS:
                raise Retryable(f"writer {self._id} was given up before it was opened")
            try:
                if connected < _CONNECTIONS:
                    producer.list_topics(self._name_of(_ANY), timeout=_SLICE_S)
                    connected += 1
                    continue
                producer.init_transactions(_SLICE_S)
            except KafkaException as exception:
                error = error_in(exception)
            else:
                return producer
            if not (error.retriable() or error.code() in _NO_BROKER):
                raise write_fault(error, self._id, committing=False)
            if time.monotonic() > deadline and self._refused is None:
                late = f"writer {self._id} could not be opened in {_OPEN_S:.0f} s: {error.str()}; are the brokers up?"
                if connected < _CONNECTIONS:
                    raise Retryable(late)
                self._refused = Retryable(late)
                self._is_open.set()
            time.sleep(_PAUSE_S)

    def _commit(self, producer: Producer, appends: Sequence[Append]) -> Committed:
        deadline = time.monotonic() + COMMIT_S
        offsets: list[int | KafkaError | None] = [None] * len(appends)
        committing = False
        try:
            with plain_errors():
                producer.begin_transaction()
                # First, and before anything else is sent: a late end of the previous transaction can commit a prefix of
                # this one, which must then be a header without the rest (of a round: its checkpoint and signature). A
                # recovering leader mends that; it could not mend the contrary.
                head = _head(appends)
                self._produce(producer, appends[:head], 0, offsets)
                self._flush(producer, deadline)
                if all(isinstance(item, int) for item in offsets[:head]):
                    self._produce(producer, appends[head:], head, offsets)
                committing = True
                self._end(producer, deadline)
        except KafkaException as exception:
            error = error_in(exception)
            if error.txn_requires_abort():
                error = self._aborted(producer, error)
            # The end of a transaction says only that a record was not taken; the record, that it may never be.
            raise self._never_taken(appends, offsets) or write_fault(error, self._id, committing=committing) from None
        taken = tuple(item for item in offsets if isinstance(item, int))
        assert len(taken) == len(offsets), "committed, so every record was delivered"
        return Committed(taken)

    def _aborted(self, producer: Producer, error: KafkaError) -> KafkaError:
        """Drop the transaction. Why it failed: a newer writer, if the coordinator says so, else `error`.

        A newer writer's opening that meets the end of a transaction can show as any error of the broker. Whoever took
        it for one that goes away would fence the newer one in turn.
        """
        try:
            with plain_errors():
                producer.abort_transaction(_ABORT_S)
        except KafkaException as exception:  # the next fence aborts it
            refused = error_in(exception)
            return refused if is_fencing(refused) else error
        return error

    def _never_taken(self, appends: Sequence[Append], offsets: list[int | KafkaError | None]) -> ConfigError | None:
        """The first record that the cluster will never take from this client."""
        for (target, _, _), item in zip(appends, offsets, strict=True):
            if isinstance(item, KafkaError) and (refused := refusal(item, self._name_of(target))) is not None:
                return refused
        return None

    def _produce(
        self, producer: Producer, appends: Sequence[Append], first: int, offsets: list[int | KafkaError | None]
    ) -> None:
        produce, name_of = producer.produce, self._name_of
        for index, (target, key, value) in enumerate(appends, first):
            produce(name_of(target), value, key, target.partition, on_delivery=partial(_delivered, offsets, index))

    def _flush(self, producer: Producer, deadline: float) -> None:
        while producer.flush(_SLICE_S):
            if self._closed or time.monotonic() > deadline:
                raise TransactionAbortable(
                    f"writer {self._id}: no broker took the transaction in time; nothing is lost"
                )

    def _end(self, producer: Producer, deadline: float) -> None:
        """Commit; a timeout is resumed by the same call and by nothing else."""
        while True:
            try:
                producer.commit_transaction(_SLICE_S)
            except KafkaException as exception:
                if not error_in(exception).retriable():
                    raise
            else:
                return
            if self._closed or time.monotonic() > deadline:
                raise OutcomeUnknown(f"writer {self._id}: the commit timed out; it may still happen")
            time.sleep(_PAUSE_S)


def _head(appends: Sequence[Append]) -> int:
    """How many appends come first: those of the first one's partition, which arrive in their order."""
    first = appends[0].target
    return next((index for index, append in enumerate(appends) if append.target != first), len(appends))


def _delivered(offsets: list[int | KafkaError | None], index: int, error: KafkaError | None, message: Message) -> None:
    # No call where there is an error: the client may have an exception set, which a call would lose.
    offsets[index] = message.offset() if error is None else error
