"""A ledger on a Kafka cluster, for who has its trust file and nothing else of it: no directory, no genesis, no node."""

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Final, Self

from pipeline.client.light import LightClient
from pipeline.client.producer import TransactionProducer
from pipeline.client.receipts import ReceiptWatcher, ends_of
from pipeline.client.subscriber import StateRootSubscriber, starts_of
from pipeline.client.trust import Trust
from pipeline.codec.topics import Topic, TopicPartition
from pipeline.config import KafkaConfig, load_config
from pipeline.errors import PoisonRecord, VerificationFailed
from pipeline.ledger.chain import Chain
from pipeline.ledger.genesis import Genesis
from pipeline.log.port import EventLog
from pipeline.node.bootstrap import require_topics

_LONGEST_SLEEP_MS: Final = 50
_GENESIS_BYTES: Final = 2 * 2**20


class LedgerClient:
    """What producers and subscribers need of a cluster. Close it, or use it as a context. Not for several threads."""

    def __init__(self, trust: Trust, log: EventLog) -> None:
        """`log` has the topics of the chain of `trust`, and is closed with this. For a cluster use `open`."""
        self.trust = trust
        self.log = log

    @classmethod
    def open(cls, trust: Trust, bootstrap: str = "", *, settings: Path | None = None) -> "LedgerClient":
        """Find the chain of `trust` on a cluster.

        `bootstrap`: host:port of brokers, several parted by commas. Identity and transport are those of the commands:
        `[kafka.security]` in the TOML file `settings`, or HAUPTBUCH_KAFKA__SECURITY__* in the environment. Raises
        `ConfigError` where these can't be used, the brokers refuse them, or let everyone do everything and are not on
        loopback; `Retryable` where nobody answers in 15 s.
        """
        flags = {"kafka.bootstrap": bootstrap} if bootstrap else {}
        return cls.of(trust, load_config(settings, os.environ, flags).kafka)

    @classmethod
    def of(cls, trust: Trust, config: KafkaConfig) -> "LedgerClient":
        """As `open`, for settings that were read already."""
        from pipeline.node.places import client_log  # noqa: PLC0415 - the Kafka client is slow to import

        return cls(trust, client_log(trust, config))

    def __enter__(self) -> Self:
        """Open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @cached_property
    def chain(self) -> Chain:
        """The genesis that the cluster has, which must be the one of the trust file; read when first asked for.

        Needs the right to read `control`. Raises `VerificationFailed` for another genesis, `ConfigError` where there is
        none, and as `EventLog.read`.
        """
        require_topics(self.log)
        first = self.log.read(TopicPartition(Topic.CONTROL, 0), 0, 1, _GENESIS_BYTES)
        try:
            genesis = Genesis.from_record(first[0].value if first and not first[0].offset else None)
        except PoisonRecord as error:
            raise VerificationFailed(f"control does not begin with a genesis: {error}; is this the cluster?") from None
        wanted, shards = self.trust.chain_id, self.trust.shards
        if genesis.chain_id != wanted:
            raise VerificationFailed(
                f"the cluster's genesis is that of chain {genesis.chain_id.hex()[:16]}, the trust file's chain is "
                f"{wanted.hex()[:16]}; ask whom you trust which one is meant"
            )
        if genesis.shards != shards:
            raise VerificationFailed(
                f"the chain has {genesis.shards} shards, the trust file says {shards}; get it again from whom you trust"
            )
        return Chain.of(genesis)

    def producer(self, receipts_from: Mapping[int, int] | None = None) -> TransactionProducer:
        """A producer, with a watcher that follows the receipts of what it publishes. Raises as `chain` and `log`.

        `receipts_from`: partition -> offset to read receipts from, such as `receipt_ends` gave before the first
        publication of what is published again now; None: from their ends of now.
        """
        chain = self.chain
        start = self.receipt_ends() if receipts_from is None else receipts_from
        watcher = ReceiptWatcher(self.log, chain.chain_id, range(chain.genesis.shards), start)
        return TransactionProducer(self.log, chain, watcher)

    def receipt_ends(self) -> dict[int, int]:
        """Partition -> where `receipts` end now. Raises as `EventLog.end_offset`."""
        return ends_of(self.log, range(self.trust.shards))

    def subscriber(self, client: LightClient, from_round: int = 0) -> StateRootSubscriber:
        """A subscriber to the state roots of all shards, those created later too. Needs the right to read them alone.

        It begins at round `from_round`, such as the last one that the trust file knows.

        Raises `ConfigError` where the cluster has nothing of the chain, `Retryable` where it does not answer.
        """
        return subscribe(self.log, client, from_round)

    def wait_until(self, condition: Callable[[], bool], timeout_ms: int | None = None) -> bool:
        """Ask `condition` whenever the log may have news; False where `timeout_ms` passed first."""
        end_s = None if timeout_ms is None else monotonic() + timeout_ms / 1000
        while not condition():
            if end_s is not None and monotonic() >= end_s:
                return False
            self.log.wait(_LONGEST_SLEEP_MS)
        return True

    def close(self) -> None:
        """Idempotent."""
        self.log.close()


def subscribe(log: EventLog, client: LightClient, from_round: int) -> StateRootSubscriber:
    """As `LedgerClient.subscriber`, for a log that is open already."""
    require_topics(log, Topic.STATE_ROOTS)
    partitions = range(log.partitions(Topic.STATE_ROOTS))
    return StateRootSubscriber(log, client, partitions, starts_of(log, partitions, from_round), from_round)
