"""Reading one transaction record: decoding, static limits, gas. A function of record, genesis and shard map alone."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from pipeline.codec.topics import LogRecord
from pipeline.codec.types import MAX_AMOUNT, ShardId, TxId
from pipeline.errors import PoisonRecord
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import DeadLetterReason
from pipeline.ledger.packing import TRANSFER_ENTRY
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
    SignedTransaction,
    TransactionBody,
    Transfer,
    tx_id_of,
)

_MAX_DECIMALS: Final = 38


class PlacedEntry(NamedTuple):
    """A transfer entry and the shard that owns its receiver."""

    to: bytes
    raw_amount: bytes
    amount: int
    owner: ShardId


class _LimitExceeded(Exception):  # noqa: N818 - control flow, never an error
    """A static limit does not hold; never leaves this module."""


@dataclass(frozen=True, slots=True)
class PreparedTransaction:
    """A decodable record. `placed[i]` are the entries of operation i (none where it has no list).

    `within_limits` False: the transaction is LIMIT_EXCEEDED, and `gas` and `placed` are empty.
    """

    record: LogRecord
    signed: SignedTransaction
    body: TransactionBody
    tx_id: TxId
    within_limits: bool
    gas: int
    placed: tuple[list[PlacedEntry], ...]


class TransactionReader:
    """Prepares records of one shard's `transactions`, each once: leader's composer and engine share the result."""

    def __init__(self, chain: Chain, shard: ShardId) -> None:
        """Reads for `shard` of `chain`."""
        self._chain = chain
        self._shard = shard
        self._kept: dict[int, tuple[LogRecord, PreparedTransaction | DeadLetterReason]] = {}

    def read(self, record: LogRecord) -> PreparedTransaction | DeadLetterReason:
        """The prepared transaction, or why the record becomes a dead letter."""
        kept = self._kept.get(record.offset)
        if kept is not None and kept[0] is record:
            return kept[1]
        prepared = prepare_transaction(self._chain, self._shard, record)
        self._kept[record.offset] = (record, prepared)
        return prepared

    def forget(self, before: int) -> None:
        """Drop what stands at offsets below `before`."""
        self._kept = {offset: kept for offset, kept in self._kept.items() if offset >= before}


def prepare_transaction(chain: Chain, shard: ShardId, record: LogRecord) -> PreparedTransaction | DeadLetterReason:
    """Decode a record and compute its gas."""
    if record.value is not None and len(record.value) > chain.genesis.limits.record_bytes:
        return DeadLetterReason.TOO_LARGE
    try:
        signed = SignedTransaction.from_record(record.value)
        body = TransactionBody.from_bytes(signed.body)
    except PoisonRecord:
        return DeadLetterReason.UNDECODABLE
    tx_id = tx_id_of(signed.body)
    try:
        gas, placed = _measure(chain, shard, body)
    except _LimitExceeded:
        return PreparedTransaction(record, signed, body, tx_id, within_limits=False, gas=0, placed=())
    return PreparedTransaction(record, signed, body, tx_id, within_limits=True, gas=gas, placed=placed)


def _measure(chain: Chain, shard: ShardId, body: TransactionBody) -> tuple[int, tuple[list[PlacedEntry], ...]]:
    limits, schedule = chain.genesis.limits, chain.genesis.gas
    _require(body.mode in (Mode.ATOMIC, Mode.INDEPENDENT))
    _require(body.nonce >= 0 and body.gas_limit >= 0 and body.gas_price >= schedule.min_price)
    _require(0 < len(body.operations) <= limits.operations)
    owners = chain.shard_map.owners
    placed: list[list[PlacedEntry]] = []
    local = remote = leaves = 0
    first_is_remote = False
    for operation in body.operations:
        _check_operation(chain, operation)
        entries = _place(operation, owners)
        placed.append(entries)
        is_remote = (
            [owners[operation.account[0] << 4 | operation.account[1] >> 4] != shard]
            if isinstance(operation, Freeze)
            else ([entry.owner != shard for entry in entries] or [False])
        )
        if not local + remote:
            first_is_remote = is_remote[0]
        away = sum(is_remote)
        remote += away
        local += len(is_remote) - away
        match operation:
            case Transfer():
                leaves += len(entries)
            case CreateAsset() | PutData() | RotateKey():
                leaves += 1
    _require(local + remote <= limits.entries)
    first = schedule.remote_entry if first_is_remote else schedule.local_entry
    local, remote = (local, remote - 1) if first_is_remote else (local - 1, remote)
    further = local * (schedule.local_entry // schedule.further_divisor)
    further += remote * (schedule.remote_entry // schedule.further_divisor)
    gas = first + further + leaves * schedule.leaf
    _require(gas <= limits.block_gas)
    return gas, tuple(placed)


def _place(operation: Operation, owners: tuple[ShardId, ...]) -> list[PlacedEntry]:
    if not isinstance(operation, Transfer | Mint):
        return []
    packed = operation.entries
    _require(len(packed) > 0 and len(packed) % TRANSFER_ENTRY.size == 0)
    from_bytes = int.from_bytes
    entries = [
        PlacedEntry(to, raw, from_bytes(raw, "big"), owners[to[0] << 4 | to[1] >> 4])
        for to, raw in TRANSFER_ENTRY.iter_unpack(packed)
    ]
    _require(all(entry[2] for entry in entries))
    return entries


def _check_operation(chain: Chain, operation: Operation) -> None:
    limits = chain.genesis.limits
    match operation:
        case Transfer() | Mint():
            _require(len(operation.entries) <= limits.entries * TRANSFER_ENTRY.size)
            _require(len(operation.reference) <= limits.reference_bytes)
        case CreateAsset(symbol, decimals):
            _require(0 < len(symbol) <= limits.symbol_bytes and 0 <= decimals <= _MAX_DECIMALS)
        case Burn(_, amount):
            _require(0 < amount <= MAX_AMOUNT)
        case PutData(name, value):
            _require(0 < len(name) <= limits.data_name_bytes and len(value) <= limits.data_value_bytes)
        case DeleteData(name):
            _require(0 < len(name) <= limits.data_name_bytes)
        case Freeze() | RotateKey():
            pass


def _require(holds: bool) -> None:
    if not holds:
        raise _LimitExceeded
