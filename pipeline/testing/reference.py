"""The rules of the ledger a second time, as plainly as possible: what tests hold the engine against.

Dicts and Python ints, one function a rule, written from docs/protocol.md. It shares record types, codes and hashes with
the engine, and no rule: whatever both get wrong in the same way was misread twice. Slow on purpose; an undo is a copy
of the whole state.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.codec.types import MAX_AMOUNT, Address, AssetId, Hash32, TxId, slot_of_id
from pipeline.crypto import contexts
from pipeline.crypto.addresses import address_of, key_hash
from pipeline.crypto.suites import SuiteSet
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import Code
from pipeline.ledger.relay import EffectKind
from pipeline.ledger.transactions import (
    Burn,
    CreateAsset,
    DeleteData,
    Freeze,
    Mint,
    Operation,
    PutData,
    RotateKey,
    SignedTransaction,
    TransactionBody,
    Transfer,
    asset_id_of,
)

_ENTRY_BYTES = 48


class Effect(NamedTuple):
    """Something that happens on another shard."""

    destination: int
    kind: EffectKind
    tx_id: bytes
    sender: bytes
    asset: bytes
    reference: bytes
    entry: int
    to: bytes
    amount: int


class Failure(NamedTuple):
    """An entry that did not happen."""

    entry: int
    code: Code


@dataclass(frozen=True)
class Verdict:
    """What became of one transaction."""

    code: Code
    nonce_consumed: bool = False
    gas: int = 0
    fee: int = 0
    failures: tuple[Failure, ...] = ()
    effects: tuple[Effect, ...] = ()


@dataclass
class ReferenceAccount:
    """`suite` 0: no key recorded yet."""

    nonce: int = 0
    suite: int = 0
    public_key: bytes = b""


@dataclass
class ReferenceAsset:
    """An asset on its issuer's shard."""

    issuer: bytes
    symbol: bytes
    decimals: int
    issued: int = 0
    burned: int = 0


@dataclass
class ReferenceState:
    """Everything that one shard knows; absent balances are zero."""

    accounts: dict[bytes, ReferenceAccount] = field(default_factory=dict)
    balances: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    frozen: set[tuple[bytes, bytes]] = field(default_factory=set)
    assets: dict[bytes, ReferenceAsset] = field(default_factory=dict)
    data: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)
    fees: dict[int, int] = field(default_factory=dict)

    def balance(self, account: bytes, asset: bytes) -> int:
        """Minor units."""
        return self.balances.get((account, asset), 0)

    def leaves(self) -> dict[bytes, bytes]:
        """Every leaf by its state key, bytes as docs/protocol.md lays them out."""
        leaves: dict[bytes, bytes] = {}
        for address, account in self.accounts.items():
            hashed = key_hash(account.suite, account.public_key) if account.suite else bytes(32)
            leaves[b"account/" + address] = account.nonce.to_bytes(8, "big") + bytes([account.suite]) + hashed
            if account.suite:
                leaves[b"key/" + address] = account.public_key
        for pair in {pair for pair, amount in self.balances.items() if amount} | self.frozen:
            value = self.balances.get(pair, 0).to_bytes(16, "big") + bytes([pair in self.frozen])
            leaves[b"balance/" + pair[0] + b"/" + pair[1]] = value
        for asset_id, asset in self.assets.items():
            supply = asset.issued.to_bytes(16, "big") + asset.burned.to_bytes(16, "big")
            leaves[b"asset/" + asset_id] = asset.issuer + bytes([asset.decimals]) + supply + asset.symbol
        for (address, name), value in self.data.items():
            leaves[b"data/" + address + b"/" + name] = value
        for slot, amount in self.fees.items():
            if amount:
                leaves[b"fees/" + slot.to_bytes(2, "big")] = amount.to_bytes(16, "big")
        return leaves


class ReferenceShard:
    """One shard: feed it its inputs in order."""

    def __init__(self, chain: Chain, shard: int, suites: SuiteSet) -> None:
        """Empty, before genesis."""
        self.chain = chain
        self.shard = shard
        self.suites = suites
        self.state = ReferenceState()

    # Inputs

    def genesis(self) -> None:
        """The treasury exists without a credit, on the shard that owns it."""
        treasury = self.chain.genesis.treasury
        if self._is_here(treasury):
            self.state.accounts[treasury] = ReferenceAccount()

    def collect_fees(self, record_hash: Hash32, to: Address) -> list[Effect]:
        """Move every fees leaf to `to`, which may live elsewhere."""
        asset = self.chain.genesis.fee_asset
        gathered = [self.state.fees[slot] for slot in sorted(self.state.fees) if self.state.fees[slot]]
        self.state.fees.clear()
        if self._is_here(to):
            for amount in gathered:
                self._credit(to, asset, amount)
            return []
        home = self.chain.shard_map.owner_of(to)
        return [
            Effect(home, EffectKind.FEES, TxId(record_hash), to, asset, b"", entry, to, amount)
            for entry, amount in enumerate(gathered)
        ]

    def arrive(self, effects: Sequence[Effect]) -> tuple[list[tuple[int, Code]], list[Effect]]:
        """Effects from another shard: the refused ones as (position, code), and the refunds that go out for them."""
        refused: list[tuple[int, Code]] = []
        refunds: list[Effect] = []
        for position, effect in enumerate(effects):
            pair = (effect.to, effect.asset)
            here = self._is_here(effect.to)
            match effect.kind:
                case EffectKind.CREDIT:
                    if here and pair not in self.state.frozen:
                        self._credit(effect.to, effect.asset, effect.amount)
                        continue
                    refused.append((position, Code.FROZEN if here else Code.SLOT_NOT_OWNED))
                    refunds += self._refund(effect)
                case _ if not here:
                    refused.append((position, Code.SLOT_NOT_OWNED))
                case EffectKind.REFUND | EffectKind.FEES:
                    self._credit(effect.to, effect.asset, effect.amount)
                case EffectKind.FREEZE:
                    self.state.frozen.add(pair)
                case EffectKind.THAW:
                    self.state.frozen.discard(pair)
        return refused, refunds

    def _refund(self, effect: Effect) -> list[Effect]:
        home = self.chain.shard_map.owner_of(effect.sender)
        if home == self.shard:
            self._credit(effect.sender, effect.asset, effect.amount)
            return []
        return [effect._replace(destination=home, kind=EffectKind.REFUND, to=effect.sender)]

    def transaction(self, signed: SignedTransaction, now_ms: int) -> Verdict:
        """One decodable transaction record at block time `now_ms`."""
        body = TransactionBody.from_bytes(signed.body)
        code = self._free_checks(signed, body)
        if code is not Code.OK:
            return Verdict(code)
        account = self.state.accounts[body.sender]
        account.nonce += 1
        if not account.suite:
            assert signed.public_key is not None
            account.suite, account.public_key = signed.suite, signed.public_key
        code, gas, fee = self._pay(body, now_ms)
        if code is not Code.OK:
            return Verdict(code, nonce_consumed=True, gas=gas, fee=fee)
        code, failures, effects = self._run(signed, body)
        return Verdict(code, nonce_consumed=True, gas=gas, fee=fee, failures=failures, effects=effects)

    # Checks that cost nothing

    def _free_checks(self, signed: SignedTransaction, body: TransactionBody) -> Code:
        if body.chain_id != self.chain.chain_id or body.protocol != 1:
            return Code.WRONG_CHAIN
        if not self._is_here(body.sender):
            return Code.WRONG_SHARD
        if not self._within_limits(body):
            return Code.LIMIT_EXCEEDED
        account = self.state.accounts.get(body.sender)
        if account is None:
            return Code.UNKNOWN_SENDER
        if account.suite:
            key = account.public_key
            if signed.suite != account.suite or signed.public_key not in (None, key):
                return Code.BAD_KEY
        else:
            if signed.public_key is None:
                return Code.KEY_REQUIRED
            key = signed.public_key
            if not self._is_key(signed.suite, key) or address_of(signed.suite, key) != body.sender:
                return Code.BAD_KEY
        if body.nonce != account.nonce:
            return Code.DUPLICATE_NONCE if body.nonce < account.nonce else Code.NONCE_GAP
        holds = self.suites.verify(signed.suite, key, signed.body, contexts.TRANSACTION, signed.signature)
        return Code.OK if holds else Code.BAD_SIGNATURE

    def _is_key(self, suite: int, key: bytes) -> bool:
        return suite in self.suites and len(key) == self.suites[suite].public_key_bytes

    def _within_limits(self, body: TransactionBody) -> bool:
        limits = self.chain.genesis.limits
        return (
            body.mode in (0, 1)
            and body.nonce >= 0
            and body.gas_limit >= 0
            and body.gas_price >= self.chain.genesis.gas.min_price
            and 1 <= len(body.operations) <= limits.operations
            and all(self._operation_fits(operation) for operation in body.operations)
            and sum(len(_units(operation)) for operation in body.operations) <= limits.entries
            and self.gas_of(body) <= limits.block_gas
        )

    def _operation_fits(self, operation: Operation) -> bool:
        limits = self.chain.genesis.limits
        if isinstance(operation, Transfer | Mint):
            whole = len(operation.entries) > 0 and len(operation.entries) % _ENTRY_BYTES == 0
            amounts = whole and all(amount > 0 for _, amount in _entries(operation))
            return amounts and len(operation.reference) <= limits.reference_bytes
        if isinstance(operation, CreateAsset):
            return 1 <= len(operation.symbol) <= limits.symbol_bytes and 0 <= operation.decimals <= 38
        if isinstance(operation, Burn):
            return operation.amount > 0
        if isinstance(operation, PutData):
            return (
                1 <= len(operation.name) <= limits.data_name_bytes and len(operation.value) <= limits.data_value_bytes
            )
        if isinstance(operation, DeleteData):
            return 1 <= len(operation.name) <= limits.data_name_bytes
        return True

    # Gas and fees

    def gas_of(self, body: TransactionBody) -> int:
        """What the transaction costs, whatever becomes of it."""
        schedule = self.chain.genesis.gas
        total, first = 0, True
        for operation in body.operations:
            for receiver in _units(operation):
                here = receiver is None or self._is_here(receiver)
                price = schedule.local_entry if here else schedule.remote_entry
                total += price if first else price // schedule.further_divisor
                first = False
                if isinstance(operation, Transfer | CreateAsset | PutData | RotateKey):
                    total += schedule.leaf
        return total

    def _pay(self, body: TransactionBody, now_ms: int) -> tuple[Code, int, int]:
        """Code, gas charged, fee taken."""
        gas, code = self.gas_of(body), Code.OK
        if body.valid_until_ms is not None and now_ms > body.valid_until_ms:
            code = Code.EXPIRED
        elif gas > body.gas_limit:
            code = Code.GAS_LIMIT
        if code is not Code.OK:
            gas = min(gas, body.gas_limit)
        if body.sender == self.chain.genesis.treasury:
            return code, gas, 0
        asset = self.chain.genesis.fee_asset
        due, there = gas * body.gas_price, self.state.balance(body.sender, asset)
        fee = min(due, there)
        if fee:
            slot = slot_of_id(body.sender)
            self.state.balances[body.sender, asset] = there - fee
            self.state.fees[slot] = self.state.fees.get(slot, 0) + fee
        if code is Code.OK and fee < due:
            code = Code.FEE_NOT_COVERED
        return code, gas, fee

    # Operations

    def _run(
        self, signed: SignedTransaction, body: TransactionBody
    ) -> tuple[Code, tuple[Failure, ...], tuple[Effect, ...]]:
        before = deepcopy(self.state)
        failures: list[Failure] = []
        effects: list[Effect] = []
        entry = 0
        for operation in body.operations:
            # An operation's effects leave grouped by destination, in the order of first use.
            away: dict[int, list[Effect]] = {}
            for receiver, amount in _movements(operation):
                outcome = self._entry(signed, body, operation, entry, receiver, amount)
                if isinstance(outcome, Effect):
                    away.setdefault(outcome.destination, []).append(outcome)
                elif outcome is not Code.OK and body.mode == 0:
                    self.state = before
                    return outcome, (Failure(entry, outcome),), ()
                elif outcome is not Code.OK:
                    failures.append(Failure(entry, outcome))
                entry += 1
            effects += [effect for group in away.values() for effect in group]
        return (Code.PARTIAL if failures else Code.OK), tuple(failures), tuple(effects)

    def _entry(
        self,
        signed: SignedTransaction,
        body: TransactionBody,
        operation: Operation,
        entry: int,
        receiver: bytes,
        amount: int,
    ) -> Code | Effect:
        def effect(kind: EffectKind, asset: AssetId, reference: bytes = b"") -> Effect:
            home = self.chain.shard_map.owner_of(receiver)
            return Effect(home, kind, signed.tx_id, sender, asset, reference, entry, receiver, amount)

        sender, state = body.sender, self.state
        match operation:
            case Transfer(asset, _, reference):
                code = self._transfer(sender, asset, receiver, amount)
                away = code is Code.OK and not self._is_here(receiver)
                return effect(EffectKind.CREDIT, asset, reference) if away else code
            case Mint(asset, _, reference):
                code = self._mint(sender, asset, receiver, amount)
                away = code is Code.OK and not self._is_here(receiver)
                return effect(EffectKind.CREDIT, asset, reference) if away else code
            case CreateAsset(symbol, decimals):
                return self._create_asset(sender, symbol, decimals)
            case Burn(asset, amount):
                return self._burn(sender, asset, amount)
            case Freeze(asset, _, frozen):
                code = self._issuer_code(sender, asset)
                if code is Code.OK and not self._is_here(receiver):
                    return effect(EffectKind.FREEZE if frozen else EffectKind.THAW, asset)
                if code is Code.OK:
                    (state.frozen.add if frozen else state.frozen.discard)((receiver, asset))
                return code
            case RotateKey():
                return self._rotate_key(body, operation)
            case PutData(name, value):
                state.data[sender, name] = value
                return Code.OK
            case DeleteData(name):
                return Code.NOT_FOUND if state.data.pop((sender, name), None) is None else Code.OK

    def _transfer(self, sender: Address, asset: AssetId, to: bytes, amount: int) -> Code:
        state = self.state
        if (sender, asset) in state.frozen:
            return Code.FROZEN
        if state.balance(sender, asset) < amount:
            return Code.INSUFFICIENT_FUNDS
        if to == sender:
            return Code.OK
        if self._is_here(to):
            if (to, asset) in state.frozen:
                return Code.FROZEN
            self._credit(to, asset, amount)
        state.balances[sender, asset] -= amount
        return Code.OK

    def _mint(self, sender: Address, asset_id: AssetId, to: bytes, amount: int) -> Code:
        code = self._issuer_code(sender, asset_id)
        if code is not Code.OK:
            return code
        asset = self.state.assets[asset_id]
        if asset.issued + amount > MAX_AMOUNT:
            return Code.SUPPLY_EXCEEDED
        if self._is_here(to):
            if (to, asset_id) in self.state.frozen:
                return Code.FROZEN
            self._credit(to, asset_id, amount)
        asset.issued += amount
        return Code.OK

    def _burn(self, sender: Address, asset_id: AssetId, amount: int) -> Code:
        code = self._issuer_code(sender, asset_id)
        if code is not Code.OK:
            return code
        if (sender, asset_id) in self.state.frozen:
            return Code.FROZEN
        if self.state.balance(sender, asset_id) < amount:
            return Code.INSUFFICIENT_FUNDS
        self.state.balances[sender, asset_id] -= amount
        self.state.assets[asset_id].burned += amount
        return Code.OK

    def _create_asset(self, sender: Address, symbol: bytes, decimals: int) -> Code:
        asset_id = asset_id_of(sender, symbol)
        if asset_id in self.state.assets:
            return Code.ASSET_EXISTS
        self.state.assets[asset_id] = ReferenceAsset(sender, symbol, decimals)
        return Code.OK

    def _rotate_key(self, body: TransactionBody, operation: RotateKey) -> Code:
        suite, key = operation.suite, operation.public_key
        if not self._is_key(suite, key):
            return Code.BAD_KEY
        message = body.chain_id + body.sender + body.nonce.to_bytes(8, "big")
        if not self.suites.verify(suite, key, message, contexts.ROTATION, operation.signature):
            return Code.BAD_SIGNATURE
        account = self.state.accounts[body.sender]
        account.suite, account.public_key = suite, key
        return Code.OK

    # Small things

    def _is_here(self, identifier: bytes) -> bool:
        return self.chain.shard_map.owners[slot_of_id(identifier)] == self.shard

    def _issuer_code(self, sender: bytes, asset_id: bytes) -> Code:
        asset = self.state.assets.get(asset_id)
        if asset is None:
            return Code.UNKNOWN_ASSET
        return Code.OK if asset.issuer == sender else Code.NOT_ISSUER

    def _credit(self, to: bytes, asset: bytes, amount: int) -> None:
        self.state.accounts.setdefault(to, ReferenceAccount())
        self.state.balances[to, asset] = self.state.balance(to, asset) + amount


def _entries(operation: Transfer | Mint) -> list[tuple[bytes, int]]:
    packed = operation.entries
    return [
        (packed[at : at + 32], int.from_bytes(packed[at + 32 : at + _ENTRY_BYTES], "big"))
        for at in range(0, len(packed), _ENTRY_BYTES)
    ]


def _units(operation: Operation) -> list[bytes | None]:
    """The receiver of each entry; None where the entry concerns the sender alone."""
    if isinstance(operation, Transfer | Mint):
        return [to for to, _ in _entries(operation)]
    return [operation.account] if isinstance(operation, Freeze) else [None]


def _movements(operation: Operation) -> list[tuple[bytes, int]]:
    """Receiver and amount of each entry; nobody and nothing where an operation has none."""
    if isinstance(operation, Transfer | Mint):
        return _entries(operation)
    return [(operation.account, 0)] if isinstance(operation, Freeze) else [(b"", 0)]


def imbalances(shards: Iterable[ReferenceShard], in_flight: Iterable[Effect], fee_asset: bytes) -> dict[bytes, int]:
    """Per asset: balances + fees held + value in flight - (issued - burned), where that is not zero."""
    totals: dict[bytes, int] = {}

    def add(asset: bytes, amount: int) -> None:
        totals[asset] = totals.get(asset, 0) + amount

    for shard in shards:
        for (_, asset), amount in shard.state.balances.items():
            add(asset, amount)
        for amount in shard.state.fees.values():
            add(fee_asset, amount)
        for asset_id, issued in shard.state.assets.items():
            add(asset_id, issued.burned - issued.issued)
    for effect in in_flight:
        add(effect.asset, effect.amount)
    return {asset: amount for asset, amount in totals.items() if amount}
