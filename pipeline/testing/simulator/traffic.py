"""Producers, honest and not: what they publish, and what they planned."""

from dataclasses import replace
from random import Random

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Address, Hash32
from pipeline.crypto import contexts
from pipeline.ledger.control import (
    Action,
    CollectFees,
    CreateShard,
    KeySignature,
    SignedControl,
    control_hash,
    encode_action,
)
from pipeline.ledger.genesis import PROTOCOL, SignerKey
from pipeline.ledger.leaves import Account, account_key
from pipeline.ledger.transactions import (
    Burn,
    CreateAsset,
    Freeze,
    Mode,
    Operation,
    PutData,
    SignedTransaction,
    TransactionBody,
)
from pipeline.testing.simulator.cluster import Cluster
from pipeline.testing.simulator.report import Trace
from pipeline.testing.world import SYMBOL, Actor, mint, rotate_key, sign, transfer

_TRANSACTIONS = Topic.TRANSACTIONS


class Traffic:
    """All producers and operators of one simulation."""

    def __init__(self, cluster: Cluster, treasury: Actor, operators: list[Actor], random: Random, trace: Trace) -> None:
        """Nothing is published yet."""
        self._cluster, self._random, self._trace = cluster, random, trace
        self._chain = cluster.chain
        self._treasury, self._operators = treasury, operators
        shards = self._chain.genesis.shards
        people = [Actor.on(shard, shards, name) for shard in range(shards) for name in ("left", "right")]
        self._actors = [treasury, *people]
        self._stranger = Actor.on(shards - 1, shards, "stranger")
        self._keys = {actor.address: [actor] for actor in self._actors}
        self._planned: dict[Address, int] = {}
        self._last_offset: dict[Address, int] = {}
        self._published: list[tuple[TopicPartition, bytes]] = []
        self._sequence, self._head = 0, Hash32(self._chain.chain_id)
        self.asset = self._chain.genesis.fee_asset

    def open(self) -> None:
        """The treasury creates the fee asset and mints for everybody."""
        entries = [(actor, self._random.choice((50, 500, 5_000))) for actor in self._actors]
        self._send(self._treasury, (CreateAsset(SYMBOL, 2), mint(self.asset, *entries)), 0)

    # Honest

    def publish(self) -> None:
        """The next transaction of somebody who has an account; mostly one that succeeds."""
        random = self._random
        actor = random.choice([*self._actors, self._treasury])
        nonce = self._next_nonce(actor)
        if nonce is None:
            return
        operations = tuple(self._operation(actor, nonce) for _ in range(random.choice((1, 1, 1, 2, 3))))
        self._send(
            self._signer(actor),
            operations,
            nonce,
            mode=random.choice((Mode.ATOMIC, Mode.INDEPENDENT)),
            gas_price=random.choice((0, 0, 1, 3)),
            gas_limit=random.choice((20, 10_000, 10_000, 10_000, 10_000)),
            valid_until_ms=random.choice((None, None, None, self._cluster.now_ms + random.randint(-5, 500))),
        )

    def _home(self, actor: Actor) -> int:
        return int(self._chain.shard_map.owner_of(actor.address))

    def _account(self, actor: Actor) -> Account | None:
        task = self._cluster.task(self._home(actor))
        raw = task.store.view().get(account_key(actor.address))
        return None if raw is None else Account.from_bytes(raw)

    def _next_nonce(self, actor: Actor) -> int | None:
        """The nonce after all that was published; what the ledger says once that is executed. None: no account."""
        account = self._account(actor)
        if account is None:
            return None
        position = self._cluster.task(self._home(actor)).committed.positions[2]
        if position > self._last_offset.get(actor.address, -1):
            self._planned[actor.address] = account.nonce
        return self._planned[actor.address]

    def _signer(self, actor: Actor) -> Actor:
        """With the key that the ledger knows, or the first."""
        account = self._account(actor)
        keys = self._keys[actor.address]
        if account is None or not account.suite:
            return keys[0]
        held = [key for key in keys if SignerKey(key.key.suite_id, key.key.public_key).key_id == account.key_hash]
        return held[0] if held else keys[0]

    def _operation(self, actor: Actor, nonce: int) -> Operation:
        random = self._random
        somebody = random.choice([*self._actors, self._stranger])
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
                return mint(self.asset, (somebody, amount), (random.choice(self._actors), 30))
            case _:
                others = [(random.choice(self._actors), random.randint(1, 9)) for _ in range(random.randint(0, 3))]
                return transfer(self.asset, (somebody, amount), *others, reference=random.choice((b"", b"rent")))

    def _send(self, signer: Actor, operations: tuple[Operation, ...], nonce: int, **fields: object) -> None:
        body = TransactionBody(self._chain.chain_id, signer.address, nonce, operations, **fields)  # type: ignore[arg-type]
        account = self._account(signer)
        with_key = account is None or not account.suite or self._random.random() < 0.3
        signed = sign(signer, body, with_key=with_key)
        target = TopicPartition(_TRANSACTIONS, self._home(signer))
        offset = self._append(target, signed.to_record())
        self._trace.note(f"published transactions[{target.partition}] {offset}: nonce {nonce} of {_name(signer)}")
        if offset is not None:
            self._planned[signer.address] = nonce + 1
            self._last_offset[signer.address] = offset

    def _append(self, target: TopicPartition, value: bytes | None) -> int | None:
        if value is not None:
            self._published.append((target, value))
        return self._cluster.guarded_append(target, value)

    # Not

    def lie(self) -> None:
        """A record that no honest producer publishes."""
        random = self._random
        target, value = random.choice(self._published)
        kinds = ("replay", "misrouted", "forged", "gap", "cut", "bytes", "null", "control")
        kind = random.choice(kinds)
        forged: bytes | None
        match kind:
            case "replay":
                forged = value
            case "misrouted":
                target, forged = target._replace(partition=random.randrange(self._chain.genesis.shards)), value
            case "forged":
                signed = SignedTransaction.from_record(value)
                forged = replace(signed, signature=random.randbytes(32)).to_record()
            case "gap":
                signed = SignedTransaction.from_record(value)
                body = TransactionBody.from_bytes(signed.body)
                (actor,) = [actor for actor in self._actors if actor.address == body.sender]
                account = self._account(actor)
                ahead = replace(body, nonce=(account.nonce if account else 0) + random.randint(5, 9))
                forged = sign(self._signer(actor), ahead).to_record()
            case "cut":
                forged = value[: random.randrange(len(value))]
            case "bytes":
                forged = random.randbytes(random.randint(0, 80))
            case "null":
                forged = None
            case _:
                target, forged = TopicPartition(Topic.CONTROL, 0), random.randbytes(20)
        offset = self._cluster.guarded_append(target, forged)
        self._trace.event(f"lie {kind}", f"{target.topic.topic_name}[{target.partition}] {offset}")

    # Operators

    def govern(self) -> None:
        """The next control record: fees are collected, or a shard is created."""
        random = self._random
        action: Action = CollectFees(random.choice(self._actors).address)
        if random.random() < 0.3:
            action = CreateShard(self._cluster.active_shards)
        body = encode_action(PROTOCOL, action)
        control = SignedControl(self._chain.chain_id, self._sequence + 1, self._head, body)
        message = control.message()
        signatures = tuple(
            KeySignature(
                SignerKey(actor.key.suite_id, actor.key.public_key).key_id,
                actor.key.suite_id,
                actor.key.sign(message, contexts.CONTROL),
            )
            for actor in self._operators
        )
        control = replace(control, signatures=signatures)
        offset = self._cluster.guarded_append(TopicPartition(Topic.CONTROL, 0), control.to_record())
        self._trace.event(f"control {type(action).__name__}", f"offset {offset}")
        if offset is not None:
            self._sequence, self._head = control.sequence, control_hash(control.to_bytes())


def _name(actor: Actor) -> str:
    return actor.address.hex()[:6]
