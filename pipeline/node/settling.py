"""When a ledger is done with what was published to it.

Done: every published record has its receipt, every effect and the refunds it caused are executed, and a published round
covers those blocks. That is so as soon as no shard has an input left to read, no bundle is on its way and every shard's
head is signed. Where others publish without a pause, as they may on a cluster, such a moment may not come.
"""

from collections.abc import Callable, Sequence

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.errors import CrossShardCommunicationFailed, StateSynchronizationFailed, TransactionProcessingFailed
from pipeline.ledger.cursor import INPUT_TOPICS, ShardCursor
from pipeline.log.port import EventLog
from pipeline.node.running import RunningLedger, RunningShard
from pipeline.shards.life import TaskState
from pipeline.shards.signed_roots import SignedRoots
from pipeline.shards.task import ShardTask


def waiting_transactions(node: RunningLedger) -> int:
    """Published transaction records that no committed block has consumed."""
    return sum(
        node.log.end_offset(TopicPartition(Topic.TRANSACTIONS, task.shard)) - task.committed.positions[2]
        for task in node.tasks
    )


def settle(node: RunningLedger) -> None:
    """Drive the node until all inputs, effects and refunds are executed.

    Raises `CrossShardCommunicationFailed` where that takes longer than the setting; nothing is lost then.
    """
    seconds = node.config.system.cross_shard_communication_timeout_s
    if not node.run_until(lambda: _is_quiet(node), seconds * 1000):
        raise CrossShardCommunicationFailed(
            f"not settled within {seconds} s; it goes on at the next run, or raise "
            "system.cross_shard_communication_timeout_s"
        )


def finish(node: RunningLedger) -> None:
    """Drive the node until it is done. Raises as `settle`, and `StateSynchronizationFailed` where no root comes."""
    settle(node)
    seconds = node.config.system.state_synchronization_timeout_s
    roots = SignedRoots(node.chain, node.log, node.verifier)  # one, since it is asked after every step
    if not node.run_until(lambda: _is_signed(node, roots), seconds * 1000):
        raise StateSynchronizationFailed(
            f"no signed state root within {seconds} s; check this machine's clock, then run any command that starts "
            "the node"
        )


def drive_until(node: RunningLedger, condition: Callable[[], bool]) -> None:
    """Drive the node. Raises `TransactionProcessingFailed` where the condition is late; nothing is lost then."""
    seconds = node.config.system.transaction_processing_timeout_s
    if not node.run_until(condition, seconds * 1000):
        raise TransactionProcessingFailed(
            f"no receipts within {seconds} s; what was published is executed at the next run, or raise "
            "system.transaction_processing_timeout_s"
        )


def _is_quiet(node: RunningLedger) -> bool:
    cursors = [task.committed for task in node.tasks]  # of one moment, whatever other processes do meanwhile
    return (
        all(_leads(task) for task in node.tasks)
        and all(_has_nothing_to_read(node.log, cursor) for cursor in cursors)
        and all(_has_arrived(cursors, cursor) for cursor in cursors)
    )


def _leads(task: RunningShard) -> bool:
    """A shard that this process runs must have recovered; one that it follows leads elsewhere."""
    return not isinstance(task, ShardTask) or task.state is TaskState.LEADING


def _has_nothing_to_read(log: EventLog, cursor: ShardCursor) -> bool:
    for topic, position in zip(INPUT_TOPICS, cursor.positions, strict=True):
        source = cursor.source(topic)
        if log.read(source, position, 1, 1):
            return False
        log.end_offset(source)  # from here on a read hides nothing that was published before
        if log.read(source, position, 1, 1):
            return False
    return True


def _has_arrived(cursors: Sequence[ShardCursor], source: ShardCursor) -> bool:
    """Whether all that a shard sent is executed."""
    for destination, sent in source.channels_out.items():
        executed = cursors[destination].channels_in.get(source.shard)
        if executed is None or executed.sequence < sent.sequence:
            return False
    return True


def _is_signed(node: RunningLedger, roots: SignedRoots) -> bool:
    for task in node.tasks:
        root = roots.newest(task.shard)
        if root is None or root.height < task.committed.height:
            return False
    return True
