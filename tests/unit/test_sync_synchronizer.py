"""The one-signer synchronizer against real shard tasks."""

from sync_net import Net

from pipeline.ledger.checkpoints import heads_root
from pipeline.sync.round_task import SyncState


def test_rounds_cover_all_blocks() -> None:
    net = Net(shards=3)
    sync = net.synchronizer()
    net.fund({"alice": 1000, "bob": 1000, "carol": 5})
    net.run(sync)
    for step in range(5):
        net.pay("alice", {"bob": 1 + step, "carol": 2})
        net.pay("bob", {"alice": 3})
        net.run(sync)
    assert sync.error is None, sync.error
    assert sync.state is SyncState.RUNNING
    ledger = sync.follower.ledger
    for task in net.tasks:
        assert task.error is None, task.error
        assert ledger.shards[task.shard].head.height == task.committed.height
        assert ledger.shards[task.shard].head.state_root == net.stores[task.shard].state_root
    rounds = net.rounds()
    assert [checkpoint.round for checkpoint, _ in rounds] == list(range(len(rounds)))
    assert heads_root(ledger.heads) == rounds[-1][0].heads_root
