"""The greatest consistent cut against brute force over every possible cut."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sync.cut import CutBlock, CutShard, greatest_cut, is_consistent

SHARDS = 3
MAX_BLOCKS = 3


@st.composite
def shards(draw: st.DrawFn) -> list[CutShard]:
    """Channels advance; needs are arbitrary, so some are never met and some form cycles."""
    result = []
    for shard in range(SHARDS):
        others = [peer for peer in range(SHARDS + 1) if peer != shard]
        sent = {peer: draw(st.integers(0, 2)) for peer in others[:2] if draw(st.booleans())}
        last_sent, last_needed, blocks = dict(sent), dict.fromkeys(others, 0), []
        for _ in range(draw(st.integers(0, MAX_BLOCKS))):
            sends, needs = [], []
            for peer in others[:2]:
                if draw(st.booleans()):
                    last_sent[peer] = last_sent.get(peer, 0) + draw(st.integers(1, 2))
                    sends.append((peer, last_sent[peer]))
            for peer in others:
                if draw(st.integers(0, 3)) == 0:
                    last_needed[peer] += draw(st.integers(1, 2))
                    needs.append((peer, last_needed[peer]))
            blocks.append(CutBlock(tuple(needs), tuple(sends)))
        result.append(CutShard(sent, blocks))
    return result


def naive_consistent(shards: list[CutShard], taken: tuple[int, ...]) -> bool:
    sent: dict[tuple[int, int], int] = {}
    for source, shard in enumerate(shards):
        for peer, sequence in shard.sent.items():
            sent[source, peer] = max(sent.get((source, peer), 0), sequence)
        for block in shard.blocks[: taken[source]]:
            for peer, sequence in block.sends:
                sent[source, peer] = max(sent.get((source, peer), 0), sequence)
    return all(
        sent.get((source, peer), 0) >= sequence
        for peer, shard in enumerate(shards)
        for block in shard.blocks[: taken[peer]]
        for source, sequence in block.needs
    )


@settings(max_examples=400, deadline=None)
@given(shards())
def test_it_is_the_union_of_all_consistent_cuts(shards: list[CutShard]) -> None:
    every = product(*(range(len(shard.blocks) + 1) for shard in shards))
    consistent = [taken for taken in every if naive_consistent(shards, taken)]
    assert greatest_cut(shards) == [max(column) for column in zip(*consistent, strict=True)]


@settings(max_examples=200, deadline=None)
@given(shards(), st.data())
def test_consistency_of_any_cut(shards: list[CutShard], data: st.DataObject) -> None:
    taken = tuple(data.draw(st.integers(0, len(shard.blocks))) for shard in shards)
    assert is_consistent(shards, taken) == naive_consistent(shards, taken)


def test_a_forged_bundle_holds_its_block_back_and_all_that_follow_from_it() -> None:
    source = CutShard({1: 4}, [CutBlock((), ((1, 5),))])
    victim = CutShard({}, [CutBlock(((0, 5),), ()), CutBlock(((0, 6),), ((2, 1),))])
    third = CutShard({}, [CutBlock((), ()), CutBlock(((1, 1),), ())])
    assert greatest_cut([source, victim, third]) == [1, 1, 1]
