"""Who pays whom on a ledger under test: accounts whose keys follow from a name, so that any process can be anyone."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Final

from pipeline.codec.types import Address, AssetId
from pipeline.crypto.addresses import address_of
from pipeline.crypto.port import PrivateKey, SuiteId
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.ledger.chain import Chain
from pipeline.ledger.packing import pack_transfers
from pipeline.ledger.transactions import CreateAsset, Mint, Operation, Transfer, asset_id_of
from pipeline.node.bootstrap import FEE_SYMBOL

SYMBOL: Final = b"UNIT"
PEOPLE_A_CLIENT: Final = 6
MAX_CLIENTS: Final = 4
FUNDS: Final = 1_000_000
_FEE_FUNDS: Final = 10**15
_SUITE: Final = SuiteId.ML_DSA_44  # the quickest of the suites that real chains use


@dataclass(frozen=True, slots=True)
class Person:
    """An account that pays."""

    key: PrivateKey
    address: Address


@cache
def people_of(client: int) -> tuple[Person, ...]:
    """The accounts that only this client pays from."""
    suite = STANDARD_SUITES.require(_SUITE)
    keys = [suite.generate(sha256(f"person {client}/{number}".encode()).digest()) for number in range(PEOPLE_A_CLIENT)]
    return tuple(Person(key, address_of(key.suite_id, key.public_key)) for key in keys)


def everyone() -> list[Person]:
    """The accounts of all clients."""
    return [person for client in range(MAX_CLIENTS) for person in people_of(client)]


def unit_of(chain: Chain) -> AssetId:
    """What is paid with."""
    return asset_id_of(chain.genesis.treasury, SYMBOL)


def funding(chain: Chain) -> tuple[Operation, ...]:
    """The treasury's first transaction: both assets, and some of each for everyone."""
    unit, fee = unit_of(chain), chain.genesis.fee_asset
    addresses = [person.address for person in everyone()]
    return (
        CreateAsset(SYMBOL, 2),
        CreateAsset(FEE_SYMBOL, 0),
        Mint(unit, pack_transfers((address, FUNDS) for address in [*addresses, chain.genesis.treasury]), b""),
        Mint(fee, pack_transfers((address, _FEE_FUNDS) for address in addresses), b""),
    )


def payment(chain: Chain, *entries: tuple[Address, int]) -> Transfer:
    """Units to somebody."""
    return Transfer(unit_of(chain), pack_transfers(entries), b"")
