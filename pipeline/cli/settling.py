"""When a node that this process runs is done with what was published to it.

Done: every published record has its receipt, every effect and the refunds it caused are executed, and a published round
covers those blocks. The lock's holder is the only one who publishes here, so that is so as soon as no shard has an
input left to read and every shard's head is signed.
"""

from collections.abc import Callable

from pipeline.codec.topics import Topic, TopicPartition
from pipeline.errors import CrossShardCommunicationFailed, StateSynchronizationFailed, TransactionProcessingFailed
from pipeline.ledger.cursor import INPUT_TOPICS
from pipeline.node.node import Node
from pipeline.shards.life import TaskState
from pipeline.shards.recovery import last_signed_root
from pipeline.shards.task import ShardTask


def waiting_transactions(node: Node) -> int:
    """Published transaction records that no committed block has consumed."""
    return sum(
        node.log.end_offset(TopicPartition(Topic.TRANSACTIONS, task.shard)) - task.committed.positions[2]
        for task in node.tasks
    )


def settle(node: Node) -> None:
    """Drive the node until all inputs, effects and refunds are executed.

    Raises `CrossShardCommunicationFailed` where that takes longer than the setting; nothing is lost then.
    """
    seconds = node.config.system.cross_shard_communication_timeout_s
    if not node.run_until(lambda: _is_quiet(node), seconds * 1000):
        raise CrossShardCommunicationFailed(
            f"not settled within {seconds} s; it goes on at the next run, or raise "
            "system.cross_shard_communication_timeout_s"
        )


def finish(node: Node) -> None:
    """Drive the node until it is done. Raises as `settle`, and `StateSynchronizationFailed` where no root comes."""
    settle(node)
    seconds = node.config.system.state_synchronization_timeout_s
    if not node.run_until(lambda: _is_signed(node), seconds * 1000):
        raise StateSynchronizationFailed(
            f"no signed state root within {seconds} s; check this machine's clock, then run any command that starts "
            "the node"
        )


def drive_until(node: Node, condition: Callable[[], bool]) -> None:
    """Drive the node. Raises `TransactionProcessingFailed` where the condition is late; nothing is lost then."""
    seconds = node.config.system.transaction_processing_timeout_s
    if not node.run_until(condition, seconds * 1000):
        raise TransactionProcessingFailed(
            f"no receipts within {seconds} s; what was published is executed at the next run, or raise "
            "system.transaction_processing_timeout_s"
        )


def _is_quiet(node: Node) -> bool:
    return all(_has_nothing_to_read(node, task) for task in node.tasks)


def _has_nothing_to_read(node: Node, task: ShardTask) -> bool:
    if task.state is not TaskState.LEADING:
        return False
    cursor = task.committed
    return not any(
        node.log.read(cursor.source(topic), position, 1, 1)
        for topic, position in zip(INPUT_TOPICS, cursor.positions, strict=True)
    )


def _is_signed(node: Node) -> bool:
    for task in node.tasks:
        root = last_signed_root(node.log, task.shard)
        if root is None or root.height < task.committed.height:
            return False
    return True
