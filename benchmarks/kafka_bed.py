"""A ledger on a real broker with its worker and synchronizer processes, accounts with funds, and one who watches."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from sys import executable
from time import perf_counter

from benchmarks.bed import SEED, SUITE
from deploy.kafka.cluster import KafkaCluster
from pipeline.cli import init_command
from pipeline.cli.demo.processes import HAUPTBUCH, LedgerProcesses
from pipeline.cli.demo.tracker import Observed, Tracker
from pipeline.client.light import LightClient
from pipeline.client.producer import Sender, Signed, TransactionProducer, Unsigned
from pipeline.client.receipts import ReceiptWatcher
from pipeline.client.trust import load_trust
from pipeline.config import KafkaConfig
from pipeline.crypto.keystore import load_key
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.crypto.verifier import InlineVerifier
from pipeline.ledger.chain import Chain
from pipeline.ledger.packing import pack_transfers
from pipeline.ledger.transactions import CreateAsset, Mint, Transfer, asset_id_of
from pipeline.log.kafka import KafkaLog
from pipeline.node.bootstrap import derive_seed
from pipeline.node.layout import NodeLayout
from pipeline.node.places import topic_prefix

_MINT_ENTRIES = 5_000
_PUBLISH_TOGETHER = 500
_PATIENCE_S = 300.0


@contextmanager
def broker(given: str = "") -> Iterator[str]:
    """The address of one broker: the given one, else one that is started here and ended."""
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="hauptbuch-kafka-") as folder:
        cluster = KafkaCluster.create(Path(folder) / "cluster", 1, lasting=True)
        try:
            cluster.start()
            yield cluster.bootstrap
        finally:
            cluster.stop()


class Bed:
    """A new ledger whose processes run."""

    def __init__(self, bootstrap: str, root: Path, shards: int, workers: int, *, timed: bool) -> None:
        """`timed`: the processes note what their parts take (`timings`)."""
        self.layout = NodeLayout(root / "ledger")
        self.chain: Chain = init_command.create(
            self.layout.root, shards, "benchmark", partitions=shards, kafka=bootstrap
        )
        self._bootstrap = bootstrap
        self._root = root
        self._senders: dict[str, Sender] = {}
        self.processes = LedgerProcesses(
            self.layout,
            bootstrap,
            root / "processes",
            settings={"HAUPTBUCH_SHARD__STANDBY_COPIES": "0"},  # else each worker executes all blocks of all others
            command=self._timed if timed else lambda _name: HAUPTBUCH,
        )
        self.log = self.open_log()
        self.watcher = ReceiptWatcher(self.log, self.chain.chain_id, range(shards))
        self.producer = TransactionProducer(self.log, self.chain, self.watcher)
        client = LightClient(load_trust(self.layout.trust), InlineVerifier(STANDARD_SUITES))
        self.tracker = Tracker(self.log, self.chain, self.watcher, client)
        self.asset = asset_id_of(self.chain.genesis.treasury, b"UNIT")
        for number in range(workers):
            self.processes.start_worker(f"worker-{number + 1}")
        self.processes.start_synchronizer()

    def open_log(self) -> KafkaLog:
        """One more client of the ledger's topics."""
        limit = self.chain.genesis.limits.message_bytes
        return KafkaLog(KafkaConfig(bootstrap=self._bootstrap), topic_prefix(self.chain), max_message_bytes=limit)

    def sender(self, name: str) -> Sender:
        """An account with a key from a seed."""
        if name not in self._senders:
            self._senders[name] = Sender(STANDARD_SUITES[SUITE].generate(derive_seed(SEED, name)))
        return self._senders[name]

    def holds_key(self, name: str) -> bool:
        """Whether `sender` made an account of this name."""
        return name in self._senders

    def fund(self, funds: dict[str, int]) -> None:
        """Give these names their balances, and wait until that is under a signed root."""
        treasury = Sender(load_key(self.layout.key("treasury"), "", STANDARD_SUITES))
        entries = [(self.sender(name).address, amount) for name, amount in funds.items()]
        unsigned = [self.producer.build(treasury, [CreateAsset(b"UNIT")])]
        for start in range(0, len(entries), _MINT_ENTRIES):
            mint = Mint(self.asset, pack_transfers(entries[start : start + _MINT_ENTRIES]))
            unsigned.append(self.producer.build(treasury, [mint]))
        self.play(self.producer.sign(unsigned))

    def pay(self, name: str, entries: Sequence[tuple[bytes, int]]) -> Unsigned:
        """An unsigned payment of `name`."""
        transfer = Transfer(self.asset, pack_transfers(entries))  # type: ignore[arg-type] # addresses
        return self.producer.build(self.sender(name), [transfer])

    def play(self, signed: Sequence[Signed]) -> tuple[float, float]:
        """Publish all as fast as it goes: seconds until every receipt is there, and until all is settled and signed."""
        observed = self.tracker.begin()
        started = perf_counter()
        for start in range(0, len(signed), _PUBLISH_TOGETHER):
            part = signed[start : start + _PUBLISH_TOGETHER]
            now_s = perf_counter()
            self.tracker.published(self.producer.publish(part), [now_s] * len(part))
            self.tracker.poll(perf_counter())
        received_s = 0.0

        def is_done() -> bool:
            nonlocal received_s
            if not received_s and len(observed.receipt_s) == len(signed):
                received_s = perf_counter() - started
            return self.tracker.is_done()

        self.watch(is_done, observed)
        return received_s, perf_counter() - started

    def watch(self, is_done: Callable[[], bool], observed: Observed) -> None:
        """Observe until then. Fails where a process ends, a payment is rejected, or nothing comes of it."""
        deadline = perf_counter() + _PATIENCE_S
        while True:
            self.tracker.poll(perf_counter())
            if is_done():
                break
            self.processes.check()
            assert perf_counter() < deadline, "the benchmark's ledger did not come to rest"
            self.log.wait(20)
        assert not observed.rejected, "payments were rejected, though their payers were funded"

    def timings(self) -> dict[str, Path]:
        """By process, the file that it wrote when it ended."""
        return {path.stem: path for path in sorted(self._root.glob("*.json"))}

    def close(self) -> None:
        """End the processes. Idempotent."""
        self.processes.close()
        self.log.close()

    def _timed(self, name: str) -> Sequence[str]:
        return (executable, "-m", "benchmarks.timed", str(self._root / f"{name}.json"))


@contextmanager
def bed(bootstrap: str, shards: int, workers: int = 1, *, timed: bool = False) -> Iterator[Bed]:
    """A new ledger; its processes end with it."""
    with tempfile.TemporaryDirectory(prefix="hauptbuch-bench-") as folder:
        made = Bed(bootstrap, Path(folder), shards, workers, timed=timed)
        try:
            yield made
        finally:
            made.close()
