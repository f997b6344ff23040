"""Random programs for a chain of one to four shards, executed by the engine and by the reference model side by side.

Run as a script it prints a hash over all headers of some programs: what another process must reproduce.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from random import Random

from pipeline.codec.types import Address, AssetId, Hash32
from pipeline.ledger.codes import Code
from pipeline.ledger.control import CollectFees, control_hash
from pipeline.ledger.genesis import GasSchedule, Limits
from pipeline.ledger.packing import RELAY_ENTRY
from pipeline.ledger.receipts import BundleReceipt, ControlReceipt, TransactionReceipt
from pipeline.ledger.relay import EffectKind, RelayBundle, decode_groups
from pipeline.ledger.transactions import (
    Burn,
    CreateAsset,
    DeleteData,
    Freeze,
    Mode,
    Operation,
    PutData,
    SignedTransaction,
    asset_id_of,
)
from pipeline.testing.reference import Effect, ReferenceShard, Verdict, imbalances
from pipeline.testing.suite import TEST_SUITES
from pipeline.testing.world import Actor, Block, World, mint, rotate_key, transfer

Pick = Callable[[int, int], int]
"""A number between two bounds, both included."""

GAS = GasSchedule(local_entry=10, remote_entry=30, further_divisor=5, leaf=1)
LIMITS = Limits(operations=5, entries=20, block_gas=2_000_000)
OTHER = b"OTHER"


class Twin:
    """A world and its reference; every block is executed by both and compared in full."""

    def __init__(self, shards: int) -> None:
        self.world = World(shards, gas=GAS, limits=LIMITS)
        chain = self.world.chain
        self.reference = [ReferenceShard(chain, shard, TEST_SUITES) for shard in self.world.shards]
        self.in_flight: dict[tuple[int, int], list[Effect]] = {}
        actors = [Actor.on(shard, shards, name) for shard in self.world.shards for name in ("a", "b")]
        stranger = Actor.on(shards - 1, shards, "stranger")
        self.actors = [self.world.treasury, *actors, stranger]
        issuer = self.issuer = actors[-1]
        self.assets = [self.world.asset, asset_id_of(issuer.address, OTHER), AssetId(bytes(32))]
        self.keys = {actor.key.public_key: actor for actor in self.actors}
        self.planned: dict[Address, int] = {}
        self.published: dict[tuple[int, int], SignedTransaction] = {}
        self.collections: dict[int, tuple[Hash32, Address]] = {}

    # Publishing

    def publish(self, pick: Pick) -> None:
        """One transaction, mostly a good one."""
        actors = [*self.actors, self.world.treasury, self.world.treasury, self.issuer, self.issuer]
        actor = actors[pick(0, len(actors) - 1)]
        home = self.world.home(actor)
        account = self.reference[home].state.accounts.get(actor.address)
        nonce = self.planned.setdefault(actor.address, account.nonce if account else 0)
        signer = self.keys[account.public_key] if account and account.suite else actor
        operations = tuple(self._operation(pick, actor, nonce) for _ in range(pick(1, 3)))
        skew = (-1, 1, 0, 0, 0, 0, 0, 0, 0, 0)[pick(0, 9)]
        signed = self.world.signed(
            replace(signer, address=actor.address),
            *operations,
            nonce=nonce + skew,
            with_key=pick(0, 3) > 0 or account is None or not account.suite,
            mode=(Mode.ATOMIC, Mode.INDEPENDENT)[pick(0, 1)],
            gas_price=(0, 1, 2, 1_000)[pick(0, 3)],
            gas_limit=(10, 40, 10_000)[min(2, pick(0, 8))],
            valid_until_ms=(self.world.now_ms - 1, self.world.now_ms + 5, None)[min(2, pick(0, 8))],
        )
        if pick(0, 11) == 0:
            signed = signed._replace(signature=bytes(32))
        elif not skew:
            self.planned[actor.address] = nonce + 1
        shard = home if pick(0, 11) else pick(0, len(self.reference) - 1)
        (offset,) = self.world.submit(signed, shard=shard)
        self.published[shard, offset] = signed

    def _operation(self, pick: Pick, actor: Actor, nonce: int) -> Operation:
        asset = self.assets[(0, 0, 0, 0, 1, 1, 2)[pick(0, 6)]]
        own = self.assets[1 if actor is self.issuer else 0] if pick(0, 4) else asset
        somebody = self.actors[pick(0, len(self.actors) - 1)]
        balance = self.reference[self.world.home(actor)].state.balance(actor.address, asset)
        amount = (1, 7, 60, 500, 2**128 - 2_000, max(1, balance), min(balance + 1, 2**128 - 1))[pick(0, 6)]
        match pick(0, 11):
            case 0:
                return CreateAsset((b"UNIT", OTHER)[pick(0, 1)], pick(0, 2))
            case 1 | 2:
                return mint(own, (somebody, amount), (self.actors[pick(0, 2)], pick(0, 90)))
            case 3:
                return Burn(own, amount)
            case 4:
                return Freeze(own, somebody.address, frozen=bool(pick(0, 2)))
            case 5:
                new = Actor.of(f"key {pick(0, 5)}")
                self.keys.setdefault(new.key.public_key, new)
                return rotate_key(self.world.chain.chain_id, actor, nonce + (pick(0, 3) == 0), new.key)
            case 6:
                return PutData(bytes([pick(0, 2)]), bytes(pick(0, 3)))
            case 7:
                return DeleteData(bytes([pick(0, 2)]))
            case _:
                entries = [(self.actors[pick(0, len(self.actors) - 1)], pick(1, 40)) for _ in range(pick(0, 4))]
                return transfer(asset, (somebody, amount), *entries, reference=bytes(pick(0, 1)))

    def collect_fees(self, pick: Pick) -> None:
        """Operators collect all fees to somebody."""
        to = self.actors[pick(0, len(self.actors) - 1)].address
        offset = self.world.govern(CollectFees(to))
        record = self.world.control.records[-1].value
        assert record is not None
        self.collections[offset] = (control_hash(record[10:]), to)

    # Executing

    def run_block(self, shard: int, limit: int | None = None) -> Block:
        """One block by both; asserts that they agree on everything."""
        block = self.world.run_block(shard, limit=limit)
        receipts = iter(block.receipts)
        sent: list[Effect] = []
        for record in block.inputs.control.records:
            receipt = next(receipts)
            assert isinstance(receipt, ControlReceipt)
            assert (receipt.offset, receipt.code) == (record.offset, Code.OK)
            if record.offset in self.collections:
                sent += self.reference[shard].collect_fees(*self.collections[record.offset])
            else:
                self.reference[shard].genesis()
        for record in block.inputs.relay.records:
            bundle = RelayBundle.from_record(record.value)
            receipt = next(receipts)
            assert isinstance(receipt, BundleReceipt)
            sent += self._arrival(shard, bundle, receipt)
        for record in block.inputs.transactions.records:
            receipt = next(receipts)
            assert isinstance(receipt, TransactionReceipt)
            verdict = self.reference[shard].transaction(self.published[shard, record.offset], self.world.now_ms)
            assert _verdict_of(receipt) == replace(verdict, effects=())
            sent += verdict.effects
        assert next(receipts, None) is None
        self._compare(shard, block, sent)
        return block

    def _arrival(self, shard: int, bundle: RelayBundle, receipt: BundleReceipt) -> list[Effect]:
        effects, places = effects_of(bundle)
        expected = self.in_flight[bundle.source, shard]
        assert effects == expected[: len(effects)]
        del expected[: len(effects)]
        refused, refunds = self.reference[shard].arrive(effects)
        assert (receipt.source, receipt.sequence, receipt.count) == (bundle.source, bundle.sequence, len(effects))
        assert [tuple(failure) for failure in receipt.failures] == [(*places[at], code) for at, code in refused]
        return refunds

    def _compare(self, shard: int, block: Block, sent: list[Effect]) -> None:
        by_destination: dict[int, list[Effect]] = {}
        for effect in sent:
            by_destination.setdefault(effect.destination, []).append(effect)
        bundled: dict[int, list[Effect]] = {}
        for bundle in block.executed.bundles:
            bundled.setdefault(bundle.destination, []).extend(effects_of(bundle)[0])
            groups = [replace(group, entries=b"") for group in decode_groups(bundle.groups)]
            assert all(one != following for one, following in pairwise(groups))
        assert bundled == by_destination
        assert list(bundled) == sorted(bundled)
        for destination, effects in by_destination.items():
            self.in_flight.setdefault((shard, destination), []).extend(effects)
        assert self.world.leaves(shard) == self.reference[shard].state.leaves()
        assert self.imbalances() == {}
        for actor in self.actors:
            if self.world.home(actor) == shard and not self._is_pending(shard):
                account = self.reference[shard].state.accounts.get(actor.address)
                self.planned[actor.address] = account.nonce if account else 0

    def _is_pending(self, shard: int) -> bool:
        return bool(self.world.pending(shard).transactions.records)

    def imbalances(self) -> dict[bytes, int]:
        """Assets of which more or less is about than was issued."""
        flying = [effect for effects in self.in_flight.values() for effect in effects]
        return imbalances(self.reference, flying, self.world.asset)

    def settle(self) -> None:
        """Blocks until nothing is pending."""
        while busy := [shard for shard in self.world.shards if _has_input(self.world, shard)]:
            for shard in busy:
                self.run_block(shard)


def _has_input(world: World, shard: int) -> bool:
    inputs = world.pending(shard)
    return bool(inputs.control.records or inputs.relay.records or inputs.transactions.records)


def _verdict_of(receipt: TransactionReceipt) -> Verdict:
    failures = tuple(receipt.failures)
    return Verdict(receipt.code, receipt.nonce_consumed, receipt.gas_used, receipt.fee, failures)  # type: ignore[arg-type]


def effects_of(bundle: RelayBundle) -> tuple[list[Effect], list[tuple[int, int]]]:
    """A bundle's effects one by one, and where each stands: (group, entry)."""
    effects, places = [], []
    for index, group in enumerate(decode_groups(bundle.groups)):
        for entry, to, amount in RELAY_ENTRY.iter_unpack(group.entries):
            kind, fields = EffectKind(group.kind), (group.tx_id, group.sender, group.asset, group.reference)
            effects.append(Effect(bundle.destination, kind, *fields, entry, to, int.from_bytes(amount, "big")))
            places.append((index, entry))
    return effects, places


def run_program(pick: Pick, steps: int = 30) -> Twin:
    """Execute a program whose every choice is `pick`'s; both sides agree after every block, or it raises."""
    twin = Twin(pick(1, 4))
    world = twin.world
    for shard in world.shards:
        twin.run_block(shard)
    holders = [(actor, 100 * pick(1, 9)) for actor in twin.actors[:-1]]
    opening = world.signed(world.treasury, CreateAsset(b"UNIT", 2), mint(world.asset, *holders), nonce=0)
    (offset,) = world.submit(opening)
    twin.published[world.home(world.treasury), offset] = opening
    twin.settle()
    for _ in range(steps):
        match pick(0, 12):
            case 0:
                twin.collect_fees(pick)
            case 1:
                world.now_ms += pick(0, 3)
            case 2 | 3 | 4:
                twin.run_block(pick(0, len(world.shards) - 1), limit=(None, 1, 2)[pick(0, 2)])
            case _:
                twin.publish(pick)
    twin.settle()
    return twin


def hash_of(twin: Twin) -> str:
    """Over every header, bundle and receipt of all shards."""
    hasher = sha256()
    for part in _outputs(twin):
        hasher.update(len(part).to_bytes(8, "big") + part)
    return hasher.hexdigest()


def _outputs(twin: Twin) -> Iterator[bytes]:
    for blocks in twin.world.blocks:
        for block in blocks:
            yield block.executed.datum
            yield block.executed.cursor.to_bytes()
            yield from block.executed.receipts
            for bundle in block.executed.bundles:
                yield bundle.to_record()


if __name__ == "__main__":
    for seed in sys.argv[1:]:
        print(hash_of(run_program(Random(int(seed)).randint)))
