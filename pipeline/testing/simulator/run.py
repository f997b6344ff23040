"""One simulation: draw a plan, run it, let it come to rest, judge."""

from random import Random
from typing import Final

from pipeline.errors import HauptbuchError
from pipeline.ledger.chain import Chain
from pipeline.ledger.genesis import GasSchedule, Limits, SignerKey
from pipeline.testing.simulator.cluster import Cluster
from pipeline.testing.simulator.lies import Lies
from pipeline.testing.simulator.operators import Operators
from pipeline.testing.simulator.plan import Decision, Plan, draw_plan
from pipeline.testing.simulator.readers import Subscriber
from pipeline.testing.simulator.report import Report, SimulationFailed, Trace
from pipeline.testing.simulator.traffic import Traffic
from pipeline.testing.simulator.verdict import check, digest
from pipeline.testing.world import START_MS, Actor, build_genesis

_GAS: Final = GasSchedule(local_entry=10, remote_entry=30, further_divisor=5, leaf=1)


def simulate(seed: int, *, transactions: int | None = None) -> Report:
    """Run one seed; `transactions` replaces how many are published. Raises as `run_plan`."""
    return run_plan(draw_plan(seed, transactions))


def run_plan(plan: Plan) -> Report:
    """Run a plan. Equal plans give equal runs.

    Raises `SimulationFailed` where anything that must hold does not, or anything is raised that should not be.
    """
    trace = Trace()
    try:
        return _Simulation(plan, trace).run()
    except (AssertionError, HauptbuchError) as error:
        raise SimulationFailed(plan.seed, f"{type(error).__name__}: {error}", trace) from error


class _Simulation:
    def __init__(self, plan: Plan, trace: Trace) -> None:
        self._plan, self._trace = plan, trace
        self._random = random = Random(plan.setup)
        chaos = plan.chaos
        treasury = Actor.on(random.randrange(chaos.shards), chaos.shards, "treasury")
        operators = [Actor.of(f"operator {number}") for number in range(3)]
        # One more than attest at first, so that attestors can be replaced.
        attestors = [Actor.of(f"attestor {number}") for number in range(chaos.attestors + 1)]
        genesis = build_genesis(
            chaos.shards,
            treasury,
            operators,
            attestors=tuple(
                SignerKey(actor.key.suite_id, actor.key.public_key) for actor in attestors[: max(1, chaos.attestors)]
            ),
            attestor_threshold=chaos.threshold,
            gas=_GAS,
            limits=Limits(operations=5, entries=20, block_gas=1_000_000, block_records=random.choice((2, 5, 50))),
        )
        trace.note(str(chaos))
        chain = Chain.of(genesis)
        self._cluster = cluster = Cluster(chain, [actor.key for actor in attestors], chaos, random, trace, START_MS)
        self._traffic = Traffic(cluster, treasury, random, trace)
        self._lies = Lies(cluster, self._traffic, random, trace)
        self._operators = Operators(cluster, self._traffic, operators, attestors, random, trace)
        self._subscriber = Subscriber(chain)

    def run(self) -> Report:
        self._traffic.open()
        for decision in self._plan.decisions:
            self._carry_out(decision)
            self._trace.decided = decision.number
        self._random.seed(self._plan.setup)
        self._cluster.settle()
        cluster, trace = self._cluster, self._trace
        outcomes, signed = check(cluster, self._subscriber, self._plan.seed)
        return Report(
            seed=self._plan.seed,
            shards=cluster.active_shards,
            records=sum(item.count for headers in outcomes.headers for header in headers for item in header.inputs),
            blocks=outcomes.blocks,
            rounds=len(signed.rounds),
            events=dict(sorted(trace.events.items())),
            trace=tuple(trace.lines),
            digest=digest(cluster, trace.lines),
        )

    def _carry_out(self, decision: Decision) -> None:
        self._random.seed(decision.seed)
        self._cluster.calm = not decision.faulty
        match decision.action:
            case "publish":
                self._traffic.publish()
            case "lie":
                self._lies.publish()
            case "lie about signatures":
                self._lies.about_signatures()
            case "lie about control":
                self._operators.lie()
            case "forge":
                self._operators.forge()
            case "govern":
                self._operators.govern()
            case "subscribe":
                self._subscriber.poll(self._cluster.log)
            case action:
                self._cluster.act(action)
