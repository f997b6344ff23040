"""The façade over a real node: ML-DSA, RocksDB, a directory, and a restart."""

from pathlib import Path

import pytest

from pipeline.codec.types import ShardId
from pipeline.crypto import contexts
from pipeline.crypto.addresses import address_of
from pipeline.crypto.port import PrivateKey, SuiteId
from pipeline.crypto.suites import STANDARD_SUITES
from pipeline.errors import SecurityValidationFailed, ShardingLimitsExceeded
from pipeline.ledger.codes import Code
from pipeline.ledger.packing import pack_transfers
from pipeline.ledger.transactions import (
    CreateAsset,
    Mint,
    Operation,
    SignedTransaction,
    TransactionBody,
    Transfer,
    asset_id_of,
)
from pipeline.node.bootstrap import NewChain, derive_seed, new_chain
from pipeline.node.init import create_directory
from pipeline.node.node import Node, wall_clock_ms
from pipeline.shards.manager import NewShard
from pipeline.system import ShardingSystem, TransactionResult

SEED = bytes(32)


def sign(new: NewChain, key: PrivateKey, nonce: int, *operations: Operation) -> SignedTransaction:
    sender = address_of(key.suite_id, key.public_key)
    body = TransactionBody(new.chain.chain_id, sender, nonce, operations).to_bytes()
    return SignedTransaction(body, key.suite_id, key.public_key, key.sign(body, contexts.TRANSACTION))


def holder_on(new: NewChain, shard: int) -> PrivateKey:
    suite = STANDARD_SUITES.require(SuiteId.ML_DSA_44)
    keys = (suite.generate(derive_seed(SEED, f"holder {number}")) for number in range(1000))
    owner_of = new.chain.shard_map.owner_of
    return next(key for key in keys if owner_of(address_of(key.suite_id, key.public_key)) == shard)


def test_payments_a_new_shard_and_a_restart(tmp_path: Path) -> None:
    new = new_chain(STANDARD_SUITES, "façade", 2, wall_clock_ms(), partitions=3, seed=SEED)
    create_directory(tmp_path / "ledger", new, "", STANDARD_SUITES, lambda layout, chain: None)
    treasury, here, there = new.keys["treasury"], holder_on(new, 0), holder_on(new, 1)
    unit = asset_id_of(new.chain.genesis.treasury, b"UNIT")
    to = address_of(there.suite_id, there.public_key)
    mint = Mint(unit, pack_transfers([(address_of(here.suite_id, here.public_key), 100)]))
    payments = [sign(new, here, nonce, Transfer(unit, pack_transfers([(to, 1)]))) for nonce in range(30)]

    node = Node.open(tmp_path / "ledger")
    try:
        system = ShardingSystem(node, node.config.system)
        system.start()
        assert system.process_transaction(sign(new, treasury, 0, CreateAsset(b"UNIT"), mint)).receipt.code is Code.OK
        results = system.parallel_process_transactions(payments)
        assert all(isinstance(result, TransactionResult) and result.receipt.code is Code.OK for result in results)
        created = system.create_shard(NewShard((new.keys["operator"],)))
        assert created.shard == 2
        report = system.shard_manager.load_balancer.measure()
        assert sum(load.transactions for load in report.shards) == 31
        assert system.cross_shard_communicator.report().in_flight == 0
    finally:
        node.close()

    node = Node.open(tmp_path / "ledger")
    try:
        again = ShardingSystem(node, node.config.system)
        again.start()
        with pytest.raises(SecurityValidationFailed, match="nonce was used"):
            again.process_transaction(payments[3])
        result = again.process_transaction(sign(new, here, 30, Transfer(unit, pack_transfers([(to, 70)]))))
        assert result.receipt.code is Code.OK
        assert set(result.state_roots) == {ShardId(0), ShardId(1)}
        assert len(again.system_state.active_shards) == 3
        with pytest.raises(ShardingLimitsExceeded):
            again.create_shard(NewShard((new.keys["operator"],)))
    finally:
        node.close()
