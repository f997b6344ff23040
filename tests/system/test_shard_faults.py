"""A node dies before and after every write that it makes, loses what was not synced, and is started again."""

from functools import cache
from typing import Literal

import pytest
from node_disks import DISKS, DyingNode, Ending

When = Literal["before", "after"]


@cache
def undisturbed() -> tuple[Ending, dict[str, int]]:
    node = DyingNode()
    assert not node.run_until_it_dies("log", 10**6, "before")
    return node.ending(), node.writes()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("disk", DISKS)
def test_a_crash_at_every_write_changes_nothing(disk: str, when: When) -> None:
    expected, writes = undisturbed()
    assert writes[disk] >= 2
    for number in range(1, writes[disk] + 1):
        node = DyingNode()
        assert node.run_until_it_dies(disk, number, when), f"{when} write {number} of {disk}: it lived"
        node.restart()
        node.run_to_the_end()
        assert node.ending() == expected, f"{when} write {number} of {disk}"


@pytest.mark.parametrize("disk", DISKS)
def test_two_crashes_in_a_row_change_nothing(disk: str) -> None:
    expected, writes = undisturbed()
    for number in range(1, writes[disk] + 1, 3):
        node = DyingNode()
        assert node.run_until_it_dies(disk, number, "after")
        for again in ("log", "shard 0"):
            node.restart()
            node.run_until_it_dies(again, 1 + number % 3, "before")
        node.restart()
        node.run_to_the_end()
        assert node.ending() == expected, f"write {number} of {disk}"


@pytest.mark.parametrize("lost", [disk for disk in DISKS if disk != "log"])
def test_a_disk_that_is_lost_is_filled_from_the_log(lost: str) -> None:
    expected, writes = undisturbed()
    for number in range(1, writes["log"] + 1, 2):
        node = DyingNode()
        assert node.run_until_it_dies("log", number, "after")
        node.restart(lost=lost)
        node.run_to_the_end()
        assert node.ending() == expected, f"write {number} of the log"


@pytest.mark.slow
@pytest.mark.parametrize("disk", DISKS)
def test_two_crashes_at_all_pairs_of_writes_change_nothing(disk: str) -> None:
    expected, writes = undisturbed()
    for number in range(1, writes[disk] + 1):
        for other in DISKS:
            for again in range(1, 8):
                node = DyingNode()
                assert node.run_until_it_dies(disk, number, "before")
                node.restart()
                node.run_until_it_dies(other, again, "after")
                node.restart()
                node.run_to_the_end()
                assert node.ending() == expected, f"write {number} of {disk}, then {again} of {other}"
