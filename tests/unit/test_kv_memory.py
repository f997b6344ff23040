import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Fatal
from pipeline.kv.memory import MemoryKeyValue

BATCHES = st.lists(
    st.tuples(st.dictionaries(st.binary(max_size=1), st.none() | st.binary(max_size=2), max_size=4), st.booleans()),
    max_size=12,
)


def contents(kv: MemoryKeyValue) -> dict[bytes, bytes]:
    return dict(kv.scan(b"", b"\xff" * 3, 10_000))


@given(batches=BATCHES, keep=st.integers(min_value=0, max_value=12))
def test_crash_keeps_a_prefix_with_every_synced_batch(batches: list[tuple], keep: int) -> None:
    kv = MemoryKeyValue()
    states: list[dict[bytes, bytes]] = [{}]
    synced = 0
    for count, (batch, sync) in enumerate(batches, start=1):
        kv.write(batch, sync=sync)
        states.append(contents(kv))
        synced = count if sync else synced
    # Empty batches without sync leave no trace, so they are not among those that a crash can count.
    effective = [i for i, (batch, _) in enumerate(batches, start=1) if i > synced and batch]
    assert kv.unsynced == len(effective)
    survivors = effective[:keep]
    kv.crash(keep)
    kv = kv.reopen()
    assert contents(kv) == states[survivors[-1] if survivors else synced]
    assert kv.unsynced == 0


def test_crash_closes_and_close_keeps_unsynced() -> None:
    kv = MemoryKeyValue()
    kv.write({b"a": b"1"}, sync=False)
    kv.close()
    again = kv.reopen()
    assert again.get(b"a") == b"1"
    assert again.unsynced == 1
    again.crash()
    with pytest.raises(Fatal, match="closed"):
        again.get(b"a")
    assert again.reopen().get(b"a") is None


def test_a_synced_batch_makes_the_earlier_ones_durable() -> None:
    kv = MemoryKeyValue()
    kv.write({b"a": b"1"}, sync=False)
    kv.write({}, sync=True)
    kv.write({b"a": None, b"b": b"2"}, sync=False)
    kv.crash()
    assert contents(kv.reopen()) == {b"a": b"1"}


def test_reopen_while_open_is_refused() -> None:
    kv = MemoryKeyValue()
    with pytest.raises(Fatal, match="in use"):
        kv.reopen()


def test_many_new_keys_between_scans_stay_ordered() -> None:
    kv = MemoryKeyValue()
    for low, smallest in ((500, 500), (0, 0), (1000, 0)):
        kv.write({i.to_bytes(2, "big"): b"" for i in range(low, low + 300)}, sync=True)
        assert kv.scan(b"", b"\xff", 1) == [(smallest.to_bytes(2, "big"), b"")]
    keys = [key for key, _ in kv.scan(b"", b"\xff", 10_000)]
    assert keys == sorted(keys)
    assert len(keys) == 900
