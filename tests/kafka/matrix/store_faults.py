"""Faults of what is kept: stores of workers, topics, whole clusters taken back."""

import shutil
from contextlib import suppress
from pathlib import Path
from subprocess import run

from pipeline.codec.topics import Topic, TopicPartition
from tests.kafka.matrix.backups import restored_afterwards
from tests.kafka.matrix.fleet import Life
from tests.kafka.matrix.stage import Stage


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


def _says(stage: Stage, lives: list[Life], *words: str) -> bool:
    """Whether one of them said one of these."""
    return any(word in stage.fleet.said(life.name) for life in lives for word in words)


def _remove(*copies: Path) -> None:
    for copy in copies:
        shutil.rmtree(copy)


def mounts_are_permitted() -> bool:
    return shutil.which("unshare") is not None and run(["unshare", "-rm", "true"], check=False).returncode == 0
