"""Every lie of `pipeline.audit.tamper`, told to a copy of a played ledger, is named with its place."""

import pytest
from audit_net import Outside, Seen, after_lie, audit_pairs, named, played

from pipeline.audit.findings import FindingKind
from pipeline.audit.tamper import LIES
from pipeline.codec.types import Hash32

KINDS = {
    "flip_block_byte": FindingKind.BLOCK_DIVERGED,
    "remove_bundle": FindingKind.INPUT_MISSING,
    "resign_state_root": FindingKind.BAD_SIGNATURE,
    "raise_transaction_amount": FindingKind.INPUT_ALTERED,
    "raise_bundle_amount": FindingKind.BUNDLE_ALTERED,
    "cut_history": FindingKind.HISTORY_CUT,
    "remove_block": FindingKind.BLOCK_MISSING,
    "second_block": FindingKind.BLOCK_FORK,
    "hide_transaction": FindingKind.INPUT_MISSING,
    "reorder_transactions": FindingKind.INPUT_ALTERED,
    "duplicate_transaction": FindingKind.INPUT_ALTERED,
    "alter_receipt": FindingKind.OUTPUT_ALTERED,
    "remove_receipts": FindingKind.OUTPUT_MISSING,
    "forge_bundle": FindingKind.BUNDLE_FORGED,
    "alter_state_root": FindingKind.ROOT_MISMATCH,
    "remove_state_root": FindingKind.OUTPUT_MISSING,
    "resign_checkpoint": FindingKind.BAD_SIGNATURE,
    "second_checkpoint": FindingKind.EQUIVOCATION,
}
# A gap is noticed at the record behind it.
AT_THE_NEXT_RECORD = {"remove_block", "remove_receipts", "remove_state_root"}


def test_every_lie_is_here() -> None:
    assert KINDS.keys() == LIES.keys()


@pytest.mark.parametrize("name", sorted(LIES.keys() - {"cut_history"}))
def test_a_lie_is_named_with_its_place(name: str) -> None:
    damage, pairs = after_lie(LIES[name], played()[1])
    report = audit_pairs(pairs)
    assert not report.ok
    if name in AT_THE_NEXT_RECORD:
        found = [
            item
            for item in report.findings
            if item.kind is KINDS[name]
            and (item.topic, item.shard, item.height) == (damage.topic, damage.shard, damage.height)
            and item.offset is not None
            and item.offset > damage.offset
        ]
    else:
        found = named(report, KINDS[name], damage)
    assert found, "\n".join(report.render())
    if damage.height is not None:
        assert any(item.height in (damage.height, None) or item.shard == damage.shard for item in found)


def test_history_cut_everywhere_is_seen_only_from_outside() -> None:
    net, pairs = played()
    honest = audit_pairs(pairs)
    damage, cut = after_lie(LIES["cut_history"], pairs)
    alone = audit_pairs(cut)
    assert alone.ok, "\n".join(alone.render())
    assert alone.complete_up_to == honest.complete_up_to - 1
    assert alone.verdict == f"all checks hold; complete up to round {alone.complete_up_to}; no outside checkpoint given"
    seen = Seen(honest.complete_up_to, Hash32(bytes.fromhex(honest.checkpoint_hash)))
    told = audit_pairs(cut, trust=Outside(net.chain.chain_id, seen))
    assert named(told, FindingKind.HISTORY_CUT, damage), "\n".join(told.render())
    whole = audit_pairs(pairs, trust=Outside(net.chain.chain_id, seen))
    assert whole.ok
    assert f"round {seen.round} that was seen before" in whole.verdict


@pytest.mark.parametrize("name", sorted(LIES))
def test_a_lie_needs_something_to_lie_about(name: str) -> None:
    from audit_net import kv_of  # noqa: PLC0415 - beside its only use
    from sync_net import Net  # noqa: PLC0415

    from pipeline.audit.log_editor import LogEditor  # noqa: PLC0415
    from pipeline.errors import ConfigError  # noqa: PLC0415
    from pipeline.testing.suite import TEST_SUITES  # noqa: PLC0415

    net = Net(shards=1)
    pairs = tuple(net.log._kv.scan(b"", b"\xff\xff", 1000))
    with pytest.raises(ConfigError, match="play more payments first"):
        LIES[name](LogEditor(kv_of(pairs), TEST_SUITES))
