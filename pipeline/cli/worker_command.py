"""`hauptbuch worker`."""

import sys
from collections.abc import Callable
from threading import Event, Thread
from typing import Annotated

import typer

from pipeline.cli.processes import Bootstrap, Data, GenesisFile, Http, Level, LogAs, logging_as, read_chain, shown
from pipeline.cli.surroundings import AcceptTime, settings, until_stopped
from pipeline.errors import ConfigError
from pipeline.watch.logs import LogFormat, LogLevel
from pipeline.watch.server import HttpAddress
from pipeline.watch.worker import WorkerWatch
from topologies.shard import run_worker, run_workers


def run(
    genesis: GenesisFile,
    data: Data,
    kafka: Bootstrap = "",
    workers: Annotated[int, typer.Option("--workers", help="How many processes, each with a part of DIR.")] = 1,
    accept_time: AcceptTime = False,
    log: LogAs = LogFormat.CONSOLE,
    log_level: Level = LogLevel.INFO,
    http: Http = "",
    attached: Annotated[bool, typer.Option("--attached", hidden=True, help="End when standard input ends.")] = False,
) -> None:
    """Process the shards that the group of workers assigns to this process, until SIGINT or SIGTERM.

    State stores in DIR are views of the log: a fresh directory restores itself. With --workers each process serves HTTP
    at the port after that of the one before it.
    """
    if not 1 <= workers <= 64:
        raise ConfigError(f"--workers must be 1 to 64, not {workers}")
    with logging_as(log, log_level), until_stopped() as is_stopped:
        is_done = _or_left_alone(is_stopped) if attached else is_stopped
        if workers == 1:
            chain, config = read_chain(genesis), settings(None, kafka)
            watch = WorkerWatch(chain)
            with shown(watch, http, chain, config):
                run_worker(chain, config, data, watch, is_done, accept_time=accept_time)
            return
        options = [
            "worker",
            "--attached",
            "--kafka",
            kafka,
            "--genesis",
            str(genesis),
            *(["--accept-time"] if accept_time else []),
        ]
        options += ["--log", log.value, "--log-level", log_level.value]
        run_workers(
            [[*options, "--data", str(data / f"worker-{number}"), *_http(http, number)] for number in range(workers)],
            is_done,
        )


def _or_left_alone(is_stopped: Callable[[], bool]) -> Callable[[], bool]:
    """Whether whoever holds the other end of standard input is gone, too: a killed process can't end its children."""
    left = Event()

    def watch() -> None:
        sys.stdin.buffer.read()
        left.set()

    Thread(target=watch, daemon=True).start()
    return lambda: is_stopped() or left.is_set()


def _http(http: str, number: int) -> list[str]:
    """Each process serves at a port of its own."""
    if not http:
        return []
    address = HttpAddress.parse(http)
    return ["--http", str(address._replace(port=address.port + number if address.port else 0))]
