"""`python -m topologies.monitor`: load and traffic of a chain on a cluster as JSON lines, on Faust.

A derived view for dashboards and for whoever balances: nothing depends on it, and nothing is written. Faust feeds it at
least once; `LoadView` takes repeats. It commits no positions: each start folds the log from its beginning, so that the
view is whole, and so one process at a time makes it.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import faust
from faust.transport.drivers import aiokafka as driver

from pipeline.codec.topics import LogRecord, Topic
from pipeline.config import Config, KafkaSecurity, SecurityProtocol, load_config
from pipeline.errors import ConfigError, HauptbuchError, PoisonRecord
from pipeline.ledger.chain import Chain
from pipeline.ledger.genesis import Genesis
from pipeline.node.places import topic_prefix
from pipeline.shards.load import DEFAULT_WINDOW_MS
from pipeline.shards.view import LoadView

_SOURCES: Final = (Topic.BLOCKS, Topic.RELAY)
_READ_COMMITTED: Final = "read_committed"


class _Thread(driver.AIOKafkaConsumerThread):
    """Reads what is committed; Faust itself does so only where it writes transactions of its own."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        assert hasattr(consumer, "_isolation_level"), "another aiokafka: say how it reads committed records only"
        consumer._isolation_level = _READ_COMMITTED
        return consumer


class _Consumer(driver.Consumer):
    """Commits no positions, so that each start is one from the beginning."""

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def commit(self, *_topics: Any, **_options: Any) -> bool:
        """Nothing to do."""
        return False


class _Transport(driver.Transport):
    Consumer = _Consumer


def monitor_app(chain: Chain, config: Config, view: LoadView) -> faust.App:
    """The stream processor that folds the chain's topics into `view`. Raises `ConfigError` for unfit settings."""
    brokers = [f"kafka://{address.strip()}" for address in config.kafka.bootstrap.split(",")]
    prefix = topic_prefix(chain)
    app = faust.App(
        f"{prefix}-monitor",
        broker=brokers,
        broker_credentials=_credentials(config.kafka.security),
        consumer_auto_offset_reset="earliest",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        stream_wait_empty=False,
        store="memory://",
    )
    app.transport = _Transport(app.conf.broker, app=app, loop=None)
    for topic in _SOURCES:
        name = f"{prefix}.{topic.topic_name}"
        channel = app.topic(name, value_serializer="raw", key_serializer="raw")
        app.agent(channel, name=f"fold-{topic.topic_name}")(_folder(topic, view))
    return app


def _folder(topic: Topic, view: LoadView) -> Callable[[Any], Any]:
    async def fold(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            view.fold(topic, message.partition, LogRecord(message.offset, message.key, message.value))

    return fold


def _credentials(security: KafkaSecurity) -> Any:
    """What Faust needs of the client's settings; None where the cluster asks for nothing."""
    context = None
    if security.protocol in (SecurityProtocol.SSL, SecurityProtocol.SASL_SSL):
        context = ssl.create_default_context(cafile=security.ca_location)
        if security.certificate_location is not None:
            password = security.key_password.get_secret_value() if security.key_password else None
            context.load_cert_chain(security.certificate_location, security.key_location, password)
    if security.protocol is SecurityProtocol.SSL:
        return faust.SSLCredentials(context)
    if security.protocol is SecurityProtocol.PLAINTEXT:
        return None
    password = security.password.get_secret_value() if security.password else None
    mechanism = security.mechanism
    return faust.SASLCredentials(
        username=security.username, password=password, ssl_context=context, mechanism=mechanism
    )


async def run_monitor(
    chain: Chain, config: Config, window_ms: int, every_s: float, tell: Callable[[dict[str, Any]], None]
) -> None:
    """Tell the view every `every_s` seconds until cancelled. Raises `ConfigError`, `LoadBalancingFailed`."""
    view = LoadView(chain, window_ms)
    app = monitor_app(chain, config, view)
    await app.start()
    try:
        while not app.should_stop:
            await asyncio.sleep(every_s)
            tell(view.report())
        raise ConfigError(f"the monitor's stream processor stopped: {app.crash_reason or 'it does not say why'}")
    finally:
        await app.stop()


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; 2 where it could not."""
    parser = argparse.ArgumentParser(prog="python -m topologies.monitor", description="Load of a chain as JSON lines.")
    parser.add_argument("--kafka", required=True, metavar="BOOTSTRAP", help="host:port of brokers, parted by commas")
    parser.add_argument("--genesis", required=True, type=Path, metavar="FILE", help="genesis.avro of `hauptbuch init`")
    parser.add_argument("--window", type=float, default=DEFAULT_WINDOW_MS / 1000, metavar="S", help="seconds of load")
    parser.add_argument("--every", type=float, default=5.0, metavar="S", help="seconds between lines")
    given = parser.parse_args(arguments)
    try:
        chain = Chain.of(Genesis.from_record(given.genesis.read_bytes()))
        config = load_config(None, os.environ, {"kafka.bootstrap": given.kafka})
        return asyncio.run(_until_stopped(run_monitor(chain, config, round(given.window * 1000), given.every, _print)))
    except OSError as error:
        print(f"{given.genesis} can't be read: {error.strerror}", file=sys.stderr)
    except PoisonRecord as error:
        print(f"{given.genesis} is no genesis: {error}", file=sys.stderr)
    except HauptbuchError as error:
        print(error, file=sys.stderr)
    return 2


async def _until_stopped(work: Any) -> int:
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return 0


def _print(report: dict[str, Any]) -> None:
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    sys.exit(main())
