"""Faults of workers: death, standstill, rivals, clocks."""

import shutil
import time

from pipeline.codec.topics import Topic
from tests.kafka.matrix.fleet import ENTRY
from tests.kafka.matrix.stage import Stage

SESSION_S = 6.0
TRANSACTION_S = 10.0
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


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
