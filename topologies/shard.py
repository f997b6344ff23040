"""Shard processors: one worker process, or several as one."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import sleep
from typing import Final

from pipeline.config import Config
from pipeline.errors import Fatal
from pipeline.ledger.chain import Chain
from pipeline.log.kafka.group import ShardGroup
from pipeline.log.membership import Revoked
from pipeline.node.places import chain_log, topic_prefix
from pipeline.node.worker import Worker
from pipeline.watch.worker import WorkerWatch

_LOOK_S: Final = 0.1
_PATIENCE_S: Final = 1.0
"""How long a worker's shards wait for a partition of one of them, once; then the others go on without it."""


def run_worker(
    chain: Chain,
    config: Config,
    data: Path,
    watch: WorkerWatch,
    is_done: Callable[[], bool],
    *,
    accept_time: bool,
) -> None:
    """Be a worker until `is_done`. Raises as `Worker` does."""

    def join(revoked: Revoked) -> ShardGroup:
        group = watch.group = ShardGroup(config.kafka, topic_prefix(chain), revoked)
        return group

    with chain_log(chain, config, patience_s=_PATIENCE_S) as log:
        worker = Worker(
            chain,
            config,
            data,
            log,
            join,
            accept_time=accept_time,
            observe=watch.observe,
            observe_copy=watch.observe_copy,
        )
        watch.verified = worker.signatures_verified
        try:
            worker.run(watch.watching(is_done))
        finally:
            worker.close()


def run_workers(commands: Sequence[Sequence[str]], is_done: Callable[[], bool]) -> None:
    """Run `hauptbuch` once for each command until `is_done`. Raises `Fatal` where one ends before; then all end.

    Nobody writes to their standard input: it ends when this process does, however it does, and they with it.
    """
    program = [sys.executable, "-m", "pipeline.cli.main"]
    processes = [subprocess.Popen([*program, *command], stdin=subprocess.PIPE) for command in commands]
    try:
        while not is_done():
            for number, process in enumerate(processes):
                if process.poll() is not None:
                    raise Fatal(f"worker {number} ended with code {process.returncode}; it says why above")
            sleep(_LOOK_S)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
