"""A backup of everything at one moment: the disks of the brokers, and the directories of all processes."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kafka.matrix.stage import Stage


@contextmanager
def restored_afterwards(stage: Stage) -> Iterator[None]:
    """The ledger at rest and led, without clients; afterwards it stands where it stood, and everyone pays again.

    Brokers alone would not do: whoever takes up a shard publishes its last block's outputs once more, so a ledger that
    is started makes blocks though nobody pays, and its stores would be ahead of a log that was restored.
    """
    stage.rest()
    stage.down()
    brokers = stage.brokers.backup()
    processes = stage.root / "backup"
    for life in stage.fleet.lives.values():
        if life.data.exists():
            shutil.copytree(life.data, processes / life.slot)
    stage.mend()
    yield
    stage.down()
    stage.may_end.add("sync")
    stage.brokers.restore(brokers)
    for life in stage.fleet.lives.values():
        shutil.rmtree(life.data, ignore_errors=True)
        if (processes / life.slot).exists():
            shutil.copytree(processes / life.slot, life.data)
    for kept in (brokers, processes):
        shutil.rmtree(kept)
    stage.open()
    stage.play()
    stage.pause(1, 2)
