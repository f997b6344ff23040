"""What the façade shows of a synchronizer."""

import pytest
from sync_net import Net

from pipeline.errors import InvalidShard, StateSynchronizationFailed
from pipeline.shards.progress import Progress
from pipeline.sync.facade import StateSynchronizer
from pipeline.sync.life import SyncState


def test_monitor_follows_rounds_and_lag() -> None:
    net = Net(shards=2)
    facade = StateSynchronizer(net.synchronizer())
    assert (facade.monitor().state, facade.monitor().round) == (SyncState.FENCING, -1)
    with pytest.raises(InvalidShard, match="not started"):
        facade.state_of(0)
    net.fund({"alice": 10, "bob": 10})
    net.run()
    started = facade.start_synchronization(net.now_ms)
    assert started.state is SyncState.RUNNING
    assert started.unsigned_blocks > 0
    assert facade.state_of(0).height == -1
    assert facade.state_of(0).checked_height >= 0
    net.run(facade)
    report = facade.monitor()
    assert (report.round, report.unsigned_blocks, report.error) == (0, 0, None)
    for shard, state in enumerate(report.shards):
        assert state == facade.state_of(shard)
        assert (state.height, state.state_root) == (net.tasks[shard].committed.height, net.stores[shard].state_root)
        assert state.lag_ms == 0
    with pytest.raises(InvalidShard, match="shard 7"):
        facade.state_of(7)
    net.now_ms += 100
    net.pay("alice", {"bob": 1})
    net.run()
    facade.task.follower.poll(net.now_ms)
    late = [state for state in facade.monitor().shards if state.checked_height > state.height]
    assert late
    assert all(state.lag_ms >= 100 for state in late)


def test_a_halted_synchronizer_does_not_start() -> None:
    net, other = Net(shards=2), Net(shards=3)
    other.log = net.log
    facade = StateSynchronizer(other.synchronizer())
    with pytest.raises(StateSynchronizationFailed, match=r"halted: .*another genesis"):
        facade.start_synchronization(net.now_ms)
    assert not isinstance(facade.step(net.now_ms), Progress)
    assert facade.monitor().error is not None
    assert facade.monitor().shards == ()
