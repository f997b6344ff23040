"""A delayed end shows only a part of a round; its proposer is restarted, or replaced with nothing on its disk."""

from collections.abc import Callable, Sequence

import pytest
from shard_net import ShardNet

from pipeline.kv.memory import MemoryKeyValue
from pipeline.log.port import Append
from pipeline.shards.progress import Progress
from pipeline.shards.signed_roots import SignedRoots
from pipeline.sync.life import SyncState
from pipeline.testing.faulty_log import CommitFault, Failing

Part = Callable[[Sequence[Append]], Sequence[Append]]
PARTS: dict[str, Part] = {
    "proposal": lambda appends: appends[:1],
    "proposal and signature": lambda appends: appends[:2],
    "all but the last state root": lambda appends: appends[:-1],
    "all but the signature": lambda appends: [*appends[:1], *appends[2:]],
    "one state root": lambda appends: [*appends[:2], *appends[3:4]],
    "everything": lambda appends: appends,
}


@pytest.mark.parametrize("lost", [False, True], ids=["restarted", "replaced"])
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
@pytest.mark.parametrize("place", range(3))
def test_a_part_of_a_round_is_finished(place: int, part: Part, lost: bool) -> None:
    net = ShardNet(3, [None] * place + [Failing(CommitFault.PREFIX, part=part)], writers="-signer")
    disk = MemoryKeyValue()
    sync = net.synchronizer(disk)
    net.fund(dict.fromkeys(net.names(), 1000))
    for _ in range(2_000):
        net.now_ms += 1
        answers = [driven.step(net.now_ms) for driven in (*net.tasks, sync)]
        if not net.faults:
            break
        if not any(isinstance(answer, Progress) for answer in answers):
            net.pay_all(1)
    assert net.faults == []
    sync.close()
    # Blocks that came meanwhile must not tempt the next one to propose another cut.
    net.pay_all(2)
    net.run()
    sync = net.synchronizer(None if lost else disk)
    net.run(sync)
    net.pay_all(3)
    net.run(sync)
    assert (sync.state, sync.error) == (SyncState.RUNNING, None)
    proposals = {proposal.to_record(): checkpoint.round for checkpoint, proposal in net.rounds()}
    assert sorted(proposals.values()) == list(range(len(proposals)))
    roots = SignedRoots(net.chain, net.log, net.verifier)
    for shard, task in enumerate(net.tasks):
        root = roots.newest(shard)
        assert root is not None
        assert root.height == task.committed.height
    assert net.audit().findings == ()
