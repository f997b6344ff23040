"""The faults of the matrix. Each case does its harm while the load runs; whoever plays it brings the ledger to rest
and judges it afterwards. A case that must halt something asserts what it says, and mends it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tests.kafka.matrix import broker_faults, signer_faults, store_faults, worker_faults
from tests.kafka.matrix.stage import Stage


class House(Enum):
    """On what a case is played."""

    PLAIN = "one broker"
    PROXIED = "one broker behind the proxy"
    QUORUM = "one broker, two of three attestors"
    THREE = "three brokers"


@dataclass(frozen=True)
class Case:
    """`weight`: how often it is chosen among those of its house. `retires`: the ledger is of no use after it."""

    name: str
    house: House
    play: Callable[[Stage], None]
    weight: int = 2
    retires: bool = False


CASES = [
    Case("worker killed", House.PLAIN, worker_faults.worker_killed, weight=16),
    Case("worker frozen past the transaction timeout", House.PLAIN, worker_faults.worker_frozen),
    Case("sole owner stalled", House.PLAIN, worker_faults.sole_owner_stalled),
    Case("zombie recycles", House.PLAIN, worker_faults.zombie_recycles),
    Case("impostor fences a shard's writer", House.PLAIN, worker_faults.impostor),
    Case("storm of workers", House.PLAIN, worker_faults.storm, weight=4),
    Case("clock jumps", House.PLAIN, worker_faults.clock_jumps),
    Case("store deleted", House.PLAIN, store_faults.store_deleted),
    Case("store old", House.PLAIN, store_faults.store_old),
    Case("store's disk full", House.PLAIN, store_faults.disk_full),
    Case("synchronizer killed", House.PLAIN, signer_faults.synchronizer_killed, weight=6),
    Case("two synchronizers", House.PLAIN, signer_faults.two_synchronizers),
    Case("stranger's open transaction", House.PLAIN, broker_faults.strangers_transaction),
    Case("broker stands still", House.PLAIN, broker_faults.broker_frozen),
    Case("log restored from an old backup", House.PLAIN, store_faults.log_restored_from_old_backup, weight=1),
    Case("topic made again", House.PLAIN, store_faults.topic_recreated, weight=1),
    Case("records deleted", House.PLAIN, store_faults.records_deleted, weight=1),
    Case("clock eight days ahead", House.PLAIN, worker_faults.clock_far_ahead, weight=1, retires=True),
    Case("connections delayed", House.PROXIED, broker_faults.connections_delayed),
    Case("connections cut", House.PROXIED, broker_faults.connections_cut),
    Case("connections half open", House.PROXIED, broker_faults.connections_half_open),
    Case("end of a transaction delayed", House.PROXIED, broker_faults.end_delayed, weight=3),
    Case("attestors lost and back", House.QUORUM, signer_faults.attestor_lost, weight=3),
    Case("worker killed, quorum", House.QUORUM, worker_faults.worker_killed, weight=2),
    Case("broker of three killed", House.THREE, broker_faults.broker_killed, weight=3),
    Case("broker of three out of one worker's reach", House.THREE, broker_faults.broker_out_of_reach),
    Case("rolling restart of three brokers", House.THREE, broker_faults.brokers_restarted),
    Case("worker killed, three brokers", House.THREE, worker_faults.worker_killed, weight=2),
]
