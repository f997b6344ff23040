"""One simulation: draw a mixture of faults, run it, let it come to rest, judge."""

from random import Random
from typing import Final

from pipeline.errors import HauptbuchError
from pipeline.ledger.chain import Chain
from pipeline.ledger.genesis import GasSchedule, Limits, SignerKey
from pipeline.testing.simulator.chaos import Chaos
from pipeline.testing.simulator.cluster import Cluster
from pipeline.testing.simulator.report import Report, SimulationFailed, Trace
from pipeline.testing.simulator.traffic import Traffic
from pipeline.testing.simulator.verdict import check, digest, signed_rounds
from pipeline.testing.world import START_MS, Actor, build_genesis

_GAS: Final = GasSchedule(local_entry=10, remote_entry=30, further_divisor=5, leaf=1)
_MOST_ACTIONS: Final = 700


def simulate(seed: int, *, transactions: int | None = None) -> Report:
    """Run one seed; `transactions` replaces how many are published.

    Raises `SimulationFailed` where anything that must hold does not, or anything is raised that should not be.
    """
    random = Random(seed)
    trace = Trace()
    try:
        return _run(seed, random, trace, transactions)
    except (AssertionError, HauptbuchError) as error:
        raise SimulationFailed(seed, f"{type(error).__name__}: {error}", trace) from error


def _run(seed: int, random: Random, trace: Trace, transactions: int | None) -> Report:
    chaos = Chaos.draw(random)
    treasury = Actor.on(random.randrange(chaos.shards), chaos.shards, "treasury")
    operators = [Actor.of(f"operator {number}") for number in range(3)]
    attestor = Actor.of("attestor")
    genesis = build_genesis(
        chaos.shards,
        treasury,
        operators,
        attestors=(SignerKey(attestor.key.suite_id, attestor.key.public_key),),
        attestor_threshold=1,
        gas=_GAS,
        limits=Limits(operations=5, entries=20, block_gas=1_000_000, block_records=random.choice((2, 5, 50))),
    )
    trace.note(str(chaos))
    cluster = Cluster(Chain.of(genesis), attestor.key, chaos, random, trace, START_MS)
    traffic = Traffic(cluster, treasury, operators, random, trace)
    traffic.open()
    names, weights = list(chaos.weights), list(chaos.weights.values())
    left = chaos.transactions if transactions is None else transactions
    for _ in range(_MOST_ACTIONS):
        (action,) = random.choices(names, weights)
        match action:
            case "publish":
                traffic.publish()
                left -= 1
            case "lie":
                traffic.lie()
            case "govern":
                traffic.govern()
            case _:
                cluster.act(action)
        if left <= 0:
            break
    cluster.settle()
    outcomes = check(cluster)
    return Report(
        seed=seed,
        shards=cluster.active_shards,
        records=sum(item.count for headers in outcomes.headers for header in headers for item in header.inputs),
        blocks=outcomes.blocks,
        rounds=signed_rounds(cluster),
        events=dict(sorted(trace.events.items())),
        trace=tuple(trace.lines),
        digest=digest(cluster, trace.lines),
    )
