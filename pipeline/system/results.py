"""What the system answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.codec.types import ShardId, TxId
from pipeline.config import ShardingSystemConfig
from pipeline.ledger.checkpoints import StateRoot
from pipeline.ledger.receipts import TransactionReceipt
from pipeline.shards.communicator import CrossShardResult
from pipeline.shards.manager import ManagedShard
from pipeline.sync.facade import SyncReport


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """What became of a transaction: its receipt, the bundles that carried its effects, all executed by now, and the
    signed heads that cover it, by shard. A rejection is a result too: see `receipt.code`."""

    tx_id: TxId
    shard: ShardId
    offset: int
    receipt: TransactionReceipt
    messages: CrossShardResult
    state_roots: Mapping[ShardId, StateRoot]


@dataclass(frozen=True, slots=True)
class SystemMetrics:
    """Since this object was made. `timeouts`: how often each error was raised for lateness, by its name."""

    shards_created: int = 0
    transactions_processed: int = 0
    transactions_refused: int = 0
    cross_shard_messages: int = 0
    states_synchronized: int = 0
    cache_hits: int = 0
    timeouts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SystemState:
    """A snapshot."""

    active_shards: tuple[ManagedShard, ...]
    synchronization: SyncReport
    system_metrics: SystemMetrics
    system_configuration: ShardingSystemConfig
