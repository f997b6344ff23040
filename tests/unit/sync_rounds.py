"""A chain that was busy for some rounds, and what holds of all that its signers left on the log."""

from sync_net import Net

from pipeline.ledger.checkpoints import (
    Checkpoint,
    checkpoint_hash,
)
from pipeline.log.embedded import EmbeddedLog
from pipeline.sync.synchronizer import Synchronizer

NAMES = [f"account-{number}" for number in range(8)]


def busy_net(rounds: int = 1, log: EmbeddedLog | None = None) -> Net:
    net = Net(shards=2, log=log)
    net.fund(dict.fromkeys(NAMES, 1000))
    net.run()
    for _ in range(rounds):
        more(net)
    return net


def more(net: Net, *others: object) -> None:
    for name in NAMES:
        net.pay(name, dict.fromkeys(NAMES, 1))
    net.run(*others)


def assert_sound(net: Net, sync: Synchronizer) -> None:
    """Rounds without a gap, each once and signed once, everything signed, state roots for all that advanced."""
    assert sync.error is None
    assert sync.follower is not None
    rounds = net.rounds()
    assert [checkpoint.round for checkpoint, _ in rounds] == list(range(len(rounds)))
    hashes = [checkpoint_hash(proposal.checkpoint) for _, proposal in rounds]
    assert [item.checkpoint_hash for item in net.signatures()] == hashes
    for shard, task in enumerate(net.tasks):
        assert task.error is None
        head = sync.follower.ledger.shards[shard].head
        assert (head.height, head.state_root) == (task.committed.height, net.stores[shard].state_root)
        advanced = [item.round for item, proposal in rounds if shard in dict(proposal.advanced)]
        assert [Checkpoint.from_bytes(item.checkpoint).round for item in net.state_roots(shard)] == advanced
