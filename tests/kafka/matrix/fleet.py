"""The processes of one ledger in the fault matrix: workers, synchronizer, attestors and clients, by name and life."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.ledger.chain import Chain
from pipeline.ledger.genesis import Genesis
from tests.kafka.processes import Ledger

CHECKOUT = Path(__file__).parents[3]
PLAIN = (sys.executable, "-m", "pipeline.cli.main")
ENTRY = (sys.executable, "-m", "tests.kafka.matrix.entry")
CLIENT = (sys.executable, "-m", "pipeline.testing.cluster.client")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SAMPLE_S = 1.0
_PATIENCE_S = 180.0


@dataclass
class Life:
    """One process of a slot; the next one of that slot has the same directory."""

    slot: str
    name: str
    command: str
    process: "subprocess.Popen[bytes]"
    data: Path
    started_s: float = field(default_factory=time.monotonic)
    rss: list[tuple[float, int]] = field(default_factory=list)
    """(age in seconds, resident bytes)."""

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None


class Fleet(Ledger):
    """All processes of one ledger. `said(name)` has what each life told its operator."""

    def __init__(self, root: Path, bootstrap: str, *, shards: int, attestors: int, threshold: int) -> None:
        root.mkdir(parents=True)
        super().__init__(root, bootstrap, shards=shards, attestors=attestors, threshold=threshold)
        self.shards = shards
        self.chain = Chain.of(Genesis.from_record((self.directory / "genesis.avro").read_bytes()))
        self.lives: dict[str, Life] = {}
        """Of each slot the newest."""
        self.past: list[Life] = []
        self._numbers: dict[str, int] = {}
        self._sampling = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def launch(
        self,
        slot: str,
        command: str,
        *options: object,
        bootstrap: str = "",
        program: Sequence[str] = PLAIN,
        wrap: Sequence[str] = (),
    ) -> Life:
        """Start the next life of a slot. `wrap`: a command that runs what follows it."""
        old = self.lives.get(slot)
        assert old is None or not old.is_alive, f"{slot} still runs"
        number = self._numbers[slot] = self._numbers.get(slot, 0) + 1
        name, data = f"{slot}.{number}", self.root / slot
        common = ("--kafka", bootstrap or self.bootstrap, "--genesis", self.directory / "genesis.avro", "--data", data)
        with self._errors(name).open("ab") as errors:
            process = subprocess.Popen(
                [*wrap, *program, command, *map(str, (*common, *options))],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                cwd=CHECKOUT,
            )
        life = self.lives[slot] = Life(slot, name, command, process, data)
        return life

    def worker(self, slot: str, *options: object, **how: object) -> Life:
        return self.launch(slot, "worker", *options, **how)  # type: ignore[arg-type]

    def synchronizer(self, slot: str = "sync", *options: object, **how: object) -> Life:
        """With the key where one suffices."""
        alone = self.chain.genesis.attestor_threshold == 1
        key = ("--key", self.key("attestor")) if alone else ()
        return self.launch(slot, "sync", *key, *options, **how)  # type: ignore[arg-type]

    def attestor(self, role: str, **how: object) -> Life:
        return self.launch(role, "attest", "--key", self.key(role), **how)  # type: ignore[arg-type]

    def key(self, role: str) -> Path:
        return self.directory / "keys" / f"{role}.json"

    @property
    def workers(self) -> list[Life]:
        """Those that run."""
        return [life for life in self.lives.values() if life.command == "worker" and life.is_alive]

    def kill(self, life: Life) -> None:
        """SIGKILL, and wait until it is gone."""
        life.process.kill()
        life.process.wait()

    def freeze(self, life: Life) -> None:
        life.process.send_signal(signal.SIGSTOP)

    def thaw(self, life: Life) -> None:
        life.process.send_signal(signal.SIGCONT)

    def end(self, life: Life) -> int:
        """SIGTERM; the exit code."""
        life.process.terminate()
        try:
            return life.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill(life)
            return -signal.SIGKILL

    def led(self, *lives: Life) -> set[int]:
        """Shards that these lead, by their last words."""
        return {shard for life in lives if life.is_alive for shard in self.leads(life.name)}

    def await_led(self, *lives: Life, seconds: float = _PATIENCE_S) -> float:
        """Seconds until these, or all workers, lead every shard."""
        return self.await_true(lambda: self.led(*(lives or self.workers)) == set(range(self.shards)), seconds)

    def await_word(self, life: Life, word: str, seconds: float = _PATIENCE_S) -> None:
        """Until it has said this."""
        self.await_true(lambda: word in self.said(life.name), seconds)

    def await_end(self, life: Life, seconds: float = _PATIENCE_S) -> int:
        """Its exit code, once it ended by itself."""
        self.await_true(lambda: not life.is_alive, seconds)
        assert life.process.returncode is not None
        return life.process.returncode

    def close(self) -> None:
        self._sampling.set()
        for life in self.lives.values():
            if life.is_alive:
                self.thaw(life)
                life.process.kill()
                life.process.wait()

    def _sample(self) -> None:
        while not self._sampling.wait(_SAMPLE_S):
            for life in list(self.lives.values()):
                try:
                    pages = int(Path(f"/proc/{life.process.pid}/statm").read_text().split()[1])
                except (OSError, IndexError):
                    continue
                if pages:
                    life.rss.append((time.monotonic() - life.started_s, pages * _PAGE_BYTES))


class ClientProcess:
    """A client, told what to do by its standard input."""

    def __init__(
        self, fleet: Fleet, role: str, number: int, seed: int, *options: object, program: Sequence[str] = CLIENT
    ) -> None:
        lives = len(list(fleet.root.glob(f"{role}-{number}.*.jsonl")))
        self.name = f"{role}-{number}.{lives + 1}"
        self.history = fleet.root / f"{self.name}.jsonl"
        self.history.touch()
        self._errors = fleet.root / f"{self.name}.err"
        arguments = (role, self.name, number, seed, "--kafka", fleet.bootstrap)
        files = ("--genesis", fleet.directory / "genesis.avro", "--history", self.history)
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [*program, *map(str, (*arguments, *files, *options))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=CHECKOUT,
            )

    def order(self, order: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{order}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise AssertionError(f"{self.name} is gone: {self.complaint}") from None

    def await_answer(self, answer: str, seconds: float = _PATIENCE_S) -> None:
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while True:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            line = self._process.stdout.readline().decode().strip() if ready else None
            assert line, f"{self.name} never said {answer!r}: {self.complaint or 'it still waits'}"
            if line == answer:
                return

    @property
    def complaint(self) -> str:
        return self._errors.read_text().strip()[-600:]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
