"""`python -m deploy.kafka`: a loopback cluster, its users, and the access rules of a chain's roles on any cluster."""

import argparse
import os
import sys
from pathlib import Path

from deploy.kafka.acls import allow, revoke
from deploy.kafka.cluster import KafkaCluster
from deploy.kafka.roles import Role, grants_of
from deploy.kafka.security import ADMINISTRATOR, settings_file
from pipeline.cli.processes import read_chain
from pipeline.config import load_config
from pipeline.errors import ConfigError, HauptbuchError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 2 where it could not."""
    given = _parser().parse_args(arguments)
    try:
        if given.command == "acl":
            _acl(given)
        else:
            _cluster(given)
    except HauptbuchError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.kafka", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the cluster; prints the bootstrap address")
    up.add_argument("--brokers", type=int, default=1, help="1 or 3; of a new cluster")
    up.add_argument("--secure", action="store_true", help="a new cluster has TLS, users and access rules")
    down = commands.add_parser("down", help="stop it")
    describe = commands.add_parser("describe", help="say what runs where")
    user = commands.add_parser("user", help="give a user of a secured cluster a new password; prints its settings file")
    user.add_argument("name")
    for command in (up, down, describe, user):
        command.add_argument("--data", type=Path, default=Path("build/kafka"), help="data folder")
    acl = commands.add_parser("acl", help="allow a user to do the work of a role, and nothing else")
    acl.add_argument("--genesis", type=Path, required=True, help="DIR/genesis.avro of `hauptbuch init`")
    acl.add_argument("--role", type=Role, choices=list(Role), required=True)
    acl.add_argument("--user", required=True, help="name of the user, as Kafka's principal `User:NAME`")
    acl.add_argument("--signer", default="", help="which attestor signs: its number in genesis from 1, or its key's id")
    acl.add_argument("--config", type=Path, help="settings of an administrator; else the environment's")
    acl.add_argument("--kafka", default="", metavar="BOOTSTRAP", help="host:port of brokers; else what settings say")
    acl.add_argument("--dry-run", action="store_true", help="only print")
    acl.add_argument("--revoke", action="store_true", help="take the role away again")
    return parser


def _cluster(given: argparse.Namespace) -> None:
    data: Path = given.data.resolve()
    if given.command == "up":
        _up(data, given.brokers, secure=given.secure)
        return
    cluster = KafkaCluster.find(data)
    if given.command == "down":
        cluster.stop()
    elif given.command == "user":
        print(cluster.add_user(given.name))
    else:
        for place in cluster.places:
            state = "running" if cluster.is_running(place.node_id) else "stopped"
            print(f"broker {place.node_id} {place.address} {state} {place.directory}")


def _up(data: Path, brokers: int, *, secure: bool) -> None:
    if (data / "cluster.json").exists():
        cluster = KafkaCluster.find(data)
        if secure and not cluster.is_secure:
            raise ConfigError(f"{data} holds an open cluster: give another --data, or remove it")
    else:
        cluster = KafkaCluster.create(data, brokers, secure=secure)
    cluster.start()
    print(cluster.bootstrap)
    if cluster.is_secure:
        print(f"administrator: {settings_file(data, ADMINISTRATOR)}", file=sys.stderr)


def _acl(given: argparse.Namespace) -> None:
    """Prints a line a rule: `+` set, `=` set already, `-` taken away, with what it is about."""
    chain = read_chain(given.genesis)
    grants = grants_of(chain, given.role, given.signer)
    if given.dry_run:
        for grant in grants:
            print(f"  User:{given.user} {grant}")
        return
    flags = {"kafka.bootstrap": given.kafka} if given.kafka else {}
    config = load_config(given.config, os.environ, flags).kafka
    for mark, grant in (revoke if given.revoke else allow)(config, given.user, grants):
        print(f"{mark} User:{given.user} {grant}")


if __name__ == "__main__":
    sys.exit(main())
