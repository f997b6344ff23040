"""Faults of synchronizers and attestors."""

import shutil

from tests.kafka.matrix.stage import Stage


def synchronizer_killed(stage: Stage) -> None:
    """kill -9, sometimes with the loss of its disk."""
    for _ in range(stage.random.randint(2, 4)):
        life = stage.fleet.lives["sync"]
        stage.kill(life)
        if stage.random.random() < 0.25:
            shutil.rmtree(life.data, ignore_errors=True)
        stage.revive("sync", lambda: stage.fleet.synchronizer(**stage.how))
        stage.pause(0.3, 3)


def two_synchronizers(stage: Stage) -> None:
    """The second one fences the first, which ends and says so."""
    first = stage.fleet.lives["sync"]
    second = stage.fleet.synchronizer("sync-2")
    code = stage.fleet.await_end(first)
    stage.require(code == 2 and "fenced" in stage.fleet.said(first.name), f"the first one ended with code {code}")
    stage.may_end.add("sync")
    stage.pause(1, 2)
    stage.require(second.is_alive, "both ended")
    stage.fleet.end(second)


def attestor_lost(stage: Stage) -> None:
    """One of three is not missed; without a second nothing is signed, and with it again all is."""
    first, second = stage.random.sample(stage.roles, 2)
    stage.kill(stage.fleet.lives[first])
    stage.pause(1, 3)
    stage.kill(stage.fleet.lives[second])
    stage.pause(1, 3)
    stage.fleet.attestor(second)
    stage.pause(1, 2)
