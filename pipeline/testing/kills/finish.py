"""Driving a node until nothing is left to do."""

from typing import Final

from pipeline.errors import Fatal
from pipeline.ledger.cursor import INPUT_TOPICS
from pipeline.node.node import Node
from pipeline.shards.life import TaskState
from pipeline.shards.signed_roots import SignedRoots
from pipeline.shards.task import ShardTask

PATIENCE_MS: Final = 60_000


def finish(node: Node, patience_ms: int = PATIENCE_MS) -> None:
    """Until every input and effect is executed and every block is under a signed root.

    Raises what halts the node, and `Fatal` where it takes longer.
    """
    roots = SignedRoots(node.chain, node.log, node.verifier)
    if not node.run_until(lambda: _is_done(node, roots), patience_ms):
        raise Fatal(f"not finished within {patience_ms} ms")


def _is_done(node: Node, roots: SignedRoots) -> bool:
    return all(_is_quiet(node, task) and _is_signed(roots, task) for task in node.tasks)


def _is_quiet(node: Node, task: ShardTask) -> bool:
    if task.state is not TaskState.LEADING:
        return False
    positions = zip(INPUT_TOPICS, task.committed.positions, strict=True)
    sources = [(task.committed.source(topic), position) for topic, position in positions]
    return not any(node.log.read(source, position, 1, 1) for source, position in sources)


def _is_signed(roots: SignedRoots, task: ShardTask) -> bool:
    root = roots.newest(task.shard)
    return root is not None and root.height >= task.committed.height
