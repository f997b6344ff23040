"""`python -m benchmarks.takeover`: a worker is killed under a large state.

Two workers share the shards of a ledger whose accounts were minted in bulk. The owner of a shard is killed, and the
clock runs until a transaction that was published after that has its receipt.
"""

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from benchmarks.kafka_bed import broker
from pipeline.client.producer import Sender, TransactionFuture, TransactionProducer
from pipeline.client.receipts import ReceiptWatcher, ends_of
from pipeline.codec.types import Address
from pipeline.config import Config, KafkaConfig
from pipeline.crypto.keystore import load_key
from pipeline.crypto.port import SuiteId
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.ledger.packing import pack_transfers
from pipeline.ledger.transactions import CreateAsset, Mint, Transfer, asset_id_of
from pipeline.log.kafka.group import SESSION_TIMEOUT_MS
from pipeline.node.layout import NodeLayout
from pipeline.node.places import chain_log

SHARDS = 2
_MINT_ENTRIES = 10_000
_AHEAD = 8
_PATIENCE_S = 1_200.0
_PROBE_S = 0.1
_BURST = 200
_BUSY_S = 0.1
"""From publishing to the kill: blocks are being executed and committed."""


class Takeover(NamedTuple):
    """Seconds from the kill until the heir led every shard of the dead one, and until each answered again."""

    leading_s: float
    served_s: float
    shards: int


class Workers:
    """A ledger with two worker processes, `one` and `two`."""

    def __init__(self, bootstrap: str, root: Path, copies: int = 1) -> None:
        self.root = root
        self.layout = NodeLayout(root / "ledger")
        self._environment = {**os.environ, "HAUPTBUCH_SHARD__STANDBY_COPIES": str(copies)}
        self._bootstrap = bootstrap
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}
        command = ("init", self.layout.root, "--shards", SHARDS, "--partitions", SHARDS, "--kafka", bootstrap)
        subprocess.run(self._command(*command), check=True, stdout=subprocess.DEVNULL)
        self.chain = self.layout.chain()

    def start(self, name: str) -> None:
        """One more worker."""
        port = self._ports[name] = _free_port()
        common = ("--kafka", self._bootstrap, "--genesis", self.layout.genesis, "--data", self.root / name)
        command = ("worker", *common, "--http", f"127.0.0.1:{port}")
        with (self.root / f"{name}.err").open("ab") as errors:
            self._processes[name] = subprocess.Popen(self._command(*command), stderr=errors, env=self._environment)

    def kill(self, name: str) -> float:
        """kill -9; when that was."""
        process = self._processes.pop(name)
        process.kill()
        at = time.monotonic()
        process.wait()
        with (self.root / f"{name}.err").open("a") as errors:
            errors.write("killed\n")
        return at

    def last_words(self, name: str) -> dict[int, str]:
        """What a worker said last of each shard, since it was started."""
        path = self.root / f"{name}.err"
        said = path.read_text().rpartition("killed\n")[2] if path.exists() else ""
        return {int(found[1]): found[2] for found in re.finditer(r"\bshard (\d+): ([^\n]*)", said)}

    def leads(self, name: str) -> set[int]:
        """Shards that it leads."""
        return {shard for shard, said in self.last_words(name).items() if said.startswith("leading")}

    def has_copies(self, name: str, of: str) -> bool:
        """Whether a worker's copies hold all blocks of the shards that another one leads."""
        heights = self.heights(of, "shard")
        return bool(heights) and heights.items() <= self.heights(name, "standby").items()

    def heights(self, name: str, what: str) -> dict[str, str]:
        """Height of each shard that it leads (`shard`) or copies (`standby`)."""
        with urlopen(f"http://127.0.0.1:{self._ports[name]}/metrics", timeout=30) as answer:
            return dict(re.findall(rf'^hauptbuch_{what}_height{{shard="(\d+)"}} (\S+)', answer.read().decode(), re.M))

    def await_true(self, condition: Callable[[], bool], seconds: float = _PATIENCE_S) -> None:
        """Look again and again."""
        deadline = time.monotonic() + seconds
        while not condition():
            for name, process in self._processes.items():
                assert process.poll() is None, f"worker {name} ended: {self.last_words(name)}"
            assert time.monotonic() < deadline, {name: self.last_words(name) for name in self._processes}
            time.sleep(0.02)

    def close(self) -> None:
        """End what still runs."""
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "pipeline.cli.main", *map(str, arguments)]


class Client:
    """Publishes as the treasury, and as one account on each shard."""

    def __init__(self, workers: Workers, bootstrap: str) -> None:
        self.chain = workers.chain
        self._context = chain_log(self.chain, Config(kafka=KafkaConfig(bootstrap=bootstrap)))
        self.log = self._context.__enter__()
        self._watcher = ReceiptWatcher(self.log, self.chain.chain_id, range(SHARDS), ends_of(self.log, range(SHARDS)))
        self._producer = TransactionProducer(self.log, self.chain, self._watcher)
        self.senders = self._senders()
        self._asset = asset_id_of(self.chain.genesis.treasury, b"UNIT")
        self._treasury = Sender(load_key(workers.layout.key("treasury"), "", STANDARD_SUITES))

    def fund(self, accounts: int) -> None:
        """So many accounts, of the senders and of random addresses, minted in bulk."""
        wanted = [sender.address for sender in self.senders.values()]
        wanted += [Address(os.urandom(32)) for _ in range(accounts - len(wanted))]
        futures = [self._producer.send(self._treasury, CreateAsset(b"UNIT"))]
        for start in range(0, len(wanted), _MINT_ENTRIES):
            entries = [(address, 1_000_000) for address in wanted[start : start + _MINT_ENTRIES]]
            futures.append(self._producer.send(self._treasury, Mint(self._asset, pack_transfers(entries))))
            self._settle(futures[:-_AHEAD])
        self._settle(futures)

    def answer(self, shards: set[int]) -> None:
        """Return when each of these shards has answered a transaction that was published after this was called."""
        futures: dict[int, list[TransactionFuture]] = {}
        deadline, next_s = time.monotonic() + _PATIENCE_S, 0.0
        while shards - {shard for shard, waiting in futures.items() if any(one.result() for one in waiting)}:
            now = time.monotonic()
            assert now < deadline, "no answer"
            if now >= next_s:
                next_s = now + _PROBE_S
                for shard in shards:
                    payment = Transfer(self._asset, pack_transfers([(self.chain.genesis.treasury, 1)]))
                    futures.setdefault(shard, []).append(self._producer.send(self.senders[shard], payment))
            self.log.wait(5)
            self._watcher.poll()

    def burst(self, shards: set[int], count: int) -> None:
        """Publish so many payments to each shard, and await nothing."""
        for shard in shards:
            sender = self.senders[shard]
            payment = Transfer(self._asset, pack_transfers([(self.chain.genesis.treasury, 1)]))
            batch = [self._producer.build(sender, [payment]) for _ in range(count)]
            self._producer.publish(self._producer.sign(batch))

    def close(self) -> None:
        """Nothing more is published."""
        self._context.__exit__(None, None, None)

    def _settle(self, futures: list[TransactionFuture]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not self._producer.all_settled(futures):
            assert time.monotonic() < deadline, "the accounts were not made in time"
            self.log.wait(20)

    def _senders(self) -> dict[int, Sender]:
        found: dict[int, Sender] = {}
        while len(found) < SHARDS:
            sender = Sender(STANDARD_SUITES.require(SuiteId.ML_DSA_44).generate(None))
            found.setdefault(self.chain.shard_map.owner_of(sender.address), sender)
        return found


@contextmanager
def funded(bootstrap: str, root: Path, accounts: int, copies: int = 1) -> Iterator[tuple[Workers, Client]]:
    """Two workers, each the owner of a shard, over so many accounts."""
    workers = Workers(bootstrap, root, copies)
    client = Client(workers, bootstrap)
    try:
        workers.start("one")
        workers.start("two")
        workers.await_true(lambda: len(workers.leads("one")) == len(workers.leads("two")) == SHARDS // 2)
        client.fund(accounts)
        yield workers, client
    finally:
        client.close()
        workers.close()


def take_over(workers: Workers, client: Client, dead: str, heir: str) -> Takeover:
    """Kill one worker while it is busy, and wait for the other."""
    shards = workers.leads(dead)
    client.burst(shards, _BURST)
    time.sleep(_BUSY_S)
    killed = workers.kill(dead)
    client.answer(shards)
    served = time.monotonic() - killed
    workers.await_true(lambda: shards <= workers.leads(heir))
    leading = min(served, time.monotonic() - killed)
    return Takeover(leading, served, len(shards))


def _round(workers: Workers, client: Client, dead: str, heir: str, *, warm: bool) -> None:
    if warm:
        workers.await_true(lambda: workers.has_copies(heir, dead))
    found = take_over(workers, client, dead, heir)
    over = found.served_s - SESSION_TIMEOUT_MS / 1000
    print(f"killed {dead}: {found.shards} shards answer after {found.served_s:.2f} s", end=", ")
    print(f"{over:+.2f} s of the session timeout", flush=True)
    began = time.monotonic()
    workers.start(dead)
    workers.await_true(lambda: bool(workers.leads(dead)))
    print(f"{dead} came back and leads after {time.monotonic() - began:.1f} s", flush=True)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def main() -> int:
    """Print a line a takeover."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.takeover", description=__doc__)
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--copies", type=int, default=1, help="warm copies of each shard")
    parser.add_argument("--rounds", type=int, default=3, help="how many kills")
    parser.add_argument("--kafka", default="", help="bootstrap; else a broker is started here")
    given = parser.parse_args()
    with broker(given.kafka) as bootstrap, tempfile.TemporaryDirectory(prefix="hauptbuch-takeover-") as folder:
        started = time.monotonic()
        with funded(bootstrap, Path(folder), given.accounts, given.copies) as (workers, client):
            print(f"{given.accounts} accounts on {SHARDS} shards after {time.monotonic() - started:.0f} s", flush=True)
            for number in range(given.rounds):
                dead, heir = ("one", "two") if number % 2 == 0 else ("two", "one")
                _round(workers, client, dead, heir, warm=given.copies > 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
