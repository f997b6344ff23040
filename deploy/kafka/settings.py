"""Server properties of a loopback broker in KRaft combined mode."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

MAX_MESSAGE_BYTES = 1_100_000
"""Above the ledger's 1 MiB records by room for a batch's header."""


@dataclass(frozen=True, slots=True)
class BrokerPlace:
    """One broker: its id (from 1), ports on 127.0.0.1, and directory."""

    node_id: int
    port: int
    controller_port: int
    directory: Path
    internal_port: int = 0
    """Where brokers talk to each other in a secured cluster, 0 in an open one."""

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.port}"


def server_properties(
    place: BrokerPlace, voters: list[BrokerPlace], changes: Mapping[str, object] = MappingProxyType({})
) -> str:
    """The broker's file, with `changes`. Replication 3 and two in-sync replicas where there are three brokers."""
    replicas = min(3, len(voters))
    in_sync = max(1, replicas - 1)
    settings = {
        "process.roles": "broker,controller",
        "node.id": place.node_id,
        "controller.quorum.voters": ",".join(f"{v.node_id}@127.0.0.1:{v.controller_port}" for v in voters),
        "listeners": f"PLAINTEXT://{place.address},CONTROLLER://127.0.0.1:{place.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{place.address}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": place.directory / "data",
        # Each broker is one of several processes that share the cores of one machine: by default it has 11 threads for
        # requests, which get in the way of each other and of the clients.
        "num.network.threads": 1,
        "num.io.threads": max(2, os.cpu_count() or 1),
        # Controllers on cores that are all busy hear of each other late. At the defaults of 1 and 2 s they elected and
        # elected, and a broker that was started again waited two minutes for one of them.
        "controller.quorum.election.timeout.ms": 3_000,
        "controller.quorum.fetch.timeout.ms": 6_000,
        "controller.quorum.request.timeout.ms": 5_000,
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 5,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": 5,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        # One open transaction hides everything behind it, so nobody may hold one for long.
        "transaction.max.timeout.ms": 15_000,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,
        "group.initial.rebalance.delay.ms": 0,
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "replica.fetch.max.bytes": MAX_MESSAGE_BYTES,
        "log.retention.ms": -1,
        "log.cleanup.policy": "delete",
    }
    return "".join(f"{name}={value}\n" for name, value in {**settings, **changes}.items())


LOG4J = """\
appender.file.type=File
appender.file.name=file
appender.file.fileName=${sys:hauptbuch.log}
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=WARN
rootLogger.appenderRef.file.ref=file
logger.kafka.name=kafka.server.KafkaServer
logger.kafka.level=INFO
"""
