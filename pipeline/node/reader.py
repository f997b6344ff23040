"""Reading a ledger; and reading its directory beside the process that runs it, without the lock, without writing.

Stores are caught up before the log, so that the log always holds every block that a store stands on. Disagreements are
judged by the holder of the lock and by the audit, not here: what is read may be a moment old.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pipeline.codec.types import Address, AssetId, ShardId, Slot, StateKey, slot_of_id
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier
from pipeline.kv.port import KeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.ledger.chain import Chain
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.leaves import Account, Asset, Balance, account_key, asset_key
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.port import EventLog
from pipeline.node.layout import NodeLayout
from pipeline.shards.recovery import stored_cursor
from pipeline.shards.signed_roots import SignedHead, SignedRoots
from pipeline.state.store import StateStore

_ACCOUNT: Final = b"account/"
_BALANCE: Final = b"balance/"
_CACHE_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account and its balances, ascending by asset id."""

    address: Address
    account: Account
    balances: tuple[tuple[AssetId, Balance], ...]


class LedgerView(ABC):
    """State of all shards, and the log, as of opening or the last `refresh`."""

    layout: NodeLayout
    chain: Chain

    def __enter__(self) -> Self:
        """Open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @property
    @abstractmethod
    def stores(self) -> Sequence[StateStore]:
        """One for each active shard, index = shard."""

    @property
    @abstractmethod
    def log(self) -> EventLog:
        """The log; what is read from it is at least as new as the stores."""

    @abstractmethod
    def refresh(self) -> None:
        """Catch up: the stores, then the log."""

    @abstractmethod
    def refresh_log(self) -> None:
        """Catch up with the log alone."""

    @abstractmethod
    def close(self) -> None:
        """Idempotent."""

    def store_of(self, identifier: bytes) -> StateStore:
        """The store of the shard that owns a 32-byte id."""
        return self.stores[self.chain.shard_map.owner_of(identifier)]

    def cursor(self, shard: int) -> ShardCursor:
        """Where a shard's store stands."""
        return stored_cursor(self.chain, shard, self.stores[shard])

    def asset(self, asset: AssetId) -> Asset | None:
        """An asset; None where it does not exist."""
        raw = self.store_of(asset).view().get(asset_key(asset))
        return None if raw is None else Asset.from_bytes(raw)

    def account(self, address: Address) -> AccountView | None:
        """One account; None where it was never credited."""
        store = self.store_of(address)
        raw = store.view().get(account_key(address))
        if raw is None:
            return None
        prefix = _BALANCE + address + b"/"
        leaves = store.scan_slot(slot_of_id(address))
        found = [_balance(key, value) for key, value in leaves if key.startswith(prefix)]
        return AccountView(address, Account.from_bytes(raw), tuple(sorted(found)))

    def accounts(self) -> Iterator[AccountView]:
        """All accounts, ascending by address; one slot's at a time in memory."""
        for number, owner in enumerate(self.chain.shard_map.owners):
            yield from _accounts_of_slot(self.stores[owner].scan_slot(Slot(number)))

    def signed_head(self, shard: int) -> SignedHead | None:
        """The newest state root of a shard that a quorum signed; None before the first."""
        return self._roots.newest_head(shard)

    def signed_heads(self, shard: int, records: int) -> list[SignedHead]:
        """The signed ones among so many last records of a shard's state roots, in order."""
        return self._roots.last(shard, records)

    @cached_property
    def _roots(self) -> SignedRoots:
        return SignedRoots(self.chain, self.log, InlineVerifier(STANDARD_SUITES))


class LedgerReader(LedgerView):
    """A directory with its log in it, read beside the process that runs it."""

    def __init__(self, root: Path) -> None:
        """Open. Raises `ConfigError` where `root` is no ledger, `Fatal` for damaged stores."""
        self.layout = NodeLayout(root)
        self.chain = self.layout.chain()
        self._kvs: list[KeyValue] = []
        self._stores: list[StateStore] = []
        try:
            for number in range(self.chain.genesis.shards):
                self._open_store(number)
            # Shards that operators created since; one whose node has not opened it yet has nothing to show.
            created = range(len(self._stores), self.cursor(0).control.active_shards)
            for number in takewhile(lambda number: self.layout.shard(number).is_dir(), created):
                self._open_store(number)
            log_kv = open_rocks(self.layout.log, read_only_secondary=True)
            self._kvs.append(log_kv)
            self._log = EmbeddedLog(log_kv, read_only=True)
            self._log.refresh()
        except BaseException:
            self.close()
            raise

    @property
    def stores(self) -> Sequence[StateStore]:
        """As the view."""
        return self._stores

    @property
    def log(self) -> EventLog:
        """As the view."""
        return self._log

    def _open_store(self, number: int) -> None:
        kv = open_rocks(self.layout.shard(number), read_only_secondary=True)
        self._kvs.append(kv)
        kv.refresh()
        self._stores.append(StateStore(kv, ShardId(number), self.chain.shard_map.slots_of(number), _CACHE_BYTES))

    def refresh(self) -> None:
        """Catch up: the stores, then the log."""
        for kv, store in zip(self._kvs, self._stores, strict=False):  # the log's is the last
            kv.refresh()
            store.reload()
        self._log.refresh()

    def refresh_log(self) -> None:
        """As the view."""
        self._log.refresh()

    def close(self) -> None:
        """Idempotent."""
        for kv in self._kvs:
            kv.close()


def _accounts_of_slot(leaves: Iterator[tuple[StateKey, bytes]]) -> list[AccountView]:
    accounts: dict[bytes, Account] = {}
    balances: dict[bytes, list[tuple[AssetId, Balance]]] = {}
    for key, value in leaves:
        if key.startswith(_ACCOUNT):
            accounts[key[len(_ACCOUNT) :]] = Account.from_bytes(value)
        elif key.startswith(_BALANCE):
            address = key[len(_BALANCE) : len(_BALANCE) + 32]
            balances.setdefault(address, []).append(_balance(key, value))
    return [
        AccountView(Address(address), accounts[address], tuple(sorted(balances.get(address, []))))
        for address in sorted(accounts)
    ]


def _balance(key: bytes, value: bytes) -> tuple[AssetId, Balance]:
    return AssetId(key[-32:]), Balance.from_bytes(value)
