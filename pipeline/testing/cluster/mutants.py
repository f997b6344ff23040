"""The product with one rule removed: what the checker must see. Never imported by the product."""

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch
from uuid import uuid4

from pipeline.client.light import VerifiedRoot
from pipeline.client.producer import Signed, TransactionFuture, TransactionProducer
from pipeline.client.subscriber import StateRootSubscriber
from pipeline.codec.types import AssetId, ChainId, ShardId
from pipeline.ledger import admission, composer, engine, writers
from pipeline.ledger.codes import Code
from pipeline.ledger.inbound import EffectRun
from pipeline.ledger.relay import EffectKind
from pipeline.log.port import Append
from pipeline.shards import task
from pipeline.shards.recovery import Recovery
from pipeline.testing.cluster.checker import Rule

Replacement = tuple[object, str, object]
"""Of which object, which attribute, by what."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """`says`: the rule that is gone. `seen_as`: of which the checker must find one, given the right fault."""

    says: str
    seen_as: Set[Rule]
    replace: Callable[[], Sequence[Replacement]]


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """This process runs the mutant meanwhile."""
    with ExitStack() as stack:
        for where, attribute, by in MUTANTS[name].replace():
            stack.enter_context(patch.object(where, attribute, by))
        yield


def _without_fence() -> Sequence[Replacement]:
    def shard_writer(chain_id: ChainId, shard: ShardId) -> str:
        """Every life of a leader writes under an id of its own."""
        return f"{writers.shard_writer(chain_id, shard)}-{uuid4().hex}"

    return [(task, "shard_writer", shard_writer)]


def _without_republishing() -> Sequence[Replacement]:
    def outputs(_: Recovery) -> list[Append]:
        return []

    return [(Recovery, "outputs", outputs)]


def _without_nonce_check() -> Sequence[Replacement]:
    plain = admission.stage_two

    def stage_two(*arguments: Any) -> Code:
        code = plain(*arguments)
        return Code.OK if code is Code.DUPLICATE_NONCE else code

    return [(admission, "stage_two", stage_two)]


def _without_sequence_check() -> Sequence[Replacement]:
    def follows(*_: object) -> bool:
        return True

    return [(engine, "follows", follows), (composer, "follows", follows)]


def _with_a_toll() -> Sequence[Replacement]:
    plain = EffectRun._effect

    def effect(self: EffectRun, kind: EffectKind, asset: AssetId, to: bytes, amount: int) -> Code:
        return plain(self, kind, asset, to, max(0, amount - 1))

    def imbalance(*_: object) -> dict[AssetId, int]:
        return {}

    return [(EffectRun, "_effect", effect), (engine, "imbalance", imbalance)]


def _without_catching_up() -> Sequence[Replacement]:
    def step(_: Recovery) -> bool:
        return False

    def check_signed(_: Recovery) -> None:
        return None

    return [(Recovery, "step", step), (Recovery, "check_signed", check_signed)]


def _without_order() -> Sequence[Replacement]:
    plain = StateRootSubscriber.catch_up

    def catch_up(self: StateRootSubscriber) -> list[VerifiedRoot]:
        self.next_offsets = dict.fromkeys(self.next_offsets, 0)
        self._newest.clear()
        return plain(self)

    return [(StateRootSubscriber, "catch_up", catch_up)]


def _without_waiting() -> Sequence[Replacement]:
    plain = TransactionProducer.publish

    def publish(self: TransactionProducer, batch: Sequence[Signed]) -> list[TransactionFuture]:
        """The last of several is said to stand where it would have come next, and is never sent."""
        if len(batch) < 2:
            return plain(self, batch)
        futures = plain(self, batch[:-1])
        return [*futures, TransactionFuture(self._watcher, batch[-1], futures[-1].offset + 1)]

    return [(TransactionProducer, "publish", publish)]


MUTANTS: Final[dict[str, Mutant]] = {
    "unfenced": Mutant(
        "a new leader fences the old one", {Rule.ONE_ROOT, Rule.ONE_ANSWER, Rule.RECEIPT_STANDS}, _without_fence
    ),
    "forgetful": Mutant(
        "a new leader publishes the last block's outputs once more",
        {Rule.ANSWERED, Rule.SETTLED_ONCE},
        _without_republishing,
    ),
    "amnesiac": Mutant(
        "a new leader follows the log to its end first", {Rule.ONE_ROOT, Rule.ONE_ANSWER}, _without_catching_up
    ),
    "replayable": Mutant("a nonce counts once", {Rule.ONE_NONCE}, _without_nonce_check),
    "doubling": Mutant("a bundle counts once", {Rule.SETTLED_ONCE}, _without_sequence_check),
    "grasping": Mutant("what was sent arrives whole", {Rule.BALANCE}, _with_a_toll),
    "wandering": Mutant("a subscriber never goes back", {Rule.FORWARD}, _without_order),
    "boastful": Mutant("an acknowledged record is on the log", {Rule.ACKED_STANDS}, _without_waiting),
}
