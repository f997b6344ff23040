"""A ledger on a cluster, each of its parts a process of its own."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HAUPTBUCH = (sys.executable, "-m", "pipeline.cli.main")


class Ledger:
    """Directory `root / "ledger"`, processes beside it. Close it to end what still runs."""

    def __init__(self, root: Path, bootstrap: str, *, shards: int, attestors: int = 1, threshold: int = 1) -> None:
        self.root = root
        self.directory = root / "ledger"
        self.bootstrap = bootstrap
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        signers = ("--attestors", attestors, "--threshold", threshold)
        self.run("init", self.directory, "--shards", shards, "--partitions", shards, "--kafka", bootstrap, *signers)

    def run(self, *arguments: object, code: int = 0, timeout_s: float = 120) -> str:
        """Run one command to its end; what it printed."""
        command = [*HAUPTBUCH, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.said()}"
        return done.stdout if code == 0 else done.stderr

    def start(self, name: str, command: str, *options: object) -> subprocess.Popen[bytes]:
        """Start a process with a data directory of this name."""
        genesis, data = self.directory / "genesis.avro", self.root / name
        common = ("--kafka", self.bootstrap, "--genesis", genesis, "--data", data)
        with self._errors(name).open("ab") as errors:
            process = subprocess.Popen([*HAUPTBUCH, command, *map(str, (*common, *options))], stderr=errors)
        self._processes[name] = process
        return process

    def start_attestor(self, role: str) -> None:
        self.start(role, "attest", "--key", self.directory / "keys" / f"{role}.json")

    def stop(self, name: str) -> int:
        """SIGTERM; the exit code."""
        process = self._processes.pop(name)
        process.terminate()
        return process.wait(30)

    def said(self, name: str = "*") -> str:
        """What a process told its operator."""
        return "\n".join(path.read_text() for path in sorted(self.root.glob(f"{name}.err")))

    def leads(self, name: str) -> set[int]:
        """Shards whose last word from this process is that it leads them."""
        last: dict[int, str] = {}
        for text in self.said(name).splitlines():
            if (found := re.search(r"\bshard (\d+): (\w+)", text)) and found[2] != "standby":
                last[int(found[1])] = found[2]
        return {shard for shard, state in last.items() if state == "leading"}

    def await_true(self, condition: Callable[[], bool], seconds: float) -> float:
        """Seconds until the condition held."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < seconds, self.said()
            time.sleep(0.02)
        return time.monotonic() - started

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _errors(self, name: str) -> Path:
        return self.root / f"{name}.err"
