"""Producers: what they publish, and what they planned."""

from dataclasses import replace
from random import Random
from typing import NamedTuple

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Address
from pipeline.ledger.genesis import SignerKey
from pipeline.ledger.leaves import Account, account_key
from pipeline.ledger.transactions import (
    Burn,
    CreateAsset,
    Freeze,
    Mode,
    Operation,
    PutData,
    TransactionBody,
)
from pipeline.testing.simulator.cluster import Cluster
from pipeline.testing.simulator.report import Trace
from pipeline.testing.world import SYMBOL, Actor, mint, rotate_key, sign, transfer

_TRANSACTIONS = Topic.TRANSACTIONS


class Published(NamedTuple):
    """A record that was acknowledged."""

    target: TopicPartition
    offset: int
    value: bytes


class Traffic:
    """All honest producers of one simulation."""

    def __init__(self, cluster: Cluster, treasury: Actor, random: Random, trace: Trace) -> None:
        """Nothing is published yet."""
        self._cluster, self._random, self._trace = cluster, random, trace
        self._chain = cluster.chain
        self._treasury = treasury
        shards = self._chain.genesis.shards
        people = [Actor.on(shard, shards, name) for shard in range(shards) for name in ("left", "right")]
        self.actors = [treasury, *people]
        self._stranger = Actor.on(shards - 1, shards, "stranger")
        self._keys = {actor.address: [actor] for actor in self.actors}
        self._planned: dict[Address, int] = {}
        self._last_offset: dict[Address, int] = {}
        self.published: list[Published] = []
        self.asset = self._chain.genesis.fee_asset

    def open(self) -> None:
        """The treasury creates the fee asset and mints for everybody. Nothing may fail yet."""
        entries = [(actor, self._random.choice((50, 500, 5_000))) for actor in self.actors]
        self._send(self._treasury, (CreateAsset(SYMBOL, 2), mint(self.asset, *entries)), 0)

    def publish(self) -> None:
        """The next transaction of somebody who has an account; mostly one that succeeds."""
        random = self._random
        actor = random.choice([*self.actors, self._treasury])
        nonce = self._next_nonce(actor)
        if nonce is None:
            return
        operations = tuple(self._operation(actor, nonce) for _ in range(random.choice((1, 1, 1, 2, 3))))
        self._send(
            self.signer(actor),
            operations,
            nonce,
            mode=random.choice((Mode.ATOMIC, Mode.INDEPENDENT)),
            gas_price=random.choice((0, 0, 1, 3)),
            gas_limit=random.choice((20, 10_000, 10_000, 10_000, 10_000)),
            valid_until_ms=random.choice((None, None, None, self._cluster.now_ms + random.randint(-5, 500))),
        )

    def _home(self, actor: Actor) -> int:
        return int(self._chain.shard_map.owner_of(actor.address))

    def account(self, actor: Actor) -> Account | None:
        """As the ledger has it now; None before the first credit."""
        task = self._cluster.task(self._home(actor))
        raw = task.store.view().get(account_key(actor.address))
        return None if raw is None else Account.from_bytes(raw)

    def _next_nonce(self, actor: Actor) -> int | None:
        """The nonce after all that was published; what the ledger says once that is executed. None: no account."""
        account = self.account(actor)
        if account is None:
            return None
        position = self._cluster.task(self._home(actor)).committed.positions[2]
        if position > self._last_offset.get(actor.address, -1):
            self._planned[actor.address] = account.nonce
        return self._planned[actor.address]

    def signer(self, actor: Actor) -> Actor:
        """With the key that the ledger knows, or the first."""
        account = self.account(actor)
        keys = self._keys[actor.address]
        if account is None or not account.suite:
            return keys[0]
        held = [key for key in keys if SignerKey(key.key.suite_id, key.key.public_key).key_id == account.key_hash]
        return held[0] if held else keys[0]

    def _operation(self, actor: Actor, nonce: int) -> Operation:
        random = self._random
        somebody = random.choice([*self.actors, self._stranger])
        amount = random.choice((1, 5, 40, 10_000))
        is_issuer = actor is self._treasury
        match random.randrange(14):
            case 0:
                new = Actor.of(f"key {random.randrange(1_000)} of {actor.address.hex()}")
                self._keys[actor.address].append(replace(actor, key=new.key))
                return rotate_key(self._chain.chain_id, actor, nonce, new.key)
            case 1:
                return PutData(b"note", random.randbytes(random.randint(0, 20)))
            case 2 | 3 if is_issuer:
                return Freeze(self.asset, somebody.address, frozen=random.random() < 0.4)
            case 4 if is_issuer:
                return Burn(self.asset, amount)
            case 5 | 6 | 7 if is_issuer:
                return mint(self.asset, (somebody, amount), (random.choice(self.actors), 30))
            case _:
                others = [(random.choice(self.actors), random.randint(1, 9)) for _ in range(random.randint(0, 3))]
                return transfer(self.asset, (somebody, amount), *others, reference=random.choice((b"", b"rent")))

    def _send(self, signer: Actor, operations: tuple[Operation, ...], nonce: int, **fields: object) -> None:
        body = TransactionBody(self._chain.chain_id, signer.address, nonce, operations, **fields)  # type: ignore[arg-type]
        account = self.account(signer)
        with_key = account is None or not account.suite or self._random.random() < 0.3
        signed = sign(signer, body, with_key=with_key)
        target = TopicPartition(_TRANSACTIONS, self._home(signer))
        record = signed.to_record()
        offset = self._cluster.guarded_append(target, record)
        self._trace.note(f"published transactions[{target.partition}] {offset}: nonce {nonce} of {_name(signer)}")
        if offset is not None:
            self._planned[signer.address] = nonce + 1
            self._last_offset[signer.address] = offset
            self.published.append(Published(target, offset, record))


def _name(actor: Actor) -> str:
    return actor.address.hex()[:6]
