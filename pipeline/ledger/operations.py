"""What operations do: each entry against the state that the earlier ones left."""

from typing import Final, NamedTuple, assert_never

from pipeline.codec.types import MAX_AMOUNT, Address, AssetId, ShardId
from pipeline.crypto import contexts
from pipeline.crypto.addresses import key_hash
from pipeline.crypto.verifier import Verifier, VerifyJob
from pipeline.ledger.balances import balance_of, credit, set_balance, set_frozen
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import Code
from pipeline.ledger.leaves import Account, Asset, Balance, account_key, asset_key, data_key, public_key_key
from pipeline.ledger.overlay import Overlay
from pipeline.ledger.packing import RELAY_ENTRY
from pipeline.ledger.prepared import PlacedEntry, PreparedTransaction
from pipeline.ledger.receipts import EntryFailure
from pipeline.ledger.relay import EffectKind
from pipeline.ledger.transactions import (
    Burn,
    CreateAsset,
    DeleteData,
    Freeze,
    Mint,
    Mode,
    Operation,
    PutData,
    RotateKey,
    Transfer,
    asset_id_of,
    rotation_message,
)

_ATOMIC: Final = int(Mode.ATOMIC)


class Sent(NamedTuple):
    """Entries of one operation that leave the shard for one other."""

    destination: ShardId
    asset: AssetId
    kind: EffectKind
    reference: bytes
    entries: list[bytes]


class _Stop(Exception):  # noqa: N818 - control flow of ATOMIC, never an error
    """The first failure of an atomic transaction."""


class OperationRun:
    """Executes the operations of one transaction whose signature held and whose fee is paid."""

    __slots__ = (
        "_atomic", "_chain", "_entry", "_overlay", "_prepared", "_sender", "_shard", "_verifier", "failures", "sent",
    )  # fmt: skip

    def __init__(
        self, chain: Chain, shard: ShardId, overlay: Overlay, verifier: Verifier, prepared: PreparedTransaction
    ) -> None:
        """Nothing happens yet."""
        self._chain = chain
        self._shard = shard
        self._overlay = overlay
        self._verifier = verifier
        self._prepared = prepared
        self._sender = prepared.body.sender
        self._atomic = prepared.body.mode == _ATOMIC
        self._entry = 0
        self.failures: list[EntryFailure] = []
        self.sent: list[Sent] = []

    def run(self) -> Code:
        """The transaction's code; `failures` and `sent`, in the order of first use, hold what came of it."""
        operations = zip(self._prepared.body.operations, self._prepared.placed, strict=True)
        if not self._atomic:
            for operation, entries in operations:
                self._execute(operation, entries)
            return Code.PARTIAL if self.failures else Code.OK
        self._overlay.begin()
        try:
            for operation, entries in operations:
                self._execute(operation, entries)
        except _Stop:
            self._overlay.undo()
            self.sent = []
            return self.failures[0].code
        self._overlay.keep()
        return Code.OK

    def _fail(self, entry: int, code: Code) -> None:
        self.failures.append(EntryFailure(entry, code))
        if self._atomic:
            raise _Stop

    def _execute(self, operation: Operation, entries: list[PlacedEntry]) -> None:
        first = self._entry
        self._entry += len(entries) or 1
        if isinstance(operation, Transfer):
            self._transfer(operation, entries, first)
        elif isinstance(operation, Mint):
            self._mint(operation, entries, first)
        else:
            code = self._single(operation, first)
            if code is not Code.OK:
                self._fail(first, code)

    def _single(self, operation: Operation, entry: int) -> Code:
        match operation:
            case CreateAsset():
                return self._create_asset(operation)
            case Burn():
                return self._burn(operation)
            case Freeze():
                return self._freeze(operation, entry)
            case RotateKey():
                return self._rotate_key(operation)
            case PutData(name, value):
                self._overlay.get(data_key(self._sender, name))
                self._overlay.set(data_key(self._sender, name), value)
                return Code.OK
            case DeleteData(name):
                if self._overlay.get(data_key(self._sender, name)) is None:
                    return Code.NOT_FOUND
                self._overlay.set(data_key(self._sender, name), None)
                return Code.OK
            case Transfer() | Mint():
                raise AssertionError("operations with entries are executed entry by entry")
            case _:
                assert_never(operation)

    def _transfer(self, operation: Transfer, entries: list[PlacedEntry], first: int) -> None:
        overlay, asset, sender, shard = self._overlay, operation.asset, self._sender, self._shard
        balance = balance_of(overlay, sender, asset)
        if balance.frozen:
            for index in range(first, first + len(entries)):
                self._fail(index, Code.FROZEN)
            return
        funds, index, pack = balance.amount, first - 1, RELAY_ENTRY.pack
        away: dict[ShardId, list[bytes]] = {}
        try:
            for to, raw_amount, amount, owner in entries:
                index += 1
                if amount > funds:
                    self._fail(index, Code.INSUFFICIENT_FUNDS)
                elif owner != shard:
                    funds -= amount
                    away.setdefault(owner, []).append(pack(index, to, raw_amount))
                elif to == sender:
                    continue
                elif credit(overlay, to, asset, amount):
                    funds -= amount
                else:
                    self._fail(index, Code.FROZEN)
        finally:
            if funds != balance.amount:
                set_balance(overlay, sender, asset, Balance(funds, balance.frozen))
        self._send(asset, EffectKind.CREDIT, operation.reference, away)

    def _mint(self, operation: Mint, entries: list[PlacedEntry], first: int) -> None:
        asset_id = operation.asset
        found = self._issued_by_sender(asset_id)
        if isinstance(found, Code):
            for index in range(first, first + len(entries)):
                self._fail(index, found)
            return
        issued, index = found.issued, first - 1
        away: dict[ShardId, list[bytes]] = {}
        for to, raw_amount, amount, owner in entries:
            index += 1
            if issued + amount > MAX_AMOUNT:
                self._fail(index, Code.SUPPLY_EXCEEDED)
            elif owner != self._shard:
                issued += amount
                away.setdefault(owner, []).append(RELAY_ENTRY.pack(index, to, raw_amount))
            elif credit(self._overlay, to, asset_id, amount):
                issued += amount
            else:
                self._fail(index, Code.FROZEN)
        self._overlay.set(asset_key(asset_id), found._replace(issued=issued).to_bytes())
        self._send(asset_id, EffectKind.CREDIT, operation.reference, away)

    def _send(self, asset: AssetId, kind: EffectKind, reference: bytes, away: dict[ShardId, list[bytes]]) -> None:
        self.sent += [Sent(owner, asset, kind, reference, entries) for owner, entries in away.items()]

    def _issued_by_sender(self, asset_id: AssetId) -> Asset | Code:
        raw = self._overlay.get(asset_key(asset_id)) if self._is_local(asset_id) else None
        if raw is None:
            return Code.UNKNOWN_ASSET
        asset = Asset.from_bytes(raw)
        return asset if asset.issuer == self._sender else Code.NOT_ISSUER

    def _is_local(self, identifier: bytes) -> bool:
        return self._chain.shard_map.owner_of(identifier) == self._shard

    def _create_asset(self, operation: CreateAsset) -> Code:
        key = asset_key(asset_id_of(self._sender, operation.symbol))
        if self._overlay.get(key) is not None:
            return Code.ASSET_EXISTS
        self._overlay.set(key, Asset(self._sender, operation.symbol, operation.decimals).to_bytes())
        return Code.OK

    def _burn(self, operation: Burn) -> Code:
        found = self._issued_by_sender(operation.asset)
        if isinstance(found, Code):
            return found
        balance = balance_of(self._overlay, self._sender, operation.asset)
        if balance.frozen:
            return Code.FROZEN
        if balance.amount < operation.amount:
            return Code.INSUFFICIENT_FUNDS
        left = balance._replace(amount=balance.amount - operation.amount)
        set_balance(self._overlay, self._sender, operation.asset, left)
        burned = found._replace(burned=found.burned + operation.amount)
        self._overlay.set(asset_key(operation.asset), burned.to_bytes())
        return Code.OK

    def _freeze(self, operation: Freeze, entry: int) -> Code:
        found = self._issued_by_sender(operation.asset)
        if isinstance(found, Code):
            return found
        owner = self._chain.shard_map.owner_of(operation.account)
        if owner == self._shard:
            set_frozen(self._overlay, operation.account, operation.asset, frozen=operation.frozen)
            return Code.OK
        kind = EffectKind.FREEZE if operation.frozen else EffectKind.THAW
        packed = RELAY_ENTRY.pack(entry, operation.account, bytes(16))
        self.sent.append(Sent(owner, operation.asset, kind, b"", [packed]))
        return Code.OK

    def _rotate_key(self, operation: RotateKey) -> Code:
        suite, key, body = operation.suite, operation.public_key, self._prepared.body
        if not self._verifier.accepts_key(suite, key):
            return Code.BAD_KEY
        message = rotation_message(body.chain_id, self._sender, body.nonce)
        if not self._verifier.verify(VerifyJob(suite, key, message, contexts.ROTATION, operation.signature)):
            return Code.BAD_SIGNATURE
        record_key(self._overlay, self._sender, suite, key)
        return Code.OK


def record_key(overlay: Overlay, address: Address, suite: int, public_key: bytes) -> None:
    """Record an account's key: suite and hash in the account, the key in a leaf of its own."""
    raw = overlay.get(account_key(address))
    assert raw is not None, "only an account that exists has a key"
    account = Account.from_bytes(raw)._replace(suite=suite, key_hash=key_hash(suite, public_key))
    overlay.set(account_key(address), account.to_bytes())
    overlay.set(public_key_key(address), public_key)
