"""The processes of a ledger on a cluster, started from here: workers and a synchronizer, as an operator starts them."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pipeline.errors import Fatal
from pipeline.node.layout import NodeLayout

HAUPTBUCH: Final[Sequence[str]] = (sys.executable, "-m", "pipeline.cli.main")
WORKERS: Final = 2
"""Of a demo."""
_SYNCHRONIZER: Final = "synchronizer"
_STOP_S: Final = 20.0


class LedgerProcesses:
    """`hauptbuch worker` and `hauptbuch sync` beside a directory of `hauptbuch init --kafka`. Close it."""

    def __init__(
        self,
        layout: NodeLayout,
        bootstrap: str,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        command: Callable[[str], Sequence[str]] = lambda _name: HAUPTBUCH,
    ) -> None:
        """Nothing runs yet. Data directories, and a file with what each process says, go into `folder`.

        `settings`: variables for their environments. `command` gives what runs as `hauptbuch` in a process.
        """
        self._layout = layout
        self._bootstrap = bootstrap
        self._folder = folder
        self._settings = settings or {}
        self._command = command
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def pids(self) -> dict[str, int]:
        """Of what runs, by name."""
        return {name: process.pid for name, process in self._running.items()}

    def start_worker(self, name: str) -> None:
        """One more member of the group of workers."""
        self._start(name, "worker")

    def start_synchronizer(self) -> None:
        """With the ledger's only signer."""
        self._start(_SYNCHRONIZER, "sync", "--key", str(self._layout.key("attestor")))

    def check(self) -> None:
        """Raise `Fatal` with its last words where one has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                said = self._words(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise Fatal(f"{name} ended with code {process.returncode}: {said[-1] if said else 'it said nothing'}")

    def stop_workers(self) -> None:
        """End all workers: no more blocks are made."""
        self._stop([name for name in self._running if name != _SYNCHRONIZER])

    def close(self) -> None:
        """End them all. Idempotent."""
        self._stop(list(self._running))

    def _stop(self, names: list[str]) -> None:
        """Cleanly if they obey within a while."""
        ending = [self._running.pop(name) for name in names]
        for process in ending:
            process.terminate()
        for process in ending:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, name: str, command: str, *options: str) -> None:
        where = ("--kafka", self._bootstrap, "--genesis", str(self._layout.genesis))
        arguments = (*self._command(name), command, *where, "--data", str(self._folder / name), *options)
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._words(name).open("wb") as words:
            self._running[name] = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._settings},
            )

    def _words(self, name: str) -> Path:
        return self._folder / f"{name}.log"
