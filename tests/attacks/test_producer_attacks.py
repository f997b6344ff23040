"""What anybody who may publish tries against one shard: replays, other people's keys and nonces, fees, sizes, dust."""

import gzip
from dataclasses import replace

import pytest

from pipeline.codec.types import ChainId, Hash32
from pipeline.crypto import contexts
from pipeline.errors import TaskDiverged, VerificationFailed
from pipeline.ledger.codes import Code, DeadLetterReason
from pipeline.ledger.genesis import GasSchedule
from pipeline.ledger.leaves import Account, account_key, balance_key
from pipeline.ledger.receipts import TransactionReceipt
from pipeline.ledger.transactions import (
    Burn,
    CreateAsset,
    Freeze,
    Mode,
    PutData,
    RotateKey,
    SignedTransaction,
    TransactionBody,
    asset_id_of,
)
from pipeline.testing.suite import DeterministicSuite
from pipeline.testing.world import Actor, Block, World, mint, rotate_key, transfer
from pipeline.tree.proofs import root_of

FUNDS = 1_000_000
PRICED = GasSchedule(min_price=1, local_entry=100, remote_entry=300, leaf=10)


def codes(block: Block) -> list[Code]:
    return [receipt.code for receipt in block.receipts if isinstance(receipt, TransactionReceipt)]


def two(**genesis: object) -> tuple[World, Actor, Actor]:
    """One shard with a victim and a thief, both funded."""
    world = World(1, **genesis)
    victim, thief = world.actor("victim"), world.actor("thief")
    holders = ((victim, FUNDS), (thief, FUNDS))
    world.submit(world.signed(world.treasury, CreateAsset(b"UNIT", 2), mint(world.asset, *holders), gas_price=1))
    world.settle()
    return world, victim, thief


def broken(signed: SignedTransaction) -> SignedTransaction:
    return signed._replace(signature=bytes(len(signed.signature)))


# Replays


def test_a_record_published_a_hundred_times_pays_once() -> None:
    world, victim, thief = two()
    payment = world.signed(victim, transfer(world.asset, (thief, 10)))
    block = world.run_block(0, [payment] * 100)
    assert codes(block) == [Code.OK] + [Code.DUPLICATE_NONCE] * 99
    later = world.run_block(0, [payment] * 3)
    assert codes(later) == [Code.DUPLICATE_NONCE] * 3
    assert world.balance(victim).amount == FUNDS - 10


def test_a_payment_of_another_chain_is_worth_nothing_here() -> None:
    """The same people with the same keys on a twin whose genesis differs in its salt only."""
    world, victim, thief = two()
    twin = World(1, salt=Hash32(b"\x01" * 32))
    twin.start(victim, thief, amount=FUNDS)
    assert twin.asset == world.asset
    payment = world.signed(victim, transfer(world.asset, (thief, 10)))
    assert codes(twin.run_block(0, [payment])) == [Code.WRONG_CHAIN]
    assert twin.balance(victim).amount == FUNDS
    assert twin.account(victim) == Account()
    relabelled = TransactionBody.from_bytes(payment.body)._replace(chain_id=twin.chain.chain_id).to_bytes()
    assert codes(twin.run_block(0, [payment._replace(body=relabelled)])) == [Code.BAD_SIGNATURE]


def test_a_record_on_every_shard_counts_on_its_own_only() -> None:
    world = World(4)
    victim = world.actor("victim", 2)
    world.start(victim, amount=FUNDS)
    payment = world.signed(victim, transfer(world.asset, (world.actor("thief", 1), 10)))
    found = {shard: codes(world.run_block(shard, [payment])) for shard in world.shards}
    assert found == {0: [Code.WRONG_SHARD], 1: [Code.WRONG_SHARD], 2: [Code.OK], 3: [Code.WRONG_SHARD]}
    world.settle()
    assert world.balance(victim).amount == FUNDS - 10
    assert world.balance(world.actor("thief", 1)).amount == 10


def test_a_payment_that_expired_can_not_be_kept_for_later() -> None:
    world, victim, thief = two()
    payment = world.signed(victim, transfer(world.asset, (thief, 10)), valid_until_ms=world.now_ms)
    world.now_ms += 1
    assert codes(world.run_block(0, [payment])) == [Code.EXPIRED]
    with pytest.raises(TaskDiverged, match="is before"):
        world.execute(0, timestamp_ms=world.now_ms - 1)
    assert codes(world.run_block(0, [payment])) == [Code.DUPLICATE_NONCE]
    assert world.balance(thief).amount == FUNDS


# Nonces and receipts


def test_broken_signatures_burn_no_nonce_and_no_fee() -> None:
    world, victim, thief = two(gas=PRICED)
    payment = world.signed(victim, transfer(world.asset, (thief, 10)), gas_price=1)
    block = world.run_block(0, [broken(payment)] * 50)
    assert codes(block) == [Code.BAD_SIGNATURE] * 50
    assert (block.executed.header.gas_used, block.executed.header.slots) == (0, ())
    assert world.account(victim) == Account()
    assert codes(world.run_block(0, [payment])) == [Code.OK]


def test_a_republished_body_gets_its_own_receipt_and_never_the_result() -> None:
    """Before, between and after the true record; only the true one says that the nonce was consumed."""
    world, victim, thief = two()
    payment = world.signed(victim, transfer(world.asset, (thief, 10)))
    block = world.run_block(0, [broken(payment), payment, broken(payment)])
    receipts = [item for item in block.receipts if isinstance(item, TransactionReceipt)]
    assert len({item.tx_id for item in receipts}) == 1
    assert len({item.offset for item in receipts}) == 3
    assert [item.nonce_consumed for item in receipts] == [False, True, False]
    assert [item.code for item in receipts] == [Code.BAD_SIGNATURE, Code.OK, Code.DUPLICATE_NONCE]


# Keys


def test_another_key_for_the_victims_address_is_refused() -> None:
    world, victim, thief = two()
    body = TransactionBody(world.chain.chain_id, victim.address, 0, (transfer(world.asset, (thief, 10)),)).to_bytes()
    signature = thief.key.sign(body, contexts.TRANSACTION)
    suite = thief.key.suite_id
    for key, code in ((thief.key.public_key, Code.BAD_KEY), (None, Code.KEY_REQUIRED), (b"", Code.BAD_KEY)):
        assert codes(world.run_block(0, [SignedTransaction(body, suite, key, signature)])) == [code]
    assert codes(world.run_block(0, [SignedTransaction(body, suite, victim.key.public_key, signature)])) == [
        Code.BAD_SIGNATURE
    ]
    assert world.balance(victim).amount == FUNDS


def test_a_key_rotated_away_opens_nothing() -> None:
    """Its address still hashes from the old key; a payment signed ahead with it is void too."""
    world, victim, thief = two()
    ahead = world.signed(victim, transfer(world.asset, (thief, 10)), nonce=1)
    renewed = victim.rotated("renewed")
    rotation = rotate_key(world.chain.chain_id, victim, 0, renewed.key)
    assert codes(world.run_block(0, [world.signed(victim, rotation), ahead])) == [Code.OK, Code.BAD_KEY]
    stolen = world.signed(victim, transfer(world.asset, (thief, 10)), nonce=1, with_key=False)
    assert codes(world.run_block(0, [stolen])) == [Code.BAD_SIGNATURE]
    assert codes(world.run_block(0, [world.signed(renewed, transfer(world.asset, (thief, 1)), nonce=1)])) == [Code.OK]


def test_a_rotation_to_a_key_that_did_not_agree_fails() -> None:
    """Else one could claim another's key, or lock an account to nobody's; a signature for another place is none."""
    world, victim, thief = two()
    strangers = Actor.of("stranger").key
    for rotation in (
        RotateKey(strangers.suite_id, strangers.public_key, bytes(64)),
        rotate_key(world.chain.chain_id, thief, 1, strangers),
        rotate_key(world.chain.chain_id, victim, 0, strangers),
        rotate_key(ChainId(bytes(32)), victim, 3, strangers),
    ):
        assert codes(world.run_block(0, [world.signed(victim, rotation)])) == [Code.BAD_SIGNATURE]
    account = world.account(victim)
    assert account is not None
    assert account.nonce == 4
    assert codes(world.run_block(0, [world.signed(victim, PutData(b"a", b"b"))])) == [Code.OK], "still the old key"


def test_a_signature_for_one_purpose_serves_no_other() -> None:
    """One key as account, operator and attestor: contexts separate what it signs."""
    suite = DeterministicSuite()
    key = suite.generate(bytes(32))
    everything = (contexts.TRANSACTION, contexts.CONTROL, contexts.CHECKPOINT, contexts.ROTATION)
    assert len(set(everything)) == 4
    for made in everything:
        signature = key.sign(b"message", made)
        held = [suite.verify(key.public_key, b"message", used, signature) for used in everything]
        assert held == [used is made for used in everything]


# Fees, limits, sizes


@pytest.mark.parametrize("mode", list(Mode))
def test_work_is_paid_before_it_is_done(mode: Mode) -> None:
    """Sending all one has, or failing on purpose, leaves the fee where it belongs."""
    world, victim, thief = two(gas=PRICED)
    everything = transfer(world.asset, (thief, FUNDS))
    block = world.run_block(0, [world.signed(victim, everything, gas_price=1, mode=mode)])
    (receipt,) = block.receipts
    assert isinstance(receipt, TransactionReceipt)
    assert receipt.fee == 110
    assert world.balance(victim).amount == FUNDS - 110
    assert receipt.code is not Code.OK


def test_a_gas_limit_or_price_too_low_evades_no_fee() -> None:
    world, victim, thief = two(gas=PRICED)
    pay = transfer(world.asset, (thief, 10))
    free = world.signed(victim, pay, nonce=0, gas_price=0)
    short = world.signed(victim, pay, gas_limit=109, gas_price=1)
    greedy = world.signed(victim, pay, gas_price=2**128 - 1)
    block = world.run_block(0, [free, short, greedy])
    assert codes(block) == [Code.LIMIT_EXCEEDED, Code.GAS_LIMIT, Code.FEE_NOT_COVERED]
    assert [item.fee for item in block.receipts if isinstance(item, TransactionReceipt)] == [0, 109, FUNDS - 109]
    assert world.balance(thief).amount == FUNDS


def test_a_frozen_balance_has_no_way_out() -> None:
    world = World(2)
    victim, friend, far = world.actor("victim"), world.actor("friend"), world.actor("far", 1)
    world.start(victim, friend, amount=FUNDS)
    world.submit(world.signed(world.treasury, Freeze(world.asset, victim.address, frozen=True)))
    world.settle()
    renewed = victim.rotated("renewed")
    attempts = [
        world.signed(victim, transfer(world.asset, (friend, 1))),
        world.signed(victim, transfer(world.asset, (far, 1))),
        world.signed(victim, transfer(world.asset, (victim, 1))),
        world.signed(victim, transfer(world.asset, (friend, 1), (far, 1)), mode=Mode.INDEPENDENT),
        world.signed(victim, Freeze(world.asset, victim.address, frozen=False)),
        world.signed(victim, Burn(world.asset, 1)),
        world.signed(victim, rotate_key(world.chain.chain_id, victim, 6, renewed.key)),
    ]
    frozen = [Code.FROZEN] * 3 + [Code.PARTIAL, Code.NOT_ISSUER, Code.NOT_ISSUER, Code.OK]
    assert codes(world.run_block(0, attempts)) == frozen
    after = world.signed(renewed, transfer(world.asset, (friend, 1)), nonce=7)
    assert codes(world.run_block(0, [after])) == [Code.FROZEN]
    world.settle()
    assert (world.balance(victim).amount, world.balance(far).amount) == (FUNDS, 0)


def test_a_record_that_compresses_well_leaves_a_small_dead_letter() -> None:
    world, victim, _ = two()
    bomb = bytes(20 * 2**20)
    assert len(gzip.compress(bomb)) < 32_768, "it fits into a topic's message once compressed"
    block = world.run_block(0, [bomb, bytes([0xFF]) * 700_000])
    assert codes(block) == []
    letters = block.executed.dead_letters
    assert [letter.reason for letter in letters] == [DeadLetterReason.TOO_LARGE] * 2
    assert [letter.length for letter in letters] == [len(bomb), 700_000]
    assert max(len(letter.to_record()) for letter in letters) < 1_500
    assert world.balance(victim).amount == FUNDS


def test_dust_makes_nobodys_account_dearer() -> None:
    """50 assets sent to a victim: its account and the proof of its balance stay small, the sender pays leaves."""
    world, victim, thief = two(gas=PRICED)
    before = world.value(account_key(victim.address), 0)
    operations = []
    for number in range(50):
        asset = asset_id_of(thief.address, b"D%d" % number)
        operations += [CreateAsset(b"D%d" % number), mint(asset, (victim, 1))]
    for start in range(0, len(operations), 50):
        block = world.run_block(0, [world.signed(thief, *operations[start : start + 50], gas_price=1)])
        assert codes(block) == [Code.OK]
    assert world.value(account_key(victim.address), 0) == before
    proof = world.stores[0].prove(balance_key(victim.address, world.asset))
    assert root_of(proof) == world.stores[0].state_root
    assert len(proof.page) + len(proof.siblings) + len(proof.slot_siblings) <= 16 * 64 + 16 * 32 + 12 * 32
    assert world.balance(thief).amount < FUNDS - 50 * (10 + 10)
    assert world.balance(victim).amount == FUNDS


def test_claiming_to_be_the_treasury_takes_its_key() -> None:
    """The treasury pays no fees and never fails for them; its address alone buys nothing."""
    world, _, thief = two(gas=PRICED)
    nonce = world.account(world.treasury)
    assert nonce is not None
    body = TransactionBody(
        world.chain.chain_id, world.treasury.address, nonce.nonce, (mint(world.asset, (thief, 10**9)),), gas_price=1
    ).to_bytes()
    signature = thief.key.sign(body, contexts.TRANSACTION)
    for key in (thief.key.public_key, None, world.treasury.key.public_key):
        (code,) = codes(world.run_block(0, [SignedTransaction(body, thief.key.suite_id, key, signature)]))
        assert code in (Code.BAD_KEY, Code.BAD_SIGNATURE)
    assert world.balance(thief).amount == FUNDS


def test_a_false_value_has_no_proof() -> None:
    world, victim, _ = two()
    honest = world.stores[0].prove(balance_key(victim.address, world.asset))
    with pytest.raises(VerificationFailed):
        root_of(replace(honest, value=b"\xff" * 17))
