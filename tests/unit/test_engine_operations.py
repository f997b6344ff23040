"""What operations do to balances, assets, keys and data; and what of it is undone."""

import pytest

from pipeline.codec.types import MAX_AMOUNT, AssetId
from pipeline.ledger.codes import Code
from pipeline.ledger.leaves import Account, Asset, Balance, account_key, asset_key, balance_key, data_key
from pipeline.ledger.receipts import EntryFailure, TransactionReceipt
from pipeline.ledger.transactions import (
    Burn,
    CreateAsset,
    DeleteData,
    Freeze,
    Mode,
    Operation,
    PutData,
    asset_id_of,
)
from pipeline.testing.world import Actor, World, mint, rotate_key, transfer


class Bank:
    """One shard; Alice and Bob hold 1,000,000 UNIT each, Carol nothing."""

    def __init__(self, shards: int = 1) -> None:
        self.world = World(shards)
        actor = self.world.actor
        self.alice, self.bob, self.carol = actor("alice"), actor("bob"), actor("carol")
        self.world.start(self.alice, self.bob)
        self.asset = self.world.asset

    def do(self, actor: Actor, *operations: Operation, mode: Mode = Mode.ATOMIC) -> TransactionReceipt:
        (receipt,) = self.world.run_block(0, [self.world.signed(actor, *operations, mode=mode)]).receipts
        assert isinstance(receipt, TransactionReceipt)
        return receipt

    def issue(self, *operations: Operation, mode: Mode = Mode.ATOMIC) -> TransactionReceipt:
        return self.do(self.world.treasury, *operations, mode=mode)

    def amounts(self) -> list[int]:
        return [self.world.balance(actor).amount for actor in (self.alice, self.bob, self.carol)]


@pytest.fixture
def bank() -> Bank:
    return Bank()


def failures(*pairs: tuple[int, Code]) -> tuple[EntryFailure, ...]:
    return tuple(EntryFailure(*pair) for pair in pairs)


# Transfers


def test_each_entry_sees_what_the_earlier_ones_left(bank: Bank) -> None:
    entries = [(bank.bob, 400_000), (bank.carol, 700_000), (bank.carol, 600_000), (bank.bob, 1)]
    receipt = bank.do(bank.alice, transfer(bank.asset, *entries), mode=Mode.INDEPENDENT)
    assert receipt.code is Code.PARTIAL
    assert receipt.failures == failures((1, Code.INSUFFICIENT_FUNDS), (3, Code.INSUFFICIENT_FUNDS))
    assert bank.amounts() == [0, 1_400_000, 600_000]


def test_atomic_undoes_all_and_lists_the_first_failure(bank: Bank) -> None:
    entries = [(bank.bob, 400_000), (bank.carol, 700_000), (bank.carol, 800_000)]
    receipt = bank.do(bank.alice, transfer(bank.asset, *entries))
    assert receipt.code is Code.INSUFFICIENT_FUNDS
    assert receipt.failures == failures((1, Code.INSUFFICIENT_FUNDS))
    assert receipt.nonce_consumed
    assert bank.amounts() == [1_000_000, 1_000_000, 0]
    assert bank.world.account(bank.carol) is None


def test_a_transfer_to_oneself_needs_the_funds_and_changes_nothing(bank: Bank) -> None:
    assert bank.do(bank.alice, transfer(bank.asset, (bank.alice, 1_000_000), (bank.alice, 1_000_000))).code is Code.OK
    assert bank.do(bank.alice, transfer(bank.asset, (bank.alice, 1_000_001))).code is Code.INSUFFICIENT_FUNDS
    assert bank.amounts() == [1_000_000, 1_000_000, 0]


def test_a_chain_of_payments_in_one_block(bank: Bank) -> None:
    signed = bank.world.signed
    block = bank.world.run_block(
        0,
        [
            signed(bank.alice, transfer(bank.asset, (bank.carol, 1_000_000))),
            signed(bank.carol, transfer(bank.asset, (bank.bob, 999_999))),
            signed(bank.bob, transfer(bank.asset, (bank.alice, 1_999_999))),
        ],
    )
    assert [receipt.code for receipt in block.receipts] == [Code.OK] * 3  # type: ignore[union-attr]
    assert bank.amounts() == [1_999_999, 0, 1]


def test_the_first_credit_creates_the_account_and_it_stays(bank: Bank) -> None:
    bank.do(bank.alice, transfer(bank.asset, (bank.carol, 5)))
    assert bank.world.account(bank.carol) == Account()
    bank.do(bank.carol, transfer(bank.asset, (bank.alice, 5)))
    account = bank.world.account(bank.carol)
    assert account is not None
    assert account.nonce == 1


def test_a_zero_balance_has_no_leaf(bank: Bank) -> None:
    key = balance_key(bank.alice.address, bank.asset)
    assert bank.world.value(key, 0) is not None
    bank.do(bank.alice, transfer(bank.asset, (bank.bob, 1_000_000)))
    assert bank.world.value(key, 0) is None
    assert bank.world.value(account_key(bank.alice.address), 0) is not None


def test_an_asset_that_does_not_exist_has_no_balances(bank: Bank) -> None:
    assert bank.do(bank.alice, transfer(AssetId(bytes(32)), (bank.bob, 1))).code is Code.INSUFFICIENT_FUNDS


def test_entry_indexes_count_across_operations(bank: Bank) -> None:
    poor = transfer(bank.asset, (bank.bob, 1), (bank.bob, 2_000_000))
    receipt = bank.do(bank.alice, poor, PutData(b"a", b""), poor, DeleteData(b"none"), poor, mode=Mode.INDEPENDENT)
    expected = [(1, Code.INSUFFICIENT_FUNDS), (4, Code.INSUFFICIENT_FUNDS), (5, Code.NOT_FOUND)]
    assert receipt.failures == failures(*expected, (7, Code.INSUFFICIENT_FUNDS))
    assert receipt.code is Code.PARTIAL


# Assets


def test_create_mint_burn(bank: Bank) -> None:
    own = asset_id_of(bank.alice.address, b"OWN")
    receipt = bank.do(
        bank.alice,
        CreateAsset(b"OWN", 3),
        mint(own, (bank.alice, 10), (bank.carol, 5)),
        Burn(own, 4),
        transfer(own, (bank.bob, 6)),
    )
    assert receipt.code is Code.OK
    value = bank.world.value(asset_key(own), 0)
    assert value is not None
    assert Asset.from_bytes(value) == Asset(bank.alice.address, b"OWN", 3, issued=15, burned=4)
    assert [bank.world.balance(actor, own).amount for actor in (bank.alice, bank.bob, bank.carol)] == [0, 6, 5]


def test_atomic_undoes_across_operations(bank: Bank) -> None:
    before = bank.world.leaves(0)
    own = asset_id_of(bank.bob.address, b"OWN")
    new = bank.bob.rotated("new key").key
    operations = (
        CreateAsset(b"OWN"),
        mint(own, (bank.bob, 10), (bank.carol, 5)),
        Freeze(own, bank.carol.address, frozen=True),
        PutData(b"name", b"value"),
        rotate_key(bank.world.chain.chain_id, bank.bob, 0, new),
        transfer(bank.asset, (bank.alice, 7)),
        transfer(own, (bank.alice, 10), (bank.alice, 1)),
    )
    receipt = bank.do(bank.bob, *operations)
    assert receipt.code is Code.INSUFFICIENT_FUNDS
    assert receipt.failures == failures((8, Code.INSUFFICIENT_FUNDS))
    after = bank.world.leaves(0)
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    assert changed == {account_key(bank.bob.address), b"key/" + bank.bob.address}
    assert after[b"key/" + bank.bob.address] == bank.bob.key.public_key  # type: ignore[index]


def test_an_undo_in_a_block_spares_its_neighbours(bank: Bank) -> None:
    signed = bank.world.signed
    pay = transfer(bank.asset, (bank.carol, 10))
    bank.world.run_block(
        0,
        [
            signed(bank.alice, pay),
            signed(bank.alice, pay, transfer(bank.asset, (bank.bob, 10_000_000))),
            signed(bank.alice, pay),
        ],
    )
    assert bank.amounts() == [999_980, 1_000_000, 20]


def test_independent_keeps_what_succeeds(bank: Bank) -> None:
    own = asset_id_of(bank.bob.address, b"OWN")
    operations = (mint(own, (bank.bob, 1)), CreateAsset(b"OWN"), mint(own, (bank.bob, 2)), CreateAsset(b"OWN"))
    receipt = bank.do(bank.bob, *operations, mode=Mode.INDEPENDENT)
    assert receipt.failures == failures((0, Code.UNKNOWN_ASSET), (3, Code.ASSET_EXISTS))
    assert bank.world.balance(bank.bob, own).amount == 2


@pytest.mark.parametrize(
    "operation",
    [
        lambda bank, asset: mint(asset, (bank.alice, 1)),
        lambda bank, asset: Burn(asset, 1),
        lambda bank, asset: Freeze(asset, bank.bob.address, frozen=True),
    ],
)
def test_only_the_issuer(bank: Bank, operation: object) -> None:
    make = operation
    assert callable(make)
    assert bank.do(bank.alice, make(bank, bank.asset)).code is Code.NOT_ISSUER
    assert bank.do(bank.alice, make(bank, asset_id_of(bank.alice.address, b"NONE"))).code is Code.UNKNOWN_ASSET


def test_an_asset_of_another_shard_is_unknown_here() -> None:
    bank = Bank(2)
    away = bank.world.actor("away", 1)
    foreign = asset_id_of(away.address, b"THERE")
    for operation in (mint(foreign, (bank.alice, 1)), Burn(foreign, 1), Freeze(foreign, bank.bob.address, frozen=True)):
        assert bank.do(bank.alice, operation).code is Code.UNKNOWN_ASSET


def test_no_more_than_128_bits_are_ever_issued(bank: Bank) -> None:
    rest = MAX_AMOUNT - 2_000_000
    receipt = bank.issue(
        mint(bank.asset, (bank.carol, rest + 1), (bank.carol, rest), (bank.carol, 1)), mode=Mode.INDEPENDENT
    )
    assert receipt.failures == failures((0, Code.SUPPLY_EXCEEDED), (2, Code.SUPPLY_EXCEEDED))
    bank.do(bank.alice, transfer(bank.asset, (bank.world.treasury, 1_000_000)))
    assert bank.issue(Burn(bank.asset, 1_000_000)).code is Code.OK
    assert bank.issue(mint(bank.asset, (bank.carol, 1))).code is Code.SUPPLY_EXCEEDED
    assert bank.do(bank.bob, transfer(bank.asset, (bank.carol, 1_000_000))).code is Code.OK
    assert bank.world.balance(bank.carol).amount == MAX_AMOUNT - 1_000_000


def test_burn_takes_only_what_the_issuer_has(bank: Bank) -> None:
    assert bank.issue(Burn(bank.asset, 1)).code is Code.INSUFFICIENT_FUNDS
    bank.do(bank.alice, transfer(bank.asset, (bank.world.treasury, 5)))
    bank.issue(Freeze(bank.asset, bank.world.treasury.address, frozen=True))
    assert bank.issue(Burn(bank.asset, 1)).code is Code.FROZEN


# Freezing


def test_a_frozen_balance_neither_pays_nor_is_paid(bank: Bank) -> None:
    bank.issue(Freeze(bank.asset, bank.alice.address, frozen=True))
    assert bank.world.balance(bank.alice) == Balance(1_000_000, frozen=True)
    pays = bank.do(bank.alice, transfer(bank.asset, (bank.bob, 1), (bank.alice, 1)), mode=Mode.INDEPENDENT)
    assert pays.failures == failures((0, Code.FROZEN), (1, Code.FROZEN))
    receives = bank.do(bank.bob, transfer(bank.asset, (bank.carol, 1), (bank.alice, 1)), mode=Mode.INDEPENDENT)
    assert receives.failures == failures((1, Code.FROZEN))
    minted = bank.issue(mint(bank.asset, (bank.alice, 1), (bank.bob, 1)), mode=Mode.INDEPENDENT)
    assert minted.failures == failures((0, Code.FROZEN))
    value = bank.world.value(asset_key(bank.asset), 0)
    assert value is not None
    assert Asset.from_bytes(value).issued == 2_000_001
    bank.issue(Freeze(bank.asset, bank.alice.address, frozen=False))
    assert bank.do(bank.alice, transfer(bank.asset, (bank.bob, 1_000_000))).code is Code.OK


def test_a_lack_of_funds_is_told_before_a_frozen_receiver(bank: Bank) -> None:
    bank.issue(Freeze(bank.asset, bank.bob.address, frozen=True))
    assert bank.do(bank.alice, transfer(bank.asset, (bank.bob, 1_000_001))).code is Code.INSUFFICIENT_FUNDS


def test_a_freeze_creates_no_account_and_a_thaw_leaves_no_leaf(bank: Bank) -> None:
    bank.issue(Freeze(bank.asset, bank.carol.address, frozen=True))
    assert bank.world.balance(bank.carol) == Balance(0, frozen=True)
    assert bank.world.account(bank.carol) is None
    bank.issue(Freeze(bank.asset, bank.carol.address, frozen=False))
    assert bank.world.value(balance_key(bank.carol.address, bank.asset), 0) is None


def test_a_freeze_of_one_asset_spares_the_others(bank: Bank) -> None:
    own = asset_id_of(bank.alice.address, b"OWN")
    bank.do(bank.alice, CreateAsset(b"OWN"), mint(own, (bank.bob, 5)), Freeze(own, bank.bob.address, frozen=True))
    assert bank.do(bank.bob, transfer(bank.asset, (bank.carol, 1))).code is Code.OK
    assert bank.do(bank.bob, transfer(own, (bank.carol, 1))).code is Code.FROZEN


def test_a_fee_is_taken_from_a_frozen_balance() -> None:
    bank = Bank()
    bank.issue(Freeze(bank.asset, bank.alice.address, frozen=True))
    signed = bank.world.signed(bank.alice, PutData(b"name", b"value"), gas_price=1)
    (receipt,) = bank.world.run_block(0, [signed]).receipts
    assert isinstance(receipt, TransactionReceipt)
    assert (receipt.code, receipt.fee) == (Code.OK, 510_000)
    assert bank.world.balance(bank.alice) == Balance(490_000, frozen=True)


# Data


def test_data_is_the_owners(bank: Bank) -> None:
    key = data_key(bank.alice.address, b"name")
    assert bank.do(bank.alice, PutData(b"name", b"value")).code is Code.OK
    assert bank.world.value(key, 0) == b"value"
    assert bank.do(bank.bob, DeleteData(b"name")).code is Code.NOT_FOUND
    assert bank.do(bank.bob, PutData(b"name", b"other")).code is Code.OK
    assert bank.world.value(key, 0) == b"value"
    assert bank.do(bank.alice, PutData(b"name", b"")).code is Code.OK
    assert bank.world.value(key, 0) == b""
    assert bank.do(bank.alice, DeleteData(b"name")).code is Code.OK
    assert bank.world.value(key, 0) is None
    assert bank.do(bank.alice, DeleteData(b"name")).code is Code.NOT_FOUND


def test_put_and_delete_in_one_block_leave_the_state_root(bank: Bank) -> None:
    root = bank.do(bank.alice, PutData(b"x", b"y"), DeleteData(b"x"))
    assert root.code is Code.OK
    before = bank.world.leaves(0)
    bank.do(bank.alice, PutData(b"x", b"y"), DeleteData(b"x"))
    after = bank.world.leaves(0)
    assert {key for key in before if before[key] != after.get(key)} == {account_key(bank.alice.address)}


# Gas


def test_gas_follows_the_schedule() -> None:
    bank = Bank(2)
    away = bank.world.actor("away", 1)
    local, remote, leaf = 500_000, 1_500_000, 10_000
    own = asset_id_of(bank.alice.address, b"OWN")
    table: list[tuple[tuple[Operation, ...], int]] = [
        ((transfer(bank.asset, (bank.bob, 1)),), local + leaf),
        ((transfer(bank.asset, (away, 1)),), remote + leaf),
        ((transfer(bank.asset, (away, 1), (bank.bob, 1)),), remote + local // 10 + 2 * leaf),
        ((transfer(bank.asset, (bank.bob, 1), (away, 1), (away, 1)),), local + 2 * remote // 10 + 3 * leaf),
        ((CreateAsset(b"OWN"), mint(own, (away, 1), (bank.bob, 1))), local + leaf + remote // 10 + local // 10),
        ((PutData(b"a", b""), DeleteData(b"a")), local + leaf + local // 10),
        ((Freeze(own, away.address, frozen=True),), remote),
        ((Freeze(own, bank.bob.address, frozen=True), Burn(own, 1)), local + local // 10),
        ((rotate_key(bank.world.chain.chain_id, bank.alice, 8, bank.alice.key),), local + leaf),
    ]
    for operations, gas in table:
        receipt = bank.do(bank.alice, *operations)
        assert receipt.gas_used == gas, operations
