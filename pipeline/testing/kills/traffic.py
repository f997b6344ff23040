"""Random records for `transactions`: payments of all outcomes, repeats, gaps, broken signatures, nonsense."""

from random import Random
from typing import Final

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.codec.types import Address
from pipeline.ledger.chain import Chain
from pipeline.ledger.transactions import (
    Burn,
    CreateAsset,
    Freeze,
    Mode,
    Operation,
    SignedTransaction,
    TransactionBody,
)
from pipeline.log.port import Append
from pipeline.node.bootstrap import NewChain
from pipeline.node.node import Node
from pipeline.testing.kills.ledger import FEE_SYMBOL, SYMBOL, account_of, people, treasury, unit_asset
from pipeline.testing.world import Actor, mint, sign, transfer

_FUNDS: Final = 1_000_000
_FEE_FUNDS: Final = 10**15


class Traffic:
    """Makes records under the nonces that the node's stores have, which a kill may have left behind the log's."""

    def __init__(self, node: Node, made: NewChain, random: Random) -> None:
        """Nothing is published yet."""
        self._node = node
        self._chain: Chain = made.chain
        self._random = random
        self._treasury = treasury(made)
        self._people = people(made.chain)
        self._nonces: dict[Address, int] = {}
        self._sent: list[Append] = []

    def funding(self) -> list[Append]:
        """Both assets, and some of them for everyone; nothing where the treasury has done that."""
        if self._next_nonce(self._treasury) > 0:
            return []
        unit, fee = unit_asset(self._chain), self._chain.genesis.fee_asset
        everyone = [*self._people, self._treasury]
        operations: tuple[Operation, ...] = (
            CreateAsset(SYMBOL, 2),
            CreateAsset(FEE_SYMBOL, 0),
            mint(unit, *[(person, _FUNDS) for person in everyone]),
            mint(fee, *[(person, _FEE_FUNDS) for person in everyone]),
        )
        return [self._publishable(self._signed(self._treasury, operations))]

    def batch(self, count: int) -> list[Append]:
        """So many records."""
        made = [self._any() for _ in range(count)]
        self._sent += made
        del self._sent[:-200]
        return made

    def _any(self) -> Append:
        random = self._random
        match random.random():
            case chance if chance < 0.05 and self._sent:
                return random.choice(self._sent)
            case chance if chance < 0.08:
                target = TopicPartition(Topic.TRANSACTIONS, random.randrange(self._chain.genesis.shards))
                return Append(target, None, random.randbytes(random.randrange(200)))
            case chance if chance < 0.12:
                forged = self._signed(random.choice(self._people), self._payment(), uses_nonce=False)
                return self._publishable(forged._replace(signature=random.randbytes(32)))
            case chance if chance < 0.14:
                return self._publishable(self._signed(random.choice(self._people), self._payment(), ahead=2))
            case chance if chance < 0.2:
                return self._publishable(self._signed(self._treasury, self._issuing()))
            case _:
                return self._publishable(self._signed(random.choice(self._people), self._payment()))

    def _payment(self) -> tuple[Operation, ...]:
        random = self._random
        entries = [
            (random.choice(self._people), random.choice((1, 10, 999, _FUNDS * 2)))
            for _ in range(random.choice((1, 1, 2, 8)))
        ]
        return (transfer(unit_asset(self._chain), *entries),)

    def _issuing(self) -> tuple[Operation, ...]:
        """Freezing makes effects bounce: refunds cross the shards too."""
        random, unit = self._random, unit_asset(self._chain)
        if random.random() < 0.3:
            return (Burn(unit, random.randrange(1, 100)), mint(unit, (random.choice(self._people), 50)))
        return (Freeze(unit, random.choice(self._people).address, random.random() < 0.4),)

    def _signed(
        self, actor: Actor, operations: tuple[Operation, ...], *, uses_nonce: bool = True, ahead: int = 0
    ) -> SignedTransaction:
        nonce = self._next_nonce(actor)
        if uses_nonce and not ahead:
            self._nonces[actor.address] = nonce + 1
        random = self._random
        body = TransactionBody(
            self._chain.chain_id,
            actor.address,
            nonce + ahead,
            operations,
            mode=random.choice((Mode.ATOMIC, Mode.INDEPENDENT)),
            gas_price=random.choice((0, 0, 1)),
        )
        return sign(actor, body)

    def _next_nonce(self, actor: Actor) -> int:
        if actor.address not in self._nonces:
            account = account_of(self._node, actor.address)
            self._nonces[actor.address] = 0 if account is None else account.nonce
        return self._nonces[actor.address]

    def _publishable(self, transaction: SignedTransaction) -> Append:
        sender = TransactionBody.from_bytes(transaction.body).sender
        shard = self._chain.shard_map.owner_of(sender)
        return Append(TopicPartition(Topic.TRANSACTIONS, shard), None, transaction.to_record())
