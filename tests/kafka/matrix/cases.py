"""The faults of the matrix. Each case does its harm while the load runs; whoever plays it brings the ledger to rest
and judges it afterwards. A case that must halt something asserts what it says, and mends it."""

import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from subprocess import run

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.testing.cluster.proxy import Direction
from tests.kafka.matrix.backups import restored_afterwards
from tests.kafka.matrix.fleet import ENTRY, Life
from tests.kafka.matrix.stage import Stage

SESSION_S = 6.0
TRANSACTION_S = 10.0
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class House(Enum):
    """On what a case is played."""

    PLAIN = "one broker"
    PROXIED = "one broker behind the proxy"
    QUORUM = "one broker, two of three attestors"
    THREE = "three brokers"


@dataclass(frozen=True)
class Case:
    """`weight`: how often it is chosen among those of its house. `retires`: the ledger is of no use after it."""

    name: str
    house: House
    play: Callable[[Stage], None]
    weight: int = 2
    retires: bool = False


# Workers


def worker_killed(stage: Stage) -> None:
    """kill -9 of workers, one after the other; some come back with an empty disk."""
    for _ in range(stage.random.randint(6, 10)):
        life = stage.random.choice(stage.fleet.workers)
        stage.kill(life)
        stage.pause(0, 0.7)
        if stage.random.random() < 0.25:
            shutil.rmtree(life.data, ignore_errors=True)
        stage.start_worker(life.slot)
        stage.pause(0.2, 3.0)


def worker_frozen(stage: Stage) -> None:
    """Past the transaction timeout, then thawed: the others have its shards, and it does no harm."""
    frozen, *others = stage.random.sample(stage.fleet.workers, 2)
    stage.fleet.freeze(frozen)
    try:
        time.sleep(TRANSACTION_S + stage.random.uniform(1, 3))
        stage.fleet.await_led(*others)
    finally:
        stage.fleet.thaw(frozen)
    stage.pause(2, 4)
    stage.require(frozen.is_alive, "the frozen worker ended")


def sole_owner_stalled(stage: Stage) -> None:
    """Nobody takes over: it must come back by itself, though its open transaction was aborted for it."""
    sole, other = stage.random.sample(stage.fleet.workers, 2)
    stage.fleet.end(other)
    stage.fleet.await_led(sole)
    stage.fleet.freeze(sole)
    time.sleep(TRANSACTION_S + stage.random.uniform(1, 3))
    stage.fleet.thaw(sole)
    stage.pause(2, 3)
    stage.fleet.await_led(sole)
    stage.require(sole.is_alive, "the sole owner ended")


def zombie_recycles(stage: Stage) -> None:
    """A worker stands still for longer than its session, again and again; each time it believes that it leads."""
    zombie, rightful = stage.random.sample(stage.fleet.workers, 2)
    for _ in range(2):
        stage.fleet.freeze(zombie)
        try:
            time.sleep(SESSION_S + stage.random.uniform(0.5, 2))
            stage.fleet.await_led(rightful)
        finally:
            stage.fleet.thaw(zombie)
        stage.pause(0.05, 1.5)


def impostor(stage: Stage) -> None:
    """Somebody opens a shard's writer, which fences the owner, and leaves a transaction open."""
    for _ in range(2):
        shard = stage.random.randrange(stage.fleet.shards)
        junk = (stage.topic(Topic.RECEIPTS), shard, b"never committed")
        with stage.brokers.transaction(stage.writer_id(shard), junk):
            stage.pause(0.5, 3)
    stage.fleet.await_led()


def storm(stage: Stage) -> None:
    """Workers join, leave and die."""
    slots = ["worker-1", "worker-2", "worker-3", "worker-4"]
    for _ in range(stage.random.randint(6, 10)):
        slot = stage.random.choice(slots)
        life = stage.fleet.lives.get(slot)
        if life is None or not life.is_alive:
            stage.start_worker(slot)
        elif stage.random.random() < 0.5:
            stage.kill(life)
        else:
            stage.fleet.end(life)
        stage.pause(0.05, 1.2)
    for slot in slots[2:]:
        life = stage.fleet.lives.get(slot)
        if life is not None and life.is_alive:
            stage.fleet.end(life)


def clock_jumps(stage: Stage) -> None:
    """Forward as far as signers bear, and an hour back: time in blocks never goes back."""
    for offset_ms in (5_000, -HOUR_MS):
        stage.fleet.end(stage.fleet.lives["worker-1"])
        stage.start_worker("worker-1", program=(*ENTRY, "--clock-ms", str(offset_ms)))
        stage.pause(3, 5)
    stage.fleet.end(stage.fleet.lives["worker-1"])


def clock_far_ahead(stage: Stage) -> None:
    """Eight days: halts, and goes on only where an operator vouches for the clock."""
    stage.rest()
    stage.down()
    ahead = (*ENTRY, "--clock-ms", str(8 * DAY_MS))
    halted = stage.start_worker("worker-1", program=ahead)
    stage.fleet.await_word(halted, "ahead of the last block")
    stage.fleet.await_word(halted, "--accept-time")
    stage.fleet.end(halted)
    for slot in ("worker-1", "worker-2"):
        stage.start_worker(slot, "--accept-time", program=ahead)
    stage.fleet.synchronizer(program=ahead)
    stage.fleet.await_led()
    stage.open_clients()
    stage.play()
    stage.pause(2, 3)


# Stores


def store_deleted(stage: Stage) -> None:
    """Killed, and everything on its disk is gone."""
    life = stage.random.choice(stage.fleet.workers)
    stage.kill(life)
    shutil.rmtree(life.data, ignore_errors=True)
    stage.start_worker(life.slot)


def store_old(stage: Stage) -> None:
    """Killed, and its disk is that of an hour ago."""
    life = stage.random.choice(stage.fleet.workers)
    stage.fleet.end(life)
    kept = stage.root / f"kept-{life.name}"
    shutil.copytree(life.data, kept)
    later = stage.start_worker(life.slot)
    stage.fleet.await_led()
    stage.pause(2, 4)
    stage.kill(later)
    shutil.rmtree(life.data, ignore_errors=True)
    shutil.copytree(kept, life.data)
    stage.start_worker(life.slot)


def disk_full(stage: Stage) -> None:
    """A store's disk is full: the worker stops with one line, another one takes over."""
    life = stage.random.choice(stage.fleet.workers)
    stage.fleet.end(life)
    disk = stage.root / f"disk-{life.name}"
    disk.mkdir()
    # Room for the stores of a ledger that has grown for a while: it must be full by what comes, not by recovering.
    script = f"mount -t tmpfs -o size=64m none '{disk}' && exec \"$@\""
    small = ("unshare", "-rm", "sh", "-c", script, "sh")
    sole = stage.start_worker("small", "--data", disk, wrap=small)
    others = [worker for worker in stage.fleet.workers if worker is not sole]
    for other in others:
        stage.fleet.end(other)
    stage.fleet.await_led(sole)
    filled = Path(f"/proc/{sole.process.pid}/root{disk}") / "ballast"
    with suppress(OSError), filled.open("wb", buffering=0) as ballast:
        for size in (1 << 16, 1):
            with suppress(OSError):
                while ballast.write(bytes(size)) == size:
                    pass
    code = stage.fleet.await_end(sole)
    said = stage.fleet.said(sole.name).strip().splitlines()
    stage.require(code == 2 and "disk" in said[-1].lower(), f"a full disk ended with code {code}")


def log_restored_from_old_backup(stage: Stage) -> None:
    """Stores are ahead of a cluster that was restored from an old backup: workers and signers halt."""
    stage.rest()
    stage.down()
    old = stage.brokers.backup()
    stage.open()
    stage.play()
    stage.pause(2, 3)
    stage.rest()
    stage.down()
    new = stage.brokers.backup()
    stage.brokers.restore(old)
    halted = [stage.start_worker(slot) for slot in ("worker-1", "worker-2")]
    stage.fleet.await_true(lambda: _says(stage, halted, "the state store is at block"), 120)
    signer = stage.fleet.synchronizer()
    stage.require(stage.fleet.await_end(signer) == 2, "a signer that is ahead of its log went on")
    stage.require(_says(stage, [signer], "restore"), "the signer does not say what to do")
    for life in halted:
        stage.fleet.end(life)
    stage.may_end.add("sync")
    stage.brokers.restore(new)
    _remove(old, new)
    stage.open()
    stage.play()
    stage.pause(1, 2)


def topic_recreated(stage: Stage) -> None:
    """A topic is deleted and made again under everybody's feet."""
    with restored_afterwards(stage):
        topic = stage.random.choice((Topic.TRANSACTIONS, Topic.RELAY, Topic.BLOCKS))
        workers = stage.fleet.workers
        stage.brokers.recreate_topic(stage.topic(topic), stage.fleet.shards)
        stage.fleet.await_true(lambda: _says(stage, workers, "deleted"), 120)
        stage.fleet.await_true(lambda: _says(stage, workers, "restore the cluster"), 120)


def records_deleted(stage: Stage) -> None:
    """The first half of a topic is deleted, as retention would: a worker with an empty disk says so."""
    shard = 0
    with restored_afterwards(stage):
        log = stage.log()
        try:
            end = log.end_offset(TopicPartition(Topic.TRANSACTIONS, shard))
        finally:
            log.close()
        stage.brokers.delete_records(stage.topic(Topic.TRANSACTIONS), shard, max(1, end // 2))
        for life in stage.fleet.workers:
            stage.fleet.end(life)
        fresh = stage.start_worker("fresh")
        stage.fleet.await_true(lambda: _says(stage, [fresh], "truncated", "was cut or replaced"), 120)
        stage.require(stage.fleet.led(fresh) <= set(range(1, stage.fleet.shards)), "a shard without its history is led")
        stage.fleet.end(fresh)


# Signers


def synchronizer_killed(stage: Stage) -> None:
    """kill -9, sometimes with the loss of its disk."""
    for _ in range(stage.random.randint(2, 4)):
        life = stage.fleet.lives["sync"]
        stage.kill(life)
        if stage.random.random() < 0.25:
            shutil.rmtree(life.data, ignore_errors=True)
        stage.revive("sync", lambda: stage.fleet.synchronizer(**stage.how))
        stage.pause(0.3, 3)


def two_synchronizers(stage: Stage) -> None:
    """The second one fences the first, which ends and says so."""
    first = stage.fleet.lives["sync"]
    second = stage.fleet.synchronizer("sync-2")
    code = stage.fleet.await_end(first)
    stage.require(code == 2 and "fenced" in stage.fleet.said(first.name), f"the first one ended with code {code}")
    stage.may_end.add("sync")
    stage.pause(1, 2)
    stage.require(second.is_alive, "both ended")
    stage.fleet.end(second)


def attestor_lost(stage: Stage) -> None:
    """One of three is not missed; without a second nothing is signed, and with it again all is."""
    first, second = stage.random.sample(stage.roles, 2)
    stage.kill(stage.fleet.lives[first])
    stage.pause(1, 3)
    stage.kill(stage.fleet.lives[second])
    stage.pause(1, 3)
    stage.fleet.attestor(second)
    stage.pause(1, 2)


# Brokers and connections


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


def _says(stage: Stage, lives: list[Life], *words: str) -> bool:
    """Whether one of them said one of these."""
    return any(word in stage.fleet.said(life.name) for life in lives for word in words)


def _remove(*copies: Path) -> None:
    for copy in copies:
        shutil.rmtree(copy)


def mounts_are_permitted() -> bool:
    return shutil.which("unshare") is not None and run(["unshare", "-rm", "true"], check=False).returncode == 0


CASES = [
    Case("worker killed", House.PLAIN, worker_killed, weight=16),
    Case("worker frozen past the transaction timeout", House.PLAIN, worker_frozen),
    Case("sole owner stalled", House.PLAIN, sole_owner_stalled),
    Case("zombie recycles", House.PLAIN, zombie_recycles),
    Case("impostor fences a shard's writer", House.PLAIN, impostor),
    Case("storm of workers", House.PLAIN, storm, weight=4),
    Case("clock jumps", House.PLAIN, clock_jumps),
    Case("store deleted", House.PLAIN, store_deleted),
    Case("store old", House.PLAIN, store_old),
    Case("store's disk full", House.PLAIN, disk_full),
    Case("synchronizer killed", House.PLAIN, synchronizer_killed, weight=6),
    Case("two synchronizers", House.PLAIN, two_synchronizers),
    Case("stranger's open transaction", House.PLAIN, strangers_transaction),
    Case("broker stands still", House.PLAIN, broker_frozen),
    Case("log restored from an old backup", House.PLAIN, log_restored_from_old_backup, weight=1),
    Case("topic made again", House.PLAIN, topic_recreated, weight=1),
    Case("records deleted", House.PLAIN, records_deleted, weight=1),
    Case("clock eight days ahead", House.PLAIN, clock_far_ahead, weight=1, retires=True),
    Case("connections delayed", House.PROXIED, connections_delayed),
    Case("connections cut", House.PROXIED, connections_cut),
    Case("connections half open", House.PROXIED, connections_half_open),
    Case("end of a transaction delayed", House.PROXIED, end_delayed, weight=3),
    Case("attestors lost and back", House.QUORUM, attestor_lost, weight=3),
    Case("worker killed, quorum", House.QUORUM, worker_killed, weight=2),
    Case("broker of three killed", House.THREE, broker_killed, weight=3),
    Case("broker of three out of one worker's reach", House.THREE, broker_out_of_reach),
    Case("rolling restart of three brokers", House.THREE, brokers_restarted),
    Case("worker killed, three brokers", House.THREE, worker_killed, weight=2),
]
