"""The state stores of one process: what they share."""

from pathlib import Path

import pytest

from pipeline.codec.types import ShardId
from pipeline.crypto.port import SuiteId
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import ConfigError
from pipeline.kv.port import KeyValue
from pipeline.kv.rocks import open_rocks
from pipeline.node.bootstrap import new_chain
from pipeline.node.node import Node
from pipeline.node.stores import Stores
from pipeline.testing.kills.ledger import make_directory
from pipeline.testing.suite import TEST_SUITES

MEMORY = 12 << 20


def test_open_state_stores_share_the_memory(tmp_path: Path) -> None:
    chain = new_chain(STANDARD_SUITES, "test", 3, 1, suite_id=SuiteId.ML_DSA_44, seed=b"s" * 32).chain
    stores = Stores(chain, MEMORY)
    stores.open(tmp_path / "sync")  # no state, so no part in it
    states = [stores.open_shard(tmp_path / str(number), ShardId(number)) for number in range(3)]
    assert [state.cache_bytes for state in states] == [MEMORY // 3] * 3
    stores.close_one(tmp_path / "1")
    stores.close_one(tmp_path / "sync")
    assert [states[0].cache_bytes, states[2].cache_bytes] == [MEMORY // 2] * 2
    assert stores.open_shard(tmp_path / "1", ShardId(1)).cache_bytes == MEMORY // 3
    stores.close()


def test_a_store_that_is_refused_is_not_left_open_and_takes_no_memory(tmp_path: Path) -> None:
    chain = new_chain(STANDARD_SUITES, "test", 3, 1, suite_id=SuiteId.ML_DSA_44, seed=b"s" * 32).chain
    stores = Stores(chain, MEMORY)
    state = stores.open_shard(tmp_path / "0", ShardId(0))
    state.commit(state.view().prepare({}), {})
    stores.close_one(tmp_path / "0")
    with pytest.raises(ConfigError, match="that of shard 0, not of 1"):
        stores.open_shard(tmp_path / "0", ShardId(1))
    assert stores.open_shard(tmp_path / "0", ShardId(0)).cache_bytes == MEMORY
    stores.close()


def test_a_node_whose_last_store_is_refused_leaves_nothing_open(tmp_path: Path) -> None:
    make_directory(tmp_path / "ledger", shards=2)
    opened: list[Path] = []

    def open_kv(path: Path) -> KeyValue:
        opened.append(path)
        if path.name == "sync":
            raise ConfigError("no room")
        return open_rocks(path)

    for _ in range(2):  # the second time nothing is held by the first
        with pytest.raises(ConfigError, match="no room"):
            Node.open(tmp_path / "ledger", suites=TEST_SUITES, open_kv=open_kv)
    assert [path.name for path in opened] == ["log", "0", "1", "sync"] * 2
    Node.open(tmp_path / "ledger", suites=TEST_SUITES).close()
