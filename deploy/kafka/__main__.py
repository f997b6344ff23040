"""`python -m deploy.kafka up|down|describe [--brokers 1|3] [--data FOLDER]`."""

import argparse
import sys
from pathlib import Path

from deploy.kafka.cluster import KafkaCluster
from pipeline.errors import HauptbuchError


def main() -> int:
    """Run one command; 2 where it could not."""
    parser = argparse.ArgumentParser(prog="python -m deploy.kafka", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "describe"))
    parser.add_argument("--brokers", type=int, default=1, help="1 or 3")
    parser.add_argument("--data", type=Path, default=Path("build/kafka"), help="data folder")
    arguments = parser.parse_args()
    try:
        return _run(arguments.command, arguments.data.resolve(), arguments.brokers)
    except HauptbuchError as error:
        print(error, file=sys.stderr)
        return 2


def _run(command: str, data: Path, brokers: int) -> int:
    if command == "up":
        cluster = KafkaCluster.find(data) if (data / "cluster.json").exists() else KafkaCluster.create(data, brokers)
        cluster.start()
        print(cluster.bootstrap)
        return 0
    cluster = KafkaCluster.find(data)
    if command == "down":
        cluster.stop()
        return 0
    for place in cluster.places:
        state = "running" if cluster.is_running(place.node_id) else "stopped"
        print(f"broker {place.node_id} {place.address} {state} {place.directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
