"""The ledger that is played with: deterministic keys, two assets, accounts on every shard."""

from pathlib import Path
from typing import Final

from pipeline.client.trust import Trust, save_trust
from pipeline.codec.types import Address, AssetId
from pipeline.ledger.chain import Chain
from pipeline.ledger.checkpoints import Assurance
from pipeline.ledger.leaves import Account, account_key
from pipeline.ledger.transactions import asset_id_of
from pipeline.node.bootstrap import FEE_SYMBOL, NewChain, new_chain
from pipeline.node.init import create_directory
from pipeline.node.layout import NodeLayout
from pipeline.node.node import Node, wall_clock_ms
from pipeline.testing.suite import DETERMINISTIC_SUITE_ID, TEST_SUITES, DeterministicKey
from pipeline.testing.world import SYMBOL, Actor

SHARDS: Final = 3
PEOPLE: Final = 12
SEED: Final = b"kills"


def people(chain: Chain) -> list[Actor]:
    """The accounts, as many on each shard."""
    shards = chain.genesis.shards
    return [Actor.on(number % shards, shards, f"person {number}") for number in range(PEOPLE)]


def treasury(made: NewChain) -> Actor:
    """The issuer of both assets."""
    key = made.keys["treasury"]
    assert isinstance(key, DeterministicKey), "made with the deterministic suite"
    return Actor(key, made.chain.genesis.treasury)


def unit_asset(chain: Chain) -> AssetId:
    """What is paid with."""
    return asset_id_of(chain.genesis.treasury, SYMBOL)


def make_chain(created_ms: int, shards: int = SHARDS) -> NewChain:
    """The chain: the same keys for ever."""
    return new_chain(TEST_SUITES, "kills", shards, created_ms, suite_id=DETERMINISTIC_SUITE_ID, seed=SEED)


def make_directory(root: Path, shards: int = SHARDS, created_ms: int | None = None) -> None:
    """A node's directory with a new chain. Raises `ConfigError` where it exists."""
    made = make_chain(wall_clock_ms() if created_ms is None else created_ms, shards)

    def furnish(layout: NodeLayout, chain: Chain) -> None:
        save_trust(layout.trust, Trust.of(chain, Assurance.HEADERS))

    create_directory(root, made, "", TEST_SUITES, furnish)


def reopened_chain(layout: NodeLayout) -> NewChain:
    """The chain of a directory, with its keys."""
    genesis = layout.chain().genesis
    made = make_chain(genesis.created_ms, genesis.shards)
    assert made.chain.chain_id == layout.chain().chain_id, "the directory was made by `make_directory`"
    return made


def account_of(node: Node, address: Address) -> Account | None:
    """Committed state; None where it was never credited."""
    store = node.tasks[node.chain.shard_map.owner_of(address)].store
    raw = store.view().get(account_key(address))
    return None if raw is None else Account.from_bytes(raw)


__all__ = [
    "FEE_SYMBOL",
    "SHARDS",
    "SYMBOL",
    "account_of",
    "make_chain",
    "make_directory",
    "people",
    "reopened_chain",
    "treasury",
    "unit_asset",
]
