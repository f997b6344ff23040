"""`hauptbuch worker`."""

from typing import Annotated

import typer

from pipeline.cli.processes import Bootstrap, Data, GenesisFile, Level, LogAs, read_chain
from pipeline.cli.surroundings import AcceptTime, settings, until_stopped
from pipeline.errors import ConfigError
from pipeline.watch.logs import LogFormat, LogLevel, set_up_logs
from pipeline.watch.worker import WorkerWatch
from topologies.shard import run_worker, run_workers


def run(
    kafka: Bootstrap,
    genesis: GenesisFile,
    data: Data,
    workers: Annotated[int, typer.Option("--workers", help="How many processes, each with a part of DIR.")] = 1,
    accept_time: AcceptTime = False,
    log: LogAs = LogFormat.CONSOLE,
    log_level: Level = LogLevel.INFO,
) -> None:
    """Process the shards that the group of workers assigns to this process, until SIGINT or SIGTERM.

    State stores in DIR are views of the log: a fresh directory restores itself.
    """
    if not 1 <= workers <= 64:
        raise ConfigError(f"--workers must be 1 to 64, not {workers}")
    set_up_logs(log, log_level)
    chain, config = read_chain(genesis), settings(None, kafka)
    with until_stopped() as is_done:
        if workers == 1:
            run_worker(chain, config, data, WorkerWatch(chain), is_done, accept_time=accept_time)
            return
        options = ["worker", "--kafka", kafka, "--genesis", str(genesis), *(["--accept-time"] if accept_time else [])]
        options += ["--log", log.value, "--log-level", log_level.value]
        run_workers([[*options, "--data", str(data / f"worker-{number}")] for number in range(workers)], is_done)
