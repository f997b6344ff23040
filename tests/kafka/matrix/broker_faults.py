"""Faults of brokers, connections and other clients of the cluster."""

import signal
import time

from pipeline.codec.topics import Topic
from pipeline.testing.cluster.proxy import Direction
from tests.kafka.matrix.stage import Stage


def broker_killed(stage: Stage) -> None:
    node = stage.random.choice(stage.brokers.nodes)
    stage.brokers.kill(node)
    stage.tally.kills += 1
    stage.pause(3, 8)
    stage.brokers.cluster.start_broker(node)
    stage.brokers.cluster.wait_ready(120)
    stage.pause(2, 4)


def brokers_restarted(stage: Stage) -> None:
    """All of them, one after the other, as an upgrade does."""
    cluster = stage.brokers.cluster
    for node in stage.brokers.nodes:
        cluster.signal_broker(node, signal.SIGTERM)
        stage.fleet.await_true(lambda node=node: not cluster.is_running(node), 120)
        cluster.start_broker(node)
        cluster.wait_ready(120)
        stage.pause(4, 6)


def broker_out_of_reach(stage: Stage) -> None:
    """What one worker and one broker of three send each other vanishes; everyone else reaches everyone."""
    slot = stage.random.choice(stage.fleet.workers).slot
    stage.fleet.end(stage.fleet.lives[slot])
    life = stage.start_worker(slot, bootstrap=stage.brokers.proxied)
    stage.fleet.await_led()
    proxy = stage.brokers.proxy
    try:
        proxy.half_open(*Direction, port=stage.random.choice(proxy.ports))
        stage.pause(8, 28)
    finally:
        proxy.heal()
    stage.pause(3, 6)
    stage.fleet.await_led()
    stage.require(life.is_alive, "the worker ended")
    stage.fleet.end(life)  # its next life reaches brokers without the proxy


def broker_frozen(stage: Stage) -> None:
    """The only broker stands still for longer than requests, sessions and transactions last."""
    cluster, node = stage.brokers.cluster, stage.brokers.nodes[0]
    cluster.signal_broker(node, signal.SIGSTOP)
    try:
        stage.pause(8, 28)
    finally:
        cluster.signal_broker(node, signal.SIGCONT)
    stage.pause(1, 3)


def connections_delayed(stage: Stage) -> None:
    for _ in range(3):
        delays = stage.random.uniform(0.005, 0.1), stage.random.uniform(0.005, 0.1)
        stage.brokers.proxy.delay(*delays)
        stage.pause(2, 4)
    stage.brokers.proxy.heal()


def connections_cut(stage: Stage) -> None:
    for _ in range(stage.random.randint(4, 8)):
        stage.brokers.proxy.cut()
        stage.pause(0.1, 2)
    stage.brokers.proxy.refuse(on=True)
    stage.brokers.proxy.cut()
    stage.pause(1, 8)
    stage.brokers.proxy.heal()


def connections_half_open(stage: Stage) -> None:
    """What is sent vanishes, in one direction or in both; nobody is told."""
    directions = stage.random.choice(((Direction.UP,), (Direction.DOWN,), (Direction.UP, Direction.DOWN)))
    stage.brokers.proxy.half_open(*directions)
    stage.pause(3, 14)
    stage.brokers.proxy.heal()


def end_delayed(stage: Stage) -> None:
    """The end of a transaction arrives when the next one of its writer has begun, and commits what there is of it."""
    proxy = stage.brokers.proxy
    before, deadline = proxy.late_ends, time.monotonic() + 30
    proxy.hold_end(stage.writer_id(0)[:-1] + r"\d")
    while proxy.late_ends < before + 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    proxy.heal()
    stage.require(proxy.late_ends > before, "no end of a transaction came late")
    stage.tally.notes.append(f"{proxy.late_ends - before} ends came late")


def strangers_transaction(stage: Stage) -> None:
    """Somebody's open transaction hides everything behind it; it ends this way or that, or is left to time out."""
    shard = stage.random.randrange(stage.fleet.shards)
    junk = (stage.topic(Topic.TRANSACTIONS), shard, stage.random.randbytes(50))
    with stage.brokers.transaction(f"stranger-{stage.random.getrandbits(32)}", junk) as producer:
        stage.pause(1, 6)
        match stage.random.choice(("commit", "abort", "leave")):
            case "commit":
                producer.commit_transaction(20)
            case "abort":
                producer.abort_transaction(20)
            case _:
                pass
