"""Exceptions, each named for its recovery; the runtime handles them in one exhaustive `match`.

Rejections of transactions are receipt codes (`ledger.codes`), not exceptions. The errors of the original
architecture are the `ShardingError` family below, raised by the façade in `pipeline.system`.
"""


class HauptbuchError(Exception):
    """Root of all errors of this library; its message is one line that says what is wrong and what to do."""


class Retryable(HauptbuchError):
    """Nothing happened; make the same call again."""


class LogStalled(Retryable):
    """A transaction stays open and hides what stands behind it: the same call succeeds once an operator ends that."""


class TransactionAbortable(HauptbuchError):
    """The log transaction must be aborted: drop the batch and recycle the writer."""


class OutcomeUnknown(HauptbuchError):
    """A commit may or may not have happened: drop everything in memory, fence again and read the tail."""


class TaskFenced(HauptbuchError):
    """Another writer took over, or a sole owner stalled past the transaction timeout: probe for ownership."""


class TaskDiverged(HauptbuchError):
    """A disagreement that must never be repaired by deleting state: the shard halts until an operator acts."""


class PoisonRecord(HauptbuchError):
    """A record that can't be decoded: it becomes a dead letter."""


class ConfigError(HauptbuchError):
    """Configuration, key file, schema or command line that can't be used."""


class Fatal(HauptbuchError):
    """The process can't go on: disk full, corrupt store, unreadable log."""


class VerificationFailed(HauptbuchError):
    """A proof, signature, checkpoint or state root that does not hold."""


class ShardingError(HauptbuchError):
    """Root of the errors that the original sharding architecture names."""


class InvalidShardConfig(ShardingError):
    """The shard configuration can't be used."""


class InvalidTransaction(ShardingError):
    """The transaction is not well formed."""


class InvalidShard(ShardingError):
    """No such shard, or it does not serve."""


class InvalidCrossShardMessage(ShardingError):
    """A relay bundle that is not well formed or not for this shard."""


class InvalidTransactionResult(ShardingError):
    """A receipt that contradicts its transaction."""


class TransactionDoesNotBelongToShard(ShardingError):
    """The sender's slot is owned by another shard."""


class SecurityValidationFailed(ShardingError):
    """The signature, key or nonce does not hold."""


class ShardingLimitsExceeded(ShardingError):
    """A limit of genesis: size, entries, gas or number of shards."""


class ShardCreationFailed(ShardingError):
    """The shard was not created in time."""


class TransactionProcessingFailed(ShardingError):
    """No receipt in time; the transaction may still happen."""


class CrossShardCommunicationFailed(ShardingError):
    """Effects not settled in time; they may still settle."""


class StateSynchronizationFailed(ShardingError):
    """No signed state root in time."""


class ShardManagementFailed(ShardingError):
    """A shard task can't be driven."""


class ShardAllocationFailed(ShardingError):
    """A shard's store or partition can't be had."""


class LoadBalancingFailed(ShardingError):
    """The load of the shards can't be measured."""


class StateManagementFailed(ShardingError):
    """The state store can't be read or written."""
