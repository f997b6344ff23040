"""Stages 2 and 3 of a transaction's checks. The order is consensus: codes are hashed into receipts."""

from collections.abc import Container, Iterable, Sequence

from pipeline.codec.types import MAX_AMOUNT, ShardId, StateKey, slot_of_id
from pipeline.crypto import contexts
from pipeline.crypto.addresses import address_of, key_hash
from pipeline.crypto.verifier import Verifier, VerifyJob
from pipeline.errors import TaskDiverged
from pipeline.ledger.balances import balance_of, load_receivers, set_balance
from pipeline.ledger.chain import Chain
from pipeline.ledger.codes import Code
from pipeline.ledger.leaves import Account, account_key, balance_key, fees_key, public_key_key
from pipeline.ledger.operations import record_key
from pipeline.ledger.overlay import Overlay, StateView
from pipeline.ledger.prepared import PreparedTransaction
from pipeline.ledger.transactions import Mint, SignedTransaction, Transfer


def stage_two(
    chain: Chain, shard: ShardId, overlay: Overlay, verifier: Verifier, prepared: PreparedTransaction
) -> Code:
    """Checks that cost nothing and change nothing; OK means that the signature held."""
    body, signed = prepared.body, prepared.signed
    if body.chain_id != chain.chain_id or body.protocol != chain.genesis.protocol:
        return Code.WRONG_CHAIN
    if chain.shard_map.owner_of(body.sender) != shard:
        return Code.WRONG_SHARD
    if not prepared.within_limits:
        return Code.LIMIT_EXCEEDED
    raw = overlay.get(account_key(body.sender))
    if raw is None:
        return Code.UNKNOWN_SENDER
    account = Account.from_bytes(raw)
    key = _signing_key(overlay, verifier, account, prepared)
    if isinstance(key, Code):
        return key
    if body.nonce < account.nonce:
        return Code.DUPLICATE_NONCE
    if body.nonce > account.nonce:
        return Code.NONCE_GAP
    return Code.OK if verifier.verify(_job(signed, key)) else Code.BAD_SIGNATURE


def _signing_key(overlay: Overlay, verifier: Verifier, account: Account, prepared: PreparedTransaction) -> bytes | Code:
    """The key to verify with: the recorded one, or one that hashes to the address. Never the address once recorded,
    else a key rotated away would work for ever."""
    body, signed = prepared.body, prepared.signed
    if account.suite:
        if signed.suite != account.suite:
            return Code.BAD_KEY
        if signed.public_key is not None and key_hash(signed.suite, signed.public_key) != account.key_hash:
            return Code.BAD_KEY
        if signed.public_key is not None:
            return signed.public_key
        recorded = overlay.get(public_key_key(body.sender))
        assert recorded is not None, "a recorded key hash without its key"
        return recorded
    if signed.public_key is None:
        return Code.KEY_REQUIRED
    if not verifier.accepts_key(signed.suite, signed.public_key):
        return Code.BAD_KEY
    if address_of(signed.suite, signed.public_key) != body.sender:
        return Code.BAD_KEY
    return signed.public_key


def _job(signed: SignedTransaction, key: bytes) -> VerifyJob:
    # What VerifyJob() ends in, without its Python frame.
    return tuple.__new__(VerifyJob, (signed.suite, key, signed.body, contexts.TRANSACTION, signed.signature))


def take_nonce_and_fee(
    chain: Chain, overlay: Overlay, prepared: PreparedTransaction, timestamp_ms: int
) -> tuple[Code, int]:
    """Stage 3: the signature held, so the nonce advances whatever follows. Returns the code and the fee taken."""
    body, signed = prepared.body, prepared.signed
    key = account_key(body.sender)
    raw = overlay.get(key)
    assert raw is not None, "stage 3 without stage 2"
    account = Account.from_bytes(raw)
    overlay.set(key, Account(account.nonce + 1, account.suite, account.key_hash).to_bytes())
    if not account.suite:
        assert signed.public_key is not None, "stage 2 demands a key"
        record_key(overlay, body.sender, signed.suite, signed.public_key)
    code, gas = Code.OK, prepared.gas
    if body.valid_until_ms is not None and timestamp_ms > body.valid_until_ms:
        code, gas = Code.EXPIRED, min(gas, body.gas_limit)
    elif gas > body.gas_limit:
        code, gas = Code.GAS_LIMIT, body.gas_limit
    if not body.gas_price or body.sender == chain.genesis.treasury:
        return code, 0
    fee = gas * body.gas_price
    taken = _take_fee(chain, overlay, body.sender, fee)
    return (Code.FEE_NOT_COVERED if code is Code.OK and taken < fee else code), taken


def _take_fee(chain: Chain, overlay: Overlay, sender: bytes, fee: int) -> int:
    balance = balance_of(overlay, sender, chain.genesis.fee_asset)
    taken = min(fee, balance.amount)
    if taken:
        set_balance(overlay, sender, chain.genesis.fee_asset, balance._replace(amount=balance.amount - taken))
        key = fees_key(slot_of_id(sender))
        held = int.from_bytes(overlay.get(key) or b"", "big") + taken
        if held > MAX_AMOUNT:
            # Issued amounts never exceed 2^128 - 1 over an asset's life: only a forged bundle leads here.
            raise TaskDiverged(f"fees of {held} exceed what was ever issued; audit the shards that sent the value")
        overlay.set(key, held.to_bytes(16, "big"))
    return taken


def prefetch(
    chain: Chain,
    shard: ShardId,
    overlay: Overlay,
    verifier: Verifier,
    transactions: Iterable[PreparedTransaction],
    begun: Container[int] = (),
) -> None:
    """Read the state that these transactions will touch, and have their signatures verified in parallel.

    Only a guess: the engine picks the key in its turn and asks again, so this changes no result. `begun`: offsets of
    those whose signatures somebody verifies already; the engine waits for each in its turn.
    """
    batch = _payable(chain, shard, transactions)
    verifier.prefetch([job for _, job in _likely_jobs(overlay, verifier, batch, begun)])
    keys: list[StateKey] = []
    for item in batch:
        sender = item.body.sender
        for operation, entries in zip(item.body.operations, item.placed, strict=True):
            if isinstance(operation, Transfer | Mint):
                keys.append(balance_key(sender, operation.asset))
                keys += [balance_key(to, operation.asset) for to, _, _, owner in entries if owner == shard]
    load_receivers(overlay, keys)


def begin_verifying(
    chain: Chain, shard: ShardId, view: StateView, verifier: Verifier, transactions: Iterable[PreparedTransaction]
) -> list[int] | None:
    """Have the signatures of transactions that wait verified beside other work. As much a guess as `prefetch`.

    Returns the offsets of those that will be. None: the verifier has enough to do, or too little; ask again later.
    """
    jobs = _likely_jobs(Overlay(view), verifier, _payable(chain, shard, transactions), ())
    return [offset for offset, _ in jobs] if verifier.begin([job for _, job in jobs]) else None


def _payable(chain: Chain, shard: ShardId, transactions: Iterable[PreparedTransaction]) -> list[PreparedTransaction]:
    """Only what this shard holds: anyone can publish a transaction of another shard's account here."""
    chain_id, owner_of = chain.chain_id, chain.shard_map.owner_of
    return [
        item
        for item in transactions
        if item.within_limits and item.body.chain_id == chain_id and owner_of(item.body.sender) == shard
    ]


def _likely_jobs(
    overlay: Overlay, verifier: Verifier, batch: Sequence[PreparedTransaction], begun: Container[int]
) -> list[tuple[int, VerifyJob]]:
    """The signatures that stage two will probably ask for, by offset, but for those `begun`."""
    overlay.load([account_key(item.body.sender) for item in batch])
    jobs: list[tuple[int, VerifyJob]] = []
    offered: dict[bytes, bytes] = {}
    for item in batch:
        body, offset = item.body, item.record.offset
        if offset in begun:
            if item.signed.public_key is not None:
                offered[body.sender] = item.signed.public_key
            continue
        raw = overlay.get(account_key(body.sender))
        if raw is None or body.nonce < (account := Account.from_bytes(raw)).nonce:
            continue
        key = item.signed.public_key
        if key is not None:
            offered[body.sender] = key
        elif account.suite:
            key = overlay.get(public_key_key(body.sender))
        else:
            # An earlier transaction of this batch may record the key that this one relies on.
            key = offered.get(body.sender)
        if key is not None and verifier.accepts_key(item.signed.suite, key):
            jobs.append((offset, _job(item.signed, key)))
    return jobs
