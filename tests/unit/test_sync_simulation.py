"""Random schedules: proposers, attestors and shards step in any order, crash, lose unsynced writes, are replaced."""

from random import Random

import pytest
from sync_net import Net, key_of

from pipeline.client.light import LightClient
from pipeline.client.subscriber import StateRootSubscriber
from pipeline.client.trust import Trust
from pipeline.crypto.verifier import InlineVerifier
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.checkpoints import Assurance
from pipeline.sync.attestor import Attestor
from pipeline.sync.life import SyncState
from pipeline.sync.round_task import RoundTask
from pipeline.sync.settings import SyncConfig
from pipeline.sync.signer import Signer
from pipeline.testing.suite import TEST_SUITES

NAMES = [f"account-{number}" for number in range(9)]


class Simulation:
    """A chain of 1 to 3 shards under one signer, or 2 of 3 attestors."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.quorum = self.random.random() < 0.6
        self.signers = ("one", "two", "three") if self.quorum else ("one",)
        self.net = Net(self.random.randint(1, 3), self.signers, threshold=2 if self.quorum else 1)
        self.disks = {name: MemoryKeyValue() for name in (*self.signers, "proposer")}
        self.running: dict[str, RoundTask] = {}
        self.retired: list[RoundTask] = []
        self.net.fund(dict.fromkeys(NAMES, 10_000))
        for name in self.roles:
            self.start(name)

    @property
    def roles(self) -> tuple[str, ...]:
        return ("proposer", *self.signers) if self.quorum else ("proposer",)

    def start(self, name: str) -> None:
        net, disk = self.net, self.disks[name]
        assurance = self.random.choice(list(Assurance)) if name == "proposer" else Assurance.EXECUTION
        if name == "proposer":
            self.running[name] = net.synchronizer(disk, None if self.quorum else "one", assurance)
            return
        self.running[name] = Attestor(
            net.chain,
            net.log,
            disk,
            Signer(key_of(name)),
            assurance,
            InlineVerifier(TEST_SUITES),
            SyncConfig(round_linger_ms=self.random.randint(0, 3)),
            net.store_for,
        )

    def crash(self, name: str) -> None:
        """The machine dies and comes back, with a prefix of its unsynced writes, or with an empty disk.

        Sometimes the process was only thought dead, and goes on beside its successor with a copy of the disk.
        """
        random, disk = self.random, self.disks[name]
        fenced_before = self.running[name].state is not SyncState.FENCING  # else it would fence its successor
        if fenced_before and random.random() < 0.3:
            self.retired.append(self.running[name])
            copy = MemoryKeyValue()
            copy.write(dict(disk.scan(b"", b"\xff\xff", 10**6)), sync=True)
            self.disks[name] = copy
        else:
            disk.crash(keep=random.randint(0, disk.unsynced))
            self.disks[name] = disk.reopen() if random.random() < 0.8 else MemoryKeyValue()
        self.start(name)

    def step(self) -> None:
        random, net = self.random, self.net
        match random.randint(0, 19):
            case 0 | 1 | 2:
                net.pay(random.choice(NAMES), {random.choice(NAMES): 1 for _ in range(3)})
            case 3:
                self.crash(random.choice(self.roles))
            case 4:
                net.now_ms += random.randint(1, 20)
            case 5 if self.retired:
                random.choice(self.retired).step(net.now_ms)
            case number if number < 12:
                random.choice(net.tasks).step(net.now_ms)
                net.now_ms += 1
            case _:
                random.choice(list(self.running.values())).step(net.now_ms)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
            for task in self.running.values():
                assert task.error is None, task.error
        for zombie in self.retired:
            zombie.step(self.net.now_ms)
        self.net.run(*self.running.values(), ms=40)
        self.check()

    def check(self) -> None:
        net = self.net
        assert all(task.error is None for task in (*net.tasks, *self.running.values()))
        signed: dict[tuple[bytes, int], bytes] = {}
        for item in net.signatures():
            assert signed.setdefault((item.signer, item.round), item.checkpoint_hash) == item.checkpoint_hash
        proposer = self.running["proposer"]
        for shard, task in enumerate(net.tasks):
            head = proposer.follower.ledger.shards[shard].head
            assert (head.height, head.state_root) == (task.committed.height, net.stores[shard].state_root)
        client = LightClient(Trust.of(net.chain, Assurance.HEADERS), InlineVerifier(TEST_SUITES))
        subscriber = StateRootSubscriber(net.log, client, range(len(net.tasks)))
        roots = subscriber.catch_up()
        assert subscriber.refused == []
        assert {root.checkpoint.round for root in roots} == set(range(proposer.follower.ledger.round + 1))
        blocks: dict[tuple[int, int], bytes] = {}
        rounds: dict[int, bytes] = {}
        for root in roots:
            head = root.state_root
            assert blocks.setdefault((head.shard, head.height), head.block_hash) == head.block_hash
            assert rounds.setdefault(root.checkpoint.round, root.checkpoint_hash) == root.checkpoint_hash
        for zombie in self.retired:
            assert zombie.state is not SyncState.HALTED, zombie.error


@pytest.mark.parametrize("seed", range(6))
def test_random_schedules(seed: int) -> None:
    Simulation(seed).run(300)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_many_random_schedules(block: int) -> None:
    for seed in range(1000 + 20 * block, 1020 + 20 * block):
        Simulation(seed).run(600)
