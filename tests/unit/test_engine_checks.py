"""The order of a transaction's checks: of two faults the earlier one gives the code. And what each costs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import pytest

from pipeline.codec.topics import LogRecord
from pipeline.codec.types import ChainId
from pipeline.crypto import contexts
from pipeline.ledger.codes import Code, DeadLetterReason
from pipeline.ledger.engine import InputBatch
from pipeline.ledger.genesis import GasSchedule, Limits
from pipeline.ledger.leaves import Account, public_key_key
from pipeline.ledger.receipts import TransactionReceipt, decode_receipt
from pipeline.ledger.transactions import (
    Burn,
    CreateAsset,
    DeleteData,
    Operation,
    PutData,
    SignedTransaction,
    TransactionBody,
    Transfer,
)
from pipeline.testing.world import START_MS, Actor, World, mint, rotate_key, transfer

FUNDS = 1_000_000
MIN_PRICE = 1
GAS = 510_000


@dataclass
class Attempt:
    """A transaction of `actor`, good unless something is spoilt."""

    actor: Actor
    body: TransactionBody
    suite: int
    public_key: bytes | None
    spoilt_signature: bool = False

    def set(self, **fields: object) -> None:
        self.body = self.body._replace(**fields)

    def signed(self) -> SignedTransaction:
        datum = self.body.to_bytes()
        signature = self.actor.key.sign(datum, contexts.TRANSACTION)
        if self.spoilt_signature:
            signature = bytes([signature[0] ^ 1]) + signature[1:]
        return SignedTransaction(datum, self.suite, self.public_key, signature)


class Stage:
    """Two shards; on shard 0 a fresh account without a key, and a used one with nonce 1 and a recorded key."""

    def __init__(self) -> None:
        self.world = World(2, gas=GasSchedule(min_price=MIN_PRICE))
        actor = self.world.actor
        self.fresh, self.used, self.poor, self.away = actor("fresh"), actor("used"), actor("poor"), actor("away", 1)
        self.receiver, self.nobody = actor("receiver"), actor("nobody")
        world = self.world
        holders = [(self.fresh, FUNDS), (self.used, 10 * FUNDS), (self.away, FUNDS), (self.poor, 7)]
        operations = (CreateAsset(b"UNIT"), mint(world.asset, *holders))
        world.submit(world.signed(world.treasury, *operations, gas_price=MIN_PRICE))
        world.settle()
        world.run_block(0, [world.signed(self.used, CreateAsset(b"OWN"), gas_price=1)])
        world.settle()

    def attempt(self, actor: Actor, nonce: int, *operations: Operation) -> Attempt:
        operations = operations or (transfer(self.world.asset, (self.receiver, 10)),)
        body = TransactionBody(self.world.chain.chain_id, actor.address, nonce, operations, gas_price=MIN_PRICE)
        return Attempt(actor, body, actor.key.suite_id, actor.key.public_key)

    def receipt(self, attempt: Attempt) -> TransactionReceipt:
        (receipt,) = self.world.run_block(0, [attempt.signed()]).receipts
        assert isinstance(receipt, TransactionReceipt)
        return receipt


def _from(attempt: Attempt, actor: Actor) -> None:
    attempt.actor = actor
    attempt.suite, attempt.public_key = actor.key.suite_id, actor.key.public_key
    attempt.set(sender=actor.address)


def _without_key(stage: Stage, attempt: Attempt) -> None:
    attempt.public_key = None


def _other_key(stage: Stage, attempt: Attempt) -> None:
    attempt.public_key = stage.receiver.key.public_key


def _spoil(stage: Stage, attempt: Attempt) -> None:
    attempt.spoilt_signature = True


FAULTS: dict[Code, Callable[[Stage, Attempt], None]] = {
    Code.WRONG_CHAIN: lambda stage, attempt: attempt.set(chain_id=ChainId(bytes(32))),
    Code.WRONG_SHARD: lambda stage, attempt: _from(attempt, stage.away),
    Code.LIMIT_EXCEEDED: lambda stage, attempt: attempt.set(gas_price=0),
    Code.UNKNOWN_SENDER: lambda stage, attempt: _from(attempt, stage.nobody),
    Code.KEY_REQUIRED: _without_key,
    Code.BAD_KEY: _other_key,
    Code.DUPLICATE_NONCE: lambda stage, attempt: attempt.set(nonce=0),
    Code.NONCE_GAP: lambda stage, attempt: attempt.set(nonce=attempt.body.nonce + 5),
    Code.BAD_SIGNATURE: _spoil,
    Code.EXPIRED: lambda stage, attempt: attempt.set(valid_until_ms=START_MS - 1),
    Code.GAS_LIMIT: lambda stage, attempt: attempt.set(gas_limit=GAS - 1),
    Code.FEE_NOT_COVERED: lambda stage, attempt: attempt.set(gas_price=max(attempt.body.gas_price, 0) * 10**7),
    Code.INSUFFICIENT_FUNDS: lambda stage, attempt: attempt.set(
        operations=(transfer(stage.world.asset, (stage.receiver, 10 * FUNDS)),)
    ),
}
ORDER = list(FAULTS)
IMPOSSIBLE = {
    (Code.WRONG_SHARD, Code.UNKNOWN_SENDER),  # two senders
    (Code.KEY_REQUIRED, Code.BAD_KEY),  # no key and a key
    (Code.DUPLICATE_NONCE, Code.NONCE_GAP),  # two nonces
    (Code.KEY_REQUIRED, Code.DUPLICATE_NONCE),  # who ever sent has a key
    (Code.UNKNOWN_SENDER, Code.DUPLICATE_NONCE),
}


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage()


def _run_uncommitted(stage: Stage, *faults: Code) -> TransactionReceipt:
    """Execute one attempt with these faults on the common state; nothing is kept."""
    actor, nonce = (stage.used, 1) if Code.DUPLICATE_NONCE in faults else (stage.fresh, 0)
    attempt = stage.attempt(actor, nonce)
    for fault in sorted(faults, reverse=True):
        FAULTS[fault](stage, attempt)
    return _executed(stage, attempt)


def _executed(stage: Stage, attempt: Attempt | SignedTransaction) -> TransactionReceipt:
    """The receipt of one attempt on the common state; nothing is kept."""
    signed = attempt.signed() if isinstance(attempt, Attempt) else attempt
    pending = stage.world.pending(0)
    offset = pending.transactions.next
    record = LogRecord(offset, None, signed.to_record())
    inputs = replace(pending, transactions=InputBatch(offset + 1, (record,)))
    (datum,) = stage.world.execute(0, inputs).receipts
    receipt = decode_receipt(datum)
    assert isinstance(receipt, TransactionReceipt)
    return receipt


def test_without_a_fault_it_succeeds(stage: Stage) -> None:
    receipt = _run_uncommitted(stage)
    assert (receipt.code, receipt.nonce_consumed, receipt.gas_used, receipt.fee) == (Code.OK, True, GAS, GAS)


@pytest.mark.parametrize("fault", ORDER, ids=lambda code: code.name)
def test_each_fault_alone_gives_its_code(stage: Stage, fault: Code) -> None:
    receipt = _run_uncommitted(stage, fault)
    assert receipt.code == fault
    assert receipt.nonce_consumed == (fault >= Code.EXPIRED)
    if fault < Code.EXPIRED:
        assert (receipt.gas_used, receipt.fee, receipt.failures, receipt.channels) == (0, 0, (), ())


@pytest.mark.parametrize(
    ("first", "second"),
    [pair for pair in combinations(ORDER, 2) if pair not in IMPOSSIBLE],
    ids=lambda code: code.name,
)
def test_of_two_faults_the_earlier_wins(stage: Stage, first: Code, second: Code) -> None:
    assert _run_uncommitted(stage, first, second).code == first


# What a failure costs


@pytest.mark.parametrize(
    ("fields", "code", "gas", "fee"),
    [
        ({}, Code.OK, GAS, GAS),
        ({"gas_limit": GAS}, Code.OK, GAS, GAS),
        ({"valid_until_ms": START_MS}, Code.OK, GAS, GAS),
        ({"valid_until_ms": START_MS - 1}, Code.EXPIRED, GAS, GAS),
        ({"valid_until_ms": START_MS - 1, "gas_limit": 7}, Code.EXPIRED, 7, 7),
        ({"valid_until_ms": START_MS - 1, "gas_price": 2**128 - 1}, Code.EXPIRED, GAS, FUNDS),
        ({"gas_limit": GAS - 1}, Code.GAS_LIMIT, GAS - 1, GAS - 1),
        ({"gas_limit": 0}, Code.GAS_LIMIT, 0, 0),
        ({"gas_limit": 400_000, "gas_price": 3}, Code.GAS_LIMIT, 400_000, FUNDS),
        ({"gas_price": 2}, Code.FEE_NOT_COVERED, GAS, FUNDS),
        ({"gas_price": 2**128 - 1}, Code.FEE_NOT_COVERED, GAS, FUNDS),
    ],
)
def test_the_nonce_and_the_fee_are_taken_whatever_follows(
    fields: dict[str, int], code: Code, gas: int, fee: int
) -> None:
    stage = Stage()
    attempt = stage.attempt(stage.fresh, 0)
    attempt.set(**fields)
    receipt = stage.receipt(attempt)
    assert (receipt.code, receipt.nonce_consumed, receipt.gas_used, receipt.fee) == (code, True, gas, fee)
    moved = 10 if code is Code.OK else 0
    assert stage.world.balance(stage.fresh).amount == FUNDS - fee - moved
    assert stage.world.balance(stage.receiver).amount == moved
    account = stage.world.account(stage.fresh)
    assert account is not None
    assert (account.nonce, account.suite) == (1, stage.fresh.key.suite_id)
    assert stage.receipt(attempt).code is Code.DUPLICATE_NONCE


def test_a_fee_is_taken_before_the_operations() -> None:
    stage = Stage()
    attempt = stage.attempt(stage.fresh, 0, transfer(stage.world.asset, (stage.receiver, FUNDS - GAS + 1)))
    assert stage.receipt(attempt).code is Code.INSUFFICIENT_FUNDS
    assert stage.world.balance(stage.fresh).amount == FUNDS - GAS
    attempt = stage.attempt(stage.used, 1, transfer(stage.world.asset, (stage.receiver, 1)))
    attempt.set(gas_limit=10)
    assert stage.receipt(attempt).code is Code.GAS_LIMIT


def test_the_treasury_pays_nothing_and_never_fails_for_fees() -> None:
    world = World(gas=GasSchedule(min_price=5))
    world.run_block(0)
    receipt = world.run_block(0, [world.signed(world.treasury, CreateAsset(b"UNIT"), gas_price=2**128 - 1)]).receipts[0]
    assert isinstance(receipt, TransactionReceipt)
    assert (receipt.code, receipt.gas_used, receipt.fee) == (Code.OK, GAS, 0)
    cheap = world.run_block(0, [world.signed(world.treasury, CreateAsset(b"B"), gas_price=4)]).receipts[0]
    assert isinstance(cheap, TransactionReceipt)
    assert cheap.code is Code.LIMIT_EXCEEDED


# Keys


def test_the_key_is_recorded_only_once_the_signature_held() -> None:
    stage = Stage()
    spoilt = stage.attempt(stage.fresh, 0)
    spoilt.spoilt_signature = True
    assert stage.receipt(spoilt).code is Code.BAD_SIGNATURE
    assert stage.world.account(stage.fresh) == Account()
    assert stage.world.value(public_key_key(stage.fresh.address), 0) is None
    assert stage.receipt(stage.attempt(stage.fresh, 0)).code is Code.OK
    assert stage.world.value(public_key_key(stage.fresh.address), 0) == stage.fresh.key.public_key


def test_with_a_recorded_key_it_may_be_left_out() -> None:
    stage = Stage()
    attempt = stage.attempt(stage.used, 1)
    attempt.public_key = None
    assert stage.receipt(attempt).code is Code.OK


@pytest.mark.parametrize("suite", [-1, 0, 1, 2, 0x11, 0xFE, 256, 2**31 - 1])
@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("with_key", [True, False])
def test_another_suite_is_a_bad_key(stage: Stage, suite: int, recorded: bool, with_key: bool) -> None:
    attempt = stage.attempt(*((stage.used, 1) if recorded else (stage.fresh, 0)))
    attempt.suite = suite
    if not with_key:
        attempt.public_key = None
    expected = Code.BAD_KEY if recorded or with_key else Code.KEY_REQUIRED
    assert _executed(stage, attempt).code is expected


@pytest.mark.parametrize("key", [b"", b"x", bytes(32), bytes(5_000)])
def test_a_key_of_any_other_bytes_is_a_bad_key(stage: Stage, key: bytes) -> None:
    for actor, nonce in ((stage.used, 1), (stage.fresh, 0)):
        attempt = stage.attempt(actor, nonce)
        attempt.public_key = key
        assert _executed(stage, attempt).code is Code.BAD_KEY


@pytest.mark.parametrize("signature", [b"", b"x", bytes(32), bytes(5_000)])
def test_a_signature_of_any_other_bytes_is_bad(stage: Stage, signature: bytes) -> None:
    signed = stage.attempt(stage.fresh, 0).signed()._replace(signature=signature)
    assert _executed(stage, signed).code is Code.BAD_SIGNATURE


def test_a_rotated_key_holds_from_the_next_transaction_on_within_one_block() -> None:
    stage = Stage()
    world, old = stage.world, stage.used
    new = old.rotated("new key")
    rotation = rotate_key(world.chain.chain_id, old, 1, new.key)
    pay = transfer(world.asset, (stage.receiver, 1))
    block = world.run_block(
        0,
        [
            world.signed(old, rotation, nonce=1, gas_price=1),
            world.signed(old, pay, nonce=2, gas_price=1),  # the old key, still hashing to the address
            world.signed(old, pay, nonce=2, gas_price=1, with_key=False),
            world.signed(new, pay, nonce=2, gas_price=1, with_key=False),
            world.signed(new, pay, nonce=3, gas_price=1),
        ],
    )
    codes = [receipt.code for receipt in block.receipts if isinstance(receipt, TransactionReceipt)]
    assert codes == [Code.OK, Code.BAD_KEY, Code.BAD_SIGNATURE, Code.OK, Code.OK]
    assert world.value(public_key_key(old.address), 0) == new.key.public_key


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda rotation: replace(rotation, suite=9), Code.BAD_KEY),
        (lambda rotation: replace(rotation, suite=-1), Code.BAD_KEY),
        (lambda rotation: replace(rotation, public_key=b"short"), Code.BAD_KEY),
        (lambda rotation: replace(rotation, public_key=bytes(32)), Code.BAD_SIGNATURE),
        (lambda rotation: replace(rotation, signature=b""), Code.BAD_SIGNATURE),
    ],
)
def test_a_rotation_that_the_new_key_did_not_sign_fails(change: Callable[..., Operation], code: Code) -> None:
    stage = Stage()
    new = stage.used.rotated("new key")
    good = rotate_key(stage.world.chain.chain_id, stage.used, 1, new.key)
    assert stage.receipt(stage.attempt(stage.used, 1, change(good))).code is code
    late = rotate_key(stage.world.chain.chain_id, stage.used, 1, new.key)
    assert stage.receipt(stage.attempt(stage.used, 2, late)).code is Code.BAD_SIGNATURE
    assert stage.world.value(public_key_key(stage.used.address), 0) == stage.used.key.public_key


# Attackers


def test_republished_bodies_with_broken_signatures_change_nothing() -> None:
    stage = Stage()
    attempt = stage.attempt(stage.fresh, 0)
    good = attempt.signed()
    broken = [good._replace(signature=bytes([i]) * 32) for i in range(5)]
    block = stage.world.run_block(0, [*broken, good, *broken, good])
    receipts = [receipt for receipt in block.receipts if isinstance(receipt, TransactionReceipt)]
    assert [receipt.code for receipt in receipts] == [
        *[Code.BAD_SIGNATURE] * 5, Code.OK, *[Code.DUPLICATE_NONCE] * 6,
    ]  # fmt: skip
    assert [receipt.nonce_consumed for receipt in receipts] == [False] * 5 + [True] + [False] * 6
    assert len({receipt.tx_id for receipt in receipts}) == 1
    assert block.executed.header.counts.transactions == 1
    assert block.executed.header.counts.rejected == 11
    assert stage.world.balance(stage.receiver).amount == 10


def test_a_payment_that_failed_can_not_be_replayed_later() -> None:
    stage = Stage()
    world = stage.world
    payment = stage.attempt(stage.fresh, 0, transfer(world.asset, (stage.receiver, FUNDS)))
    assert stage.receipt(payment).code is Code.INSUFFICIENT_FUNDS
    world.run_block(0, [world.signed(world.treasury, mint(world.asset, (stage.fresh, 10 * FUNDS)), gas_price=1)])
    assert stage.receipt(payment).code is Code.DUPLICATE_NONCE
    assert world.balance(stage.receiver).amount == 0


def test_another_shards_sender_costs_this_shard_nothing() -> None:
    """Nobody may make a shard read or count what it does not own."""
    stage = Stage()
    receipt = stage.receipt(stage.attempt(stage.away, 0))
    assert (receipt.code, receipt.gas_used) == (Code.WRONG_SHARD, 0)


def test_another_protocol_is_another_chain(stage: Stage) -> None:
    for protocol in (0, 2, -1):
        attempt = stage.attempt(stage.fresh, 0)
        attempt.set(protocol=protocol)
        assert _executed(stage, attempt).code is Code.WRONG_CHAIN


# Static limits


ADDRESS = Actor.of("anybody").address
ASSET = bytes(32)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"operations": ()}, id="no operations"),
        pytest.param({"operations": (PutData(b"n", b""),) * 5}, id="too many operations"),
        pytest.param({"operations": (Transfer(ASSET, (ADDRESS + b"\x01" * 16) * 9),)}, id="too many entries"),
        pytest.param(
            {"operations": (Transfer(ASSET, (ADDRESS + b"\x01" * 16) * 5),) * 2}, id="too many entries in two lists"
        ),
        pytest.param({"operations": (Transfer(ASSET, b""),)}, id="no entries"),
        pytest.param({"operations": (Transfer(ASSET, bytes([1]) * 49),)}, id="ragged entries"),
        pytest.param({"operations": (transfer(ASSET, (ADDRESS, 1), (ADDRESS, 0)),)}, id="zero transfer"),
        pytest.param({"operations": (mint(ASSET, (ADDRESS, 0)),)}, id="zero mint"),
        pytest.param({"operations": (Burn(ASSET, 0),)}, id="zero burn"),
        pytest.param({"operations": (transfer(ASSET, (ADDRESS, 1), reference=bytes(65)),)}, id="long reference"),
        pytest.param({"operations": (mint(ASSET, (ADDRESS, 1), reference=bytes(65)),)}, id="long mint reference"),
        pytest.param({"operations": (CreateAsset(b""),)}, id="no symbol"),
        pytest.param({"operations": (CreateAsset(bytes(33)),)}, id="long symbol"),
        pytest.param({"operations": (CreateAsset(b"A", 39),)}, id="decimals"),
        pytest.param({"operations": (CreateAsset(b"A", -1),)}, id="negative decimals"),
        pytest.param({"operations": (PutData(b"", b""),)}, id="no name"),
        pytest.param({"operations": (PutData(bytes(65), b""),)}, id="long name"),
        pytest.param({"operations": (PutData(b"n", bytes(4_097)),)}, id="long value"),
        pytest.param({"operations": (DeleteData(b""),)}, id="no name to delete"),
        pytest.param({"operations": (DeleteData(bytes(65)),)}, id="long name to delete"),
        pytest.param({"mode": 2}, id="mode 2"),
        pytest.param({"mode": -1}, id="mode -1"),
        pytest.param({"nonce": -1}, id="negative nonce"),
        pytest.param({"gas_limit": -1}, id="negative gas limit"),
        pytest.param({"gas_price": 0}, id="price under the minimum"),
    ],
)
def test_static_limits(fields: dict[str, object]) -> None:
    receipt = _limited(fields)
    assert (receipt.code, receipt.nonce_consumed, receipt.gas_used) == (Code.LIMIT_EXCEEDED, False, 0)


@pytest.mark.parametrize(
    "operations",
    [
        (Transfer(ASSET, (ADDRESS + b"\x01" * 16) * 8),),
        (transfer(ASSET, (ADDRESS, 1), reference=bytes(64)),),
        (CreateAsset(bytes(32), 38),),
        (PutData(bytes(64), bytes(4_096)),) * 4,
        (DeleteData(bytes(64)),),
    ],
)
def test_at_the_limit_is_fine(operations: tuple[Operation, ...]) -> None:
    assert _limited({"operations": operations}).nonce_consumed


def _limited(fields: dict[str, object]) -> TransactionReceipt:
    world = World(gas=GasSchedule(min_price=1), limits=Limits(operations=4, entries=8))
    world.run_block(0)
    body = TransactionBody(world.chain.chain_id, world.treasury.address, 0, (CreateAsset(b"A"),), gas_price=1)
    attempt = Attempt(world.treasury, body, world.treasury.key.suite_id, world.treasury.key.public_key)
    attempt.set(**fields)
    (receipt,) = world.run_block(0, [attempt.signed()]).receipts
    assert isinstance(receipt, TransactionReceipt)
    return receipt


# Dead letters


def test_what_is_no_transaction_becomes_a_dead_letter_and_counts() -> None:
    world = World(limits=Limits(record_bytes=1_000))
    world.run_block(0)
    good = world.signed(world.treasury, CreateAsset(b"A"))
    record = good.to_record()
    bodiless = good._replace(body=good.body + b"\x00").to_record()
    values = [None, b"", b"noise", record + b"\x00", record[:-1], bodiless, record, bytes(1_001), record + bytes(1_000)]
    offsets = world.submit(*values)
    block = world.run_block(0)
    letters = [(letter.offset, letter.reason) for letter in block.executed.dead_letters]
    undecodable, large = DeadLetterReason.UNDECODABLE, DeadLetterReason.TOO_LARGE
    reasons = [undecodable] * 6 + [None] + [large] * 2
    expected = [(offset, reason) for offset, reason in zip(offsets, reasons, strict=True) if reason]
    assert letters == expected
    assert block.executed.header.counts.dead_letters == 8
    (receipt,) = block.receipts
    assert isinstance(receipt, TransactionReceipt)
    assert (receipt.offset, receipt.code) == (offsets[6], Code.OK)
