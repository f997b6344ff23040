"""Which member of a group keeps a copy of which shard."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec.types import ShardId
from pipeline.log.membership import Members, inherits


def shards(*numbers: int) -> frozenset[ShardId]:
    return frozenset(map(ShardId, numbers))


def test_the_least_loaded_inherits_the_last_first() -> None:
    # As a real group of four was seen to assign 11 partitions when the owner of 1, 4 and 7 left.
    members = {
        "gone": shards(1, 4, 7),
        "a": shards(0, 2, 3),
        "b": shards(8, 9, 10),
        "c": shards(5, 6),
    }
    assert inherits("c", members, 1) & members["gone"] == shards(7)
    assert inherits("a", members, 1) & members["gone"] == shards(4)
    assert inherits("b", members, 1) & members["gone"] == shards(1)


def test_of_two_members_each_keeps_all_of_the_other() -> None:
    members = {"a": shards(0, 1, 2), "b": shards(3)}
    for copies in (1, 5):
        assert inherits("a", members, copies) == shards(3)
        assert inherits("b", members, copies) == shards(0, 1, 2)
    assert inherits("a", members, 0) == shards()
    assert inherits("stranger", members, 1) == shards()
    assert inherits("a", {"a": shards(0)}, 1) == shards()
    assert inherits("a", {}, 1) == shards()


@given(
    st.lists(st.integers(0, 5), max_size=40),
    st.integers(1, 6),
    st.integers(0, 7),
)
def test_every_shard_has_as_many_copies_as_there_can_be_and_none_at_its_owner(
    owners: list[int], count: int, copies: int
) -> None:
    members: Members = {
        f"m{member}": frozenset(ShardId(n) for n, owner in enumerate(owners) if owner % count == member)
        for member in range(count)
    }
    kept = {member: inherits(member, members, copies) for member in members}
    for shard, owner in enumerate(owners):
        holders = {member for member, held in kept.items() if shard in held}
        assert len(holders) == min(copies, count - 1)
        assert f"m{owner % count}" not in holders
