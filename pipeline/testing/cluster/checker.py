"""Holds what clients were told against what the log says, in the manner of Jepsen: a pure function of both.

The judge of `pipeline.testing.kills` and the audit look at the log alone; a ledger can be consistent and still have
told somebody something else.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from pipeline.testing.cluster.history import Acked, Event, Proved, Refused, SawRoot, Settled, Told
from pipeline.testing.cluster.observed import Bundle, Observed, Place


class Rule(Enum):
    """What must hold; the value says how it is broken."""

    ACKED_STANDS = "a record that was acknowledged is gone, or is another"
    ONE_ANSWER = "a record has several receipts, or one for no record"
    ONE_NONCE = "a nonce was consumed twice"
    RECEIPT_STANDS = "a receipt that was told is another now"
    ONE_ROOT = "two histories: a block or state root is contradicted"
    FORWARD = "a reader went back in time"
    BALANCE = "a proved balance is not what the payments add up to"
    SETTLED_ONCE = "an effect was lost, made up or executed twice"
    REFUSED = "something was published that does not verify"
    ANSWERED = "a record was never answered"
    MODEL = "the ledger's rules were not followed"


class Contradiction(NamedTuple):
    """A rule that does not hold, and where."""

    rule: Rule
    what: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.rule.name}: {self.what}"


def check(history: Sequence[Event], observed: Observed, *, at_rest: bool) -> list[Contradiction]:
    """Every contradiction between clients, or between them and the log.

    `history`: events of all clients, each client's in its order. `at_rest`: everything published has been executed, so
    that what is missing is lost.
    """
    found = [
        *_acked(history, observed),
        *_answers(observed, at_rest=at_rest),
        *_nonces(observed),
        *_told(history, observed),
        *_roots(history, observed),
        *_order(history),
        *_balances(history, observed),
        *_effects(history, observed, at_rest=at_rest),
        *(Contradiction(Rule.REFUSED, event.what) for event in history if isinstance(event, Refused)),
        *(Contradiction(Rule.MODEL, complaint) for complaint in observed.complaints),
    ]
    return list(dict.fromkeys(found))


def count_events(history: Iterable[Event]) -> dict[str, int]:
    """How many of each kind."""
    counts: dict[str, int] = defaultdict(int)
    for event in history:
        counts[type(event).__name__] += 1
    return dict(counts)


def _acked(history: Sequence[Event], observed: Observed) -> Iterator[Contradiction]:
    for event in history:
        if isinstance(event, Acked):
            stands = observed.records.get((event.partition, event.offset))
            if stands != event.sha256:
                now = "is gone" if stands is None else "is another"
                yield Contradiction(
                    Rule.ACKED_STANDS, f"record {event.partition}/{event.offset} of {event.client} {now}"
                )


def _answers(observed: Observed, *, at_rest: bool) -> Iterator[Contradiction]:
    """One receipt or one dead letter for a record, none for anything else."""
    places: set[Place] = {*observed.receipts, *observed.dead}
    for place in sorted(places):
        count = len(observed.receipts.get(place, ())) + observed.dead[place]
        if place not in observed.records:
            yield Contradiction(Rule.ONE_ANSWER, f"an answer to record {_name(place)}, which does not exist")
        elif count != 1:
            yield Contradiction(Rule.ONE_ANSWER, f"record {_name(place)} has {count} answers")
    if at_rest:
        for place in sorted(observed.records.keys() - places):
            yield Contradiction(Rule.ANSWERED, f"record {_name(place)} has no answer")


def _nonces(observed: Observed) -> Iterator[Contradiction]:
    consumed: dict[tuple[str, int], Place] = {}
    for place, receipts in sorted(observed.receipts.items()):
        for receipt in receipts:
            if not receipt.nonce_consumed:
                continue
            first = consumed.setdefault((receipt.sender, receipt.nonce), place)
            if first != place:
                yield Contradiction(
                    Rule.ONE_NONCE,
                    f"nonce {receipt.nonce} of {receipt.sender[:16]} by records {_name(first)} and {_name(place)}",
                )


def _told(history: Sequence[Event], observed: Observed) -> Iterator[Contradiction]:
    """Whatever any client was told of a record is what every client was told, and what the log says at last."""
    for event in history:
        if isinstance(event, Told):
            place = (event.partition, event.offset)
            digests = {receipt.digest for receipt in observed.receipts.get(place, ())}
            if digests != {event.digest}:
                yield Contradiction(
                    Rule.RECEIPT_STANDS, f"record {_name(place)}: {event.client} was told {event.digest[:16]}"
                )


def _roots(history: Sequence[Event], observed: Observed) -> Iterator[Contradiction]:
    roots = {place: set(hashes) for place, hashes in observed.roots.items()}
    checkpoints: dict[int, set[str]] = defaultdict(set)
    unknown: dict[tuple[int, int], str] = {}
    for event in history:
        if isinstance(event, SawRoot):
            place = (event.shard, event.height)
            if place not in observed.roots:
                unknown[place] = event.client
            roots.setdefault(place, set()).add((event.block_hash, event.state_root))
            checkpoints[event.round].add(event.checkpoint)
    for (shard, height), client in sorted(unknown.items()):
        yield Contradiction(Rule.ONE_ROOT, f"shard {shard} block {height}: {client} saw its root, the log lacks it")
    for (shard, height), hashes in sorted(roots.items()):
        if len(hashes) > 1:
            yield Contradiction(Rule.ONE_ROOT, f"shard {shard} block {height} exists {len(hashes)} times")
    for number, hashed in sorted(checkpoints.items()):
        if len(hashed) > 1:
            yield Contradiction(Rule.ONE_ROOT, f"round {number} was signed {len(hashed)} times")


def _order(history: Sequence[Event]) -> Iterator[Contradiction]:
    newest: dict[tuple[str, int], SawRoot] = {}
    for event in history:
        if isinstance(event, SawRoot):
            before = newest.setdefault((event.client, event.shard), event)
            if (event.height, event.round) < (before.height, before.round) or event.round < before.round:
                yield Contradiction(
                    Rule.FORWARD,
                    f"{event.client} saw block {event.height} of shard {event.shard} after {before.height}",
                )
            newest[event.client, event.shard] = event


def _balances(history: Sequence[Event], observed: Observed) -> Iterator[Contradiction]:
    for event in history:
        if isinstance(event, Proved):
            due = observed.balances.at(event.height, event.address, event.asset)
            if due != event.amount:
                yield Contradiction(
                    Rule.BALANCE,
                    f"{event.address[:16]} at block {event.height} of shard {event.shard}: {event.amount} was proved, "
                    f"{due} is due",
                )


def _effects(history: Sequence[Event], observed: Observed, *, at_rest: bool) -> Iterator[Contradiction]:
    for bundle, digests in sorted(observed.sent.items()):
        if len(digests) > 1:
            yield Contradiction(Rule.SETTLED_ONCE, f"bundle {_bundle(bundle)} was sent with {len(digests)} contents")
        if at_rest and not observed.executed[bundle]:
            yield Contradiction(Rule.SETTLED_ONCE, f"bundle {_bundle(bundle)} was sent and never executed")
    for bundle, count in sorted(observed.executed.items()):
        if bundle not in observed.sent:
            yield Contradiction(Rule.SETTLED_ONCE, f"bundle {_bundle(bundle)} was executed and never sent")
        if count > 1:
            yield Contradiction(Rule.SETTLED_ONCE, f"bundle {_bundle(bundle)} was executed {count} times")
    promised = {(event.partition, event.offset) for event in history if isinstance(event, Settled)}
    for place in sorted(observed.receipts if at_rest else promised):
        for bundle in _missing(place, observed):
            yield Contradiction(
                Rule.SETTLED_ONCE, f"bundle {_bundle(bundle)}, an effect of record {_name(place)}, was never executed"
            )


def _missing(place: Place, observed: Observed) -> Iterator[Bundle]:
    """Bundles that the receipts of a record name, with the refunds those caused, and that nobody executed."""
    waiting = [
        (place[0], destination, sequence)
        for receipt in observed.receipts.get(place, ())
        for destination, sequence in receipt.channels
    ]
    seen: set[Bundle] = set()
    while waiting:
        bundle = waiting.pop()
        if bundle in seen:
            continue
        seen.add(bundle)
        if not observed.executed[bundle]:
            yield bundle
            continue
        waiting += [(bundle[1], destination, sequence) for destination, sequence in observed.refunds.get(bundle, ())]


def _name(place: Place) -> str:
    return f"{place[0]}/{place[1]}"


def _bundle(bundle: Bundle) -> str:
    return f"{bundle[2]} of channel {bundle[0]} -> {bundle[1]}"
