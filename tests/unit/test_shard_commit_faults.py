"""Every way in which a commit fails: afterwards the shard stands where an undisturbed run does."""

from collections.abc import Sequence
from functools import cache

import pytest
from shard_net import ShardNet, leaves, twin_of

from pipeline.codec.topics import Topic
from pipeline.log.port import Append
from pipeline.shards.life import TRANSITIONS, Life, TaskState
from pipeline.shards.progress import Idle, Progress
from pipeline.shards.task import ShardTask
from pipeline.testing.faulty_log import CommitFault, Failing

undisturbed = cache(twin_of)


def assert_like_undisturbed(net: ShardNet, tasks: Sequence[ShardTask] | None = None) -> None:
    clean = undisturbed(len(net.tasks))
    for shard, task in enumerate(tasks or net.tasks):
        assert (task.state, task.error) == (TaskState.LEADING, None)
        assert leaves(task.store) == leaves(clean.stores[shard])
        assert task.store.state_root == clean.stores[shard].state_root
        assert net.fates(shard) == clean.fates(shard)
    report = net.audit()
    assert report.findings == ()
    assert report.in_flight == ()


@pytest.mark.parametrize("at_poll", [False, True], ids=["begin", "poll"])
@pytest.mark.parametrize("fault", list(CommitFault))
@pytest.mark.parametrize("place", [0, 1, 3, 5])
def test_a_fault_of_one_commit_is_healed(fault: CommitFault, at_poll: bool, place: int) -> None:
    net = ShardNet(2, [None] * place + [Failing(fault, at_poll)])
    net.play()
    assert net.faults == []
    assert_like_undisturbed(net)


@pytest.mark.parametrize("fault", list(CommitFault))
def test_republishing_may_fail_too(fault: CommitFault) -> None:
    """Fault upon fault, with one good commit between now and then."""
    net = ShardNet(2, [None, None, Failing(CommitFault.PREFIX), Failing(fault), Failing(fault), None, Failing(fault)])
    net.play()
    assert net.faults == []
    assert_like_undisturbed(net)


def some_bundles(appends: Sequence[Append]) -> Sequence[Append]:
    """The header, and of everything else every other record."""
    return appends[:1] + appends[1:][::2]  # type: ignore[operator, no-any-return, index]


@pytest.mark.parametrize("part", [some_bundles, lambda appends: appends[:-1], lambda appends: appends])
@pytest.mark.parametrize("place", range(8))
def test_a_visible_prefix_of_a_transaction_is_mended(part: object, place: int) -> None:
    net = ShardNet(3, [None] * place + [Failing(CommitFault.PREFIX, part=part)])  # type: ignore[arg-type]
    net.play()
    assert net.faults == []
    assert_like_undisturbed(net)


def test_the_last_block_is_published_again_byte_for_byte_and_once() -> None:
    net = ShardNet(1)
    net.play()
    before = {topic: net.read(topic) for topic in (Topic.BLOCKS, Topic.RECEIPTS)}
    again = net.task(store=net.stores[0])
    net.tasks[0].revoke()
    net.run(tasks=[again])
    for topic, records in before.items():
        after = net.read(topic)
        assert [record.value for record in after[len(records) :]] == [records[-1].value]
    net.pay(net.names()[0], {net.names()[1]: 1})
    net.run(tasks=[again])
    assert [header.height for header in net.headers()][-3:] == [
        again.committed.height - 1,
        again.committed.height - 1,
        again.committed.height,
    ]
    assert net.audit().findings == ()


def test_after_a_fault_the_task_waits_between_0_2_and_2_seconds_longer_and_shorter() -> None:
    pauses = []
    net = ShardNet(1)
    net.play()
    task = net.tasks[0]
    net.pay(net.names()[0], {net.names()[1]: 1})
    net.faults = [Failing(CommitFault.LOST)] * 5  # the block, then each publishing again
    while len(pauses) < 5:
        answer = task.step(net.now_ms)
        net.now_ms += 0 if isinstance(answer, Progress) else 1
        if task.state is TaskState.FENCING and isinstance(answer, Idle):
            assert answer.until_ms is not None
            pauses.append(answer.until_ms - (net.now_ms - 1))
            assert task.step(answer.until_ms - 1) == Idle(answer.until_ms)
            net.now_ms = answer.until_ms
    assert all(200 <= pause <= 2_000 for pause in pauses)
    assert len(set(pauses)) > 1


def test_a_clock_that_is_set_back_does_not_prolong_the_pause() -> None:
    net = ShardNet(1, [Failing(CommitFault.LOST)])
    task = net.tasks[0]
    while task.error is None and net.faults:
        task.step(net.now_ms)
        net.now_ms += 1
    net.now_ms -= 3_600_000
    net.run(ms=2_100)
    assert task.state is TaskState.LEADING


def test_two_tasks_of_one_shard_where_one_owns_it() -> None:
    """The zombie goes on until it is fenced, asks who owns the shard, and gives up."""
    net = ShardNet(1)
    net.owners.names[0] = "old"
    old = net.task(owner=net.owners.view_of("old"))
    net.fund(dict.fromkeys(net.names(), 1000))
    net.run(tasks=[old])
    net.owners.names[0] = "new"
    new = net.task(owner=net.owners.view_of("new"))
    for step in range(3):
        net.pay_all(step)
        net.run(tasks=[new, old] if step else [old, new])
    assert old.state is TaskState.UNASSIGNED
    assert old.error is None
    assert_like_undisturbed(net, [new])


def test_a_zombie_that_the_directory_still_names_fences_back_and_harms_nothing() -> None:
    """Two that both believe to own the shard: no progress is lost, the log stays one chain."""
    net = ShardNet(1)
    first, second = net.task(), net.task()
    names = net.names()
    net.fund(dict.fromkeys(names, 1000))
    for turn in range(400):
        if turn % 40 == 0:
            net.pay(names[0], {names[1]: 1})
        for task in (first, second):
            task.step(net.now_ms)
        net.now_ms += 25
    second.revoke()
    net.run(tasks=[first])
    assert first.state is TaskState.LEADING
    assert len(net.fates()) == 11
    report = net.audit()
    assert report.findings == ()


def test_a_task_that_does_not_own_its_shard_opens_no_writer() -> None:
    net = ShardNet(1)
    net.owners.names[0] = "other"
    task = net.task()
    assert task.step(net.now_ms) == Progress()
    assert task.state is TaskState.UNASSIGNED
    net.play()
    assert_like_undisturbed(net)


@pytest.mark.parametrize("steps", range(12))
def test_revoked_at_any_step_and_taken_over(steps: int) -> None:
    net = ShardNet(1)
    net.fund(dict.fromkeys(net.names(), 1000))
    old, new = net.tasks[0], net.task()
    for _ in range(steps):
        old.step(net.now_ms)
        net.now_ms += 1
    old.revoke()
    assert old.state is TaskState.UNASSIGNED
    assert old.step(net.now_ms) == Idle()
    old.revoke()
    net.run(tasks=[new])
    assert (new.state, new.committed.height) == (TaskState.LEADING, net.headers()[-1].height)
    assert len(net.fates()) == 1
    assert net.audit().findings == ()


def test_a_task_reassigned_catches_up_with_what_others_did_meanwhile() -> None:
    net = ShardNet(1)
    net.fund(dict.fromkeys(net.names(), 1000))
    first, second = net.tasks[0], net.task()
    net.run(tasks=[first])
    first.revoke()
    net.pay(net.names()[0], {net.names()[1]: 5})
    net.run(tasks=[second])
    second.revoke()
    first.assign()
    net.run(tasks=[first])
    assert first.committed == second.committed
    assert leaves(first.store) == leaves(second.store)


def test_the_drawing_is_what_is_enforced() -> None:
    for origin in TaskState:
        for target in TaskState:
            life = Life()
            life.state = origin
            if target in TRANSITIONS[origin]:
                life.move(target)
                assert life.state is target
            else:
                with pytest.raises(AssertionError, match="a shard can't go from"):
                    life.move(target)


def test_nothing_leads_out_of_a_halt() -> None:
    assert TRANSITIONS[TaskState.HALTED] == frozenset()
    assert TaskState.HALTED not in TRANSITIONS[TaskState.UNASSIGNED]
