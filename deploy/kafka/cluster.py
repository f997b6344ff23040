"""Start, stop, kill and freeze a loopback cluster. Its state is a JSON file in the data folder, so that another
process can find and stop it; only processes that it started are ever signalled."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.kafka.certificates import issue
from deploy.kafka.distribution import class_path, java
from deploy.kafka.security import ADMINISTRATOR, add_user, secure_settings, settings_file
from deploy.kafka.settings import LOG4J, BrokerPlace, server_properties
from pipeline.errors import ConfigError, Fatal

_JVM: Final = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC")
_SHORT_LIVED: Final = "-XX:TieredStopAtLevel=1"
"""Of a broker that lives for a test: the better compiler pays off after a minute, and until then takes a core."""
_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 20.0


class KafkaCluster:
    """Brokers of one data folder."""

    def __init__(
        self, root: Path, places: list[BrokerPlace], cluster_id: str, pids: dict[int, int], lasting: bool
    ) -> None:
        """Use `create` or `find`."""
        self.root = root
        self.places = places
        self.cluster_id = cluster_id
        self._pids = pids
        self._lasting = lasting

    @classmethod
    def create(cls, root: Path, brokers: int, *, secure: bool = False, lasting: bool = False) -> "KafkaCluster":
        """Choose ports and format the folders; `secure`: as `security` says. `lasting`: for minutes, not seconds.

        Raises `ConfigError` if one is there.
        """
        if brokers not in (1, 3):
            raise ConfigError(f"{brokers} brokers: a cluster has 1 or 3")
        if (root / "cluster.json").exists():
            raise ConfigError(f"{root} holds a cluster already: stop and remove it first")
        each = 3 if secure else 2
        ports = _free_ports(each * brokers)
        places = [_place(root, [number + 1, *ports[each * number : each * (number + 1)]]) for number in range(brokers)]
        if secure:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            root.chmod(0o700)  # brokers' data hold what passwords can be guessed from
            issue(root, [place.node_id for place in places])
        cluster = cls(root, places, _cluster_id(), {}, lasting)
        for place in places:
            cluster._format(place)
        cluster._save()
        return cluster

    @classmethod
    def find(cls, root: Path) -> "KafkaCluster":
        """The cluster of a data folder. Raises `ConfigError` where there is none."""
        try:
            state = json.loads((root / "cluster.json").read_text(encoding="utf-8"))
            places = [_place(root, numbers) for numbers in state["brokers"]]
            return cls(
                root, places, state["cluster_id"], {int(n): pid for n, pid in state["pids"].items()}, state["lasting"]
            )
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(f"{root} holds no Kafka cluster: start one with `make kafka-up`") from None

    @property
    def bootstrap(self) -> str:
        """host:port of all brokers, for clients."""
        return ",".join(place.address for place in self.places)

    @property
    def is_secure(self) -> bool:
        """Whether clients need a user."""
        return any(place.internal_port for place in self.places)

    def start(self) -> None:
        """Start every broker that does not run and wait until they answer. Raises `Fatal`.

        A secured cluster gets its administrator the first time.
        """
        for place in self.places:
            if not self.is_running(place.node_id):
                self.start_broker(place.node_id)
        self.wait_ready()
        if self.is_secure and not settings_file(self.root, ADMINISTRATOR).exists():
            self.add_user(ADMINISTRATOR)

    def add_user(self, name: str) -> Path:
        """Give a user of a secured, running cluster a new password; the path of the settings file that holds it.

        Raises `ConfigError` where the cluster is open, or this can't be a name.
        """
        if not self.is_secure:
            raise ConfigError(f"{self.root} holds an open cluster, which knows no users: start one with --secure")
        return add_user(self.root, self.places, name)

    def start_broker(self, node_id: int) -> None:
        """Start one broker; does not wait."""
        place = self._place(node_id)
        with (place.directory / "stdout.log").open("ab") as output:
            process = subprocess.Popen(
                [*self._java(place), "kafka.Kafka", str(place.directory / "server.properties")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._pids[node_id] = process.pid
        self._save()

    def wait_ready(self, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Until every running broker accepts connections. Raises `Fatal` with the log's end."""
        deadline = time.monotonic() + timeout_s
        for place in self.places:
            while not _answers(place.port):
                if not self.is_running(place.node_id):
                    raise Fatal(f"broker {place.node_id} died while starting: {self._log_end(place)}")
                if time.monotonic() > deadline:
                    raise Fatal(f"broker {place.node_id} did not answer in {timeout_s:.0f} s: {self._log_end(place)}")
                time.sleep(0.1)

    def is_running(self, node_id: int) -> bool:
        """Whether the process that was started for this broker lives."""
        pid = self._pids.get(node_id)
        if pid is None:
            return False
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # a child that died must not linger as a zombie that looks alive
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            return False
        # The command line reads empty for an instant while the process replaces its image.
        return state != "Z" and (not command or str(self._place(node_id).directory).encode() in command)

    def signal_broker(self, node_id: int, number: signal.Signals) -> None:
        """SIGKILL kills, SIGSTOP freezes, SIGCONT thaws. Nothing to do where it does not run."""
        if self.is_running(node_id):
            os.kill(self._pids[node_id], number)

    def stop(self) -> None:
        """Stop all brokers, cleanly if they obey within a while."""
        for number in (signal.SIGCONT, signal.SIGTERM):
            for place in self.places:
                self.signal_broker(place.node_id, number)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for place in self.places:
            while self.is_running(place.node_id):
                if time.monotonic() > deadline:
                    self.signal_broker(place.node_id, signal.SIGKILL)
                time.sleep(0.05)
        self._pids.clear()
        self._save()

    def remove(self) -> None:
        """Stop, and delete the data folder."""
        self.stop()
        shutil.rmtree(self.root)

    def _format(self, place: BrokerPlace) -> None:
        place.directory.mkdir(parents=True)
        properties = place.directory / "server.properties"
        changes = secure_settings(self.root, place) if self.is_secure else {}
        properties.write_text(server_properties(place, self.places, changes), encoding="utf-8")
        (place.directory / "log4j2.properties").write_text(LOG4J, encoding="utf-8")
        command = [
            *self._java(place),
            "kafka.tools.StorageTool",
            "format",
            "-t",
            self.cluster_id,
            "-c",
            str(properties),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            raise Fatal(
                f"broker {place.node_id} can't be formatted: {done.stderr.strip()[-300:] or done.stdout[-300:]}"
            )

    def _java(self, place: BrokerPlace) -> list[str]:
        return [
            str(java()),
            *_JVM,
            *(() if self._lasting else (_SHORT_LIVED,)),
            f"-Dlog4j2.configurationFile={place.directory / 'log4j2.properties'}",
            f"-Dhauptbuch.log={place.directory / 'server.log'}",
            "-cp",
            class_path(),
        ]

    def _place(self, node_id: int) -> BrokerPlace:
        return next(place for place in self.places if place.node_id == node_id)

    def _save(self) -> None:
        brokers = [[place.node_id, place.port, place.controller_port, place.internal_port] for place in self.places]
        state = {"cluster_id": self.cluster_id, "brokers": brokers, "pids": self._pids, "lasting": self._lasting}
        temporary = self.root / "cluster.json.new"
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(self.root / "cluster.json")

    def _log_end(self, place: BrokerPlace) -> str:
        for name in ("stdout.log", "server.log"):
            with contextlib.suppress(OSError):
                text = (place.directory / name).read_text(encoding="utf-8", errors="replace").strip()
                if text:
                    return text.splitlines()[-1][-300:]
        return "its logs are empty"


def _place(root: Path, numbers: Sequence[int]) -> BrokerPlace:
    """Of its id and ports: for clients, controllers and, where the cluster is secured, brokers."""
    node_id, port, controller, *internal = numbers
    return BrokerPlace(node_id, port, controller, root / f"broker-{node_id}", *internal)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def _cluster_id() -> str:
    """A UUID in base64. Kafka's tools take one that begins with - for an option."""
    while (made := urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return made
