"""The demo's ledger on a Kafka cluster: workers and a synchronizer as processes, this one their client and no more."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final

from pipeline.cli.demo.processes import WORKERS, LedgerProcesses
from pipeline.cli.surroundings import settings
from pipeline.ledger.chain import Chain
from pipeline.log.port import EventLog
from pipeline.node.layout import NodeLayout
from pipeline.node.places import kafka_log
from pipeline.shards.block_reader import BlockReader

_BLOCKS: Final = 256
_WAIT_MS: Final = 20


class ClusterNode:
    """`DemoNode` over the processes of a directory that `hauptbuch init --kafka` made."""

    def __init__(self, root: Path) -> None:
        """Start them; what they keep and say goes to `root/processes`. Raises `ConfigError`."""
        self.layout = NodeLayout(root)
        self.chain: Chain = self.layout.chain()
        config = settings(self.layout)
        self.log: EventLog = kafka_log(self.chain, config)
        self._processes = LedgerProcesses(self.layout, config.kafka.bootstrap, root / "processes")
        shards = range(self.chain.genesis.shards)
        self._blocks = [BlockReader(self.log, shard, 0, self.chain.chain_id) for shard in shards]
        self._heights = [-1 for _ in shards]
        try:
            for number in range(WORKERS):
                self._processes.start_worker(f"worker-{number + 1}")
            self._processes.start_synchronizer()
        except BaseException:
            self.close()
            raise

    def step(self) -> bool:
        """As the protocol: the processes go on by themselves."""
        self._processes.check()
        return False

    def run_until(self, condition: Callable[[], bool], timeout_ms: int) -> bool:
        """As the protocol."""
        deadline = monotonic() + timeout_ms / 1000
        while not condition():
            self._processes.check()
            if monotonic() > deadline:
                return condition()
            self.log.wait(_WAIT_MS)
        return True

    def heights(self) -> list[int]:
        """As the protocol: as far as this client has read."""
        for shard, reader in enumerate(self._blocks):
            while blocks := reader.read(_BLOCKS):
                self._heights[shard] = blocks[-1].header.height
        return list(self._heights)

    def rest(self) -> None:
        """As the protocol: workers end, the synchronizer goes on."""
        self._processes.stop_workers()

    def close(self) -> None:
        """As the protocol."""
        self._processes.close()
        self.log.close()
