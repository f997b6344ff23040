"""No block may make or lose value, whatever a mistake in the engine would do."""

import pytest

from pipeline.codec.types import AssetId, Slot, StateKey
from pipeline.ledger import inbound, operations
from pipeline.ledger.balances import credit
from pipeline.ledger.conservation import imbalance
from pipeline.ledger.leaves import Asset, Balance, account_key, asset_key, balance_key, fees_key
from pipeline.ledger.overlay import Overlay
from pipeline.testing.world import Actor, World, transfer

ALICE, BOB = Actor.of("alice").address, Actor.of("bob").address
FEE, GOLD = AssetId(b"\x01" * 32), AssetId(b"\x02" * 32)


def amount(value: int) -> bytes | None:
    return Balance(value).to_bytes()


def supply(issued: int, burned: int) -> bytes:
    return Asset(ALICE, b"GOLD", 2, issued, burned).to_bytes()


@pytest.mark.parametrize(
    ("changes", "received", "sent", "wrong"),
    [
        ({}, {}, {}, {}),
        ({balance_key(ALICE, GOLD): (amount(5), amount(2)), balance_key(BOB, GOLD): (None, amount(3))}, {}, {}, {}),
        ({balance_key(ALICE, GOLD): (amount(5), None)}, {}, {GOLD: 5}, {}),
        ({balance_key(ALICE, GOLD): (amount(5), amount(9))}, {GOLD: 4}, {}, {}),
        ({balance_key(ALICE, FEE): (amount(5), amount(1)), fees_key(Slot(7)): (None, bytes(15) + b"\x04")}, {}, {}, {}),
        ({asset_key(GOLD): (None, supply(9, 0)), balance_key(ALICE, GOLD): (None, amount(9))}, {}, {}, {}),
        ({asset_key(GOLD): (supply(9, 0), supply(9, 2)), balance_key(ALICE, GOLD): (amount(9), amount(7))}, {}, {}, {}),
        ({account_key(ALICE): (None, bytes(41))}, {}, {}, {}),
        ({balance_key(ALICE, GOLD): (amount(5), amount(6))}, {}, {}, {GOLD: 1}),
        ({balance_key(ALICE, GOLD): (amount(5), None)}, {}, {GOLD: 4}, {GOLD: -1}),
        ({balance_key(ALICE, GOLD): (None, amount(5))}, {FEE: 5}, {}, {GOLD: 5, FEE: -5}),
        ({balance_key(ALICE, FEE): (amount(5), amount(1))}, {}, {}, {FEE: -4}),
        ({asset_key(GOLD): (supply(1, 0), supply(2, 0))}, {}, {}, {GOLD: -1}),
        ({fees_key(Slot(7)): (bytes(15) + b"\x04", None)}, {}, {}, {FEE: -4}),
    ],
)
def test_what_is_gained_came_from_somewhere(
    changes: dict[StateKey, tuple[bytes | None, bytes | None]],
    received: dict[AssetId, int],
    sent: dict[AssetId, int],
    wrong: dict[AssetId, int],
) -> None:
    before = {key: old for key, (old, _) in changes.items()}
    after = {key: new for key, (_, new) in changes.items()}
    assert imbalance(after, before, FEE, received, sent) == wrong


def generous(overlay: Overlay, to: bytes, asset: AssetId, value: int, *, even_if_frozen: bool = False) -> bool:
    """A credit with a mistake."""
    return credit(overlay, to, asset, value + 1, even_if_frozen=even_if_frozen)


@pytest.mark.parametrize(("module", "shard"), [(operations, 0), (inbound, 1)])
def test_a_block_that_makes_value_is_never_made(module: object, shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(2)
    alice, bob, dora = world.actor("alice"), world.actor("bob"), world.actor("dora", 1)
    world.start(alice)
    world.run_block(0, [world.signed(alice, transfer(world.asset, (dora, 4)))])
    world.submit(world.signed(alice, transfer(world.asset, (bob, 4))))
    before = world.execute(shard)
    monkeypatch.setattr(module, "credit", generous)
    with pytest.raises(AssertionError, match=f"would make or lose value: 1 of {world.asset.hex()}"):
        world.execute(shard)
    monkeypatch.undo()
    assert world.execute(shard).datum == before.datum
