"""How a node shares the memory for state out among its stores."""

from pathlib import Path

from pipeline.config import AssuranceName, Config, Durability
from pipeline.config.groups import StoreConfig, SyncConfig
from pipeline.ledger.control import CreateShard
from pipeline.log.port import Append, Topic, TopicPartition
from pipeline.node.node import Node
from pipeline.shards.manager import sign_control
from pipeline.testing.kills.ledger import make_chain, make_directory
from pipeline.testing.suite import TEST_SUITES


def test_created_shards_and_attesting_stores_share_the_budget(tmp_path: Path) -> None:
    make_directory(tmp_path / "ledger", shards=2)
    config = Config(
        store=StoreConfig(durability=Durability.PROCESS, cache_bytes=6 << 20),
        sync=SyncConfig(assurance=AssuranceName.EXECUTION),
    )
    node = Node.open(tmp_path / "ledger", suites=TEST_SUITES, config=config)
    try:
        assert [task.store.cache_bytes for task in node.tasks] == [3 << 20, 3 << 20]
        assert node.run_until(lambda: node.synchronizer.follower is not None and len(node.stores._states) == 4, 10_000)
        operator = make_chain(node.chain.genesis.created_ms, 2).keys["operator"]
        record = sign_control(node.chain, node.tasks[0].committed.control, CreateShard(2), [operator]).to_record()
        node.log.append([Append(TopicPartition(Topic.CONTROL, 0), None, record)])
        assert node.run_until(lambda: len(node.stores._states) == 6, 10_000)
        assert [store.cache_bytes for store in node.stores._states.values()] == [1 << 20] * 6
    finally:
        node.close()
