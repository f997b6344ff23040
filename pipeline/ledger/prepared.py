"""Reading one transaction record: decoding, static limits, gas. A function of record, genesis and shard map alone."""

from typing import Final, NamedTuple, assert_never

from pipeline.codec.topics import LogRecord
from pipeline.codec.types import MAX_AMOUNT, ShardId, TxId, slot_of_id
from pipeline.errors import PoisonRecord
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import DeadLetterReason
from pipeline.ledger.genesis import Limits
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
_MODES: Final = tuple(map(int, Mode))


class PlacedEntry(NamedTuple):
    """A transfer entry and the shard that owns its receiver."""

    to: bytes
    raw_amount: bytes
    amount: int
    owner: ShardId


class _LimitExceeded(Exception):  # noqa: N818 - control flow, never an error
    """A static limit does not hold; never leaves this module."""


class PreparedTransaction(NamedTuple):
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
        return PreparedTransaction(record, signed, body, tx_id, False, 0, ())
    return PreparedTransaction(record, signed, body, tx_id, True, gas, placed)


def _measure(chain: Chain, shard: ShardId, body: TransactionBody) -> tuple[int, tuple[list[PlacedEntry], ...]]:
    limits, schedule, owners = chain.genesis.limits, chain.genesis.gas, chain.shard_map.owners
    if (
        body.mode not in _MODES
        or body.nonce < 0
        or body.gas_limit < 0
        or body.gas_price < schedule.min_price
        or not 0 < len(body.operations) <= limits.operations
    ):
        raise _LimitExceeded
    placed: list[list[PlacedEntry]] = []
    count = remote = leaves = 0
    first_is_remote = False
    for operation in body.operations:
        if isinstance(operation, Transfer | Mint):
            entries = _place(limits, operation, owners)
            homes = [entry[3] for entry in entries]
            leaves += len(homes) if isinstance(operation, Transfer) else 0
        else:
            _check_single(limits, operation)
            entries = []
            homes = [owners[slot_of_id(operation.account)] if isinstance(operation, Freeze) else shard]
            leaves += isinstance(operation, CreateAsset | PutData | RotateKey)
        placed.append(entries)
        if not count:
            first_is_remote = homes[0] != shard
        count += len(homes)
        remote += len(homes) - homes.count(shard)
    if count > limits.entries:
        raise _LimitExceeded
    first = schedule.remote_entry if first_is_remote else schedule.local_entry
    further_remote = remote - first_is_remote
    further = (count - 1 - further_remote) * (schedule.local_entry // schedule.further_divisor)
    further += further_remote * (schedule.remote_entry // schedule.further_divisor)
    gas = first + further + leaves * schedule.leaf
    if gas > limits.block_gas:
        raise _LimitExceeded
    return gas, tuple(placed)


def _place(limits: Limits, operation: Transfer | Mint, owners: tuple[ShardId, ...]) -> list[PlacedEntry]:
    packed, size = operation.entries, TRANSFER_ENTRY.size
    if (
        not 0 < len(packed) <= limits.entries * size
        or len(packed) % size
        or len(operation.reference) > limits.reference_bytes
    ):
        raise _LimitExceeded
    from_bytes, new = int.from_bytes, tuple.__new__  # `new`: what PlacedEntry() ends in, without its Python frame
    entries = [
        new(PlacedEntry, (to, raw, from_bytes(raw, "big"), owners[to[0] << 4 | to[1] >> 4]))
        for to, raw in TRANSFER_ENTRY.iter_unpack(packed)
    ]
    if 0 in [entry[2] for entry in entries]:
        raise _LimitExceeded
    return entries


def _check_single(limits: Limits, operation: Operation) -> None:
    match operation:
        case CreateAsset(symbol, decimals):
            holds = 0 < len(symbol) <= limits.symbol_bytes and 0 <= decimals <= _MAX_DECIMALS
        case Burn(_, amount):
            holds = 0 < amount <= MAX_AMOUNT
        case PutData(name, value):
            holds = 0 < len(name) <= limits.data_name_bytes and len(value) <= limits.data_value_bytes
        case DeleteData(name):
            holds = 0 < len(name) <= limits.data_name_bytes
        case Freeze() | RotateKey():
            holds = True
        case Transfer() | Mint():
            raise AssertionError("entries are checked as they are placed")
        case _:
            assert_never(operation)
    if not holds:
        raise _LimitExceeded
