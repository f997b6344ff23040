"""What every key-value store must do. Subclass, and say how a store is opened."""

import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, Fatal
from pipeline.kv.format import FORMAT_KEY, check_format
from pipeline.kv.port import KeyValue

Opener = Callable[[], KeyValue]

KEYS = st.binary(min_size=0, max_size=3) | st.sampled_from([b"a", b"ab", b"b", b"\x00", b"\xff", b"\xff\xff"])
BATCHES = st.dictionaries(KEYS, st.none() | st.binary(max_size=40), max_size=12)
LIMITS = st.integers(min_value=-1, max_value=15)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), BATCHES, st.booleans()),
        st.tuples(st.just("scan"), KEYS, KEYS, LIMITS, st.booleans()),
        st.tuples(st.just("get"), st.lists(KEYS, max_size=6)),
        st.tuples(st.just("reopen")),
    ),
    max_size=25,
)


class KeyValueContract(ABC):
    @abstractmethod
    def opener(self, directory: Path) -> Opener:
        """A function that opens the same store each time; the handle before must be closed."""

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Opener:
        return self.opener(tmp_path / "store")

    @pytest.fixture
    def kv(self, open_store: Opener) -> Iterator[KeyValue]:
        store = open_store()
        yield store
        store.close()

    def test_is_a_key_value(self, kv: KeyValue) -> None:
        assert isinstance(kv, KeyValue)

    def test_absent_keys(self, kv: KeyValue) -> None:
        assert kv.get(b"no") is None
        assert kv.multi_get([b"no", b""]) == [None, None]
        assert kv.multi_get([]) == []
        assert kv.scan(b"", b"\xff" * 9, 10) == []
        assert kv.scan(b"", b"\xff" * 9, 10, reverse=True) == []

    def test_write_overwrite_delete(self, kv: KeyValue) -> None:
        kv.write({b"a": b"1", b"b": b"", b"": b"empty"}, sync=True)
        assert kv.multi_get([b"b", b"a", b"x", b"", b"a"]) == [b"", b"1", None, b"empty", b"1"]
        kv.write({b"a": b"2", b"b": None, b"gone": None}, sync=False)
        assert (kv.get(b"a"), kv.get(b"b")) == (b"2", None)
        kv.write({}, sync=True)
        kv.write({}, sync=False)
        assert kv.scan(b"", b"z", 9) == [(b"", b"empty"), (b"a", b"2")]

    def test_scan_bounds_and_limits(self, kv: KeyValue) -> None:
        pairs = [(bytes((i,)), b"v%d" % i) for i in range(10)]
        kv.write(dict(reversed(pairs)), sync=False)
        assert kv.scan(b"\x02", b"\x05", 99) == pairs[2:5]
        assert kv.scan(b"\x02", b"\x05", 2) == pairs[2:4]
        assert kv.scan(b"\x02", b"\x05", 99, reverse=True) == pairs[4:1:-1]
        assert kv.scan(b"\x02", b"\x05", 2, reverse=True) == pairs[4:2:-1]
        assert kv.scan(b"\x01\x00", b"\x02\x00", 99) == pairs[2:3]
        assert kv.scan(b"\x05", b"\x05", 9) == []
        assert kv.scan(b"\x06", b"\x05", 9) == []
        assert kv.scan(b"\x06", b"\x05", 9, reverse=True) == []
        assert kv.scan(b"\x02", b"\x05", 0) == []
        assert kv.scan(b"\x02", b"\x05", -1, reverse=True) == []

    def test_paging_sees_every_key_once(self, kv: KeyValue) -> None:
        keys = [i.to_bytes(3, "big") for i in range(1000)]
        kv.write(dict.fromkeys(keys, b"x" * 100), sync=True)
        seen: list[bytes] = []
        start = b""
        while page := kv.scan(start, b"\xff", 64):
            seen += [key for key, _ in page]
            start = page[-1][0] + b"\0"
        assert seen == keys

    def test_reopen_keeps_everything(self, open_store: Opener) -> None:
        kv = open_store()
        kv.write({b"a": b"1"}, sync=True)
        kv.write({b"b": b"2"}, sync=False)
        kv.close()
        kv = open_store()
        assert kv.scan(b"", b"z", 9) == [(b"a", b"1"), (b"b", b"2")]
        kv.close()

    def test_closed_store_refuses(self, open_store: Opener) -> None:
        kv = open_store()
        kv.close()
        kv.close()
        for call in (
            lambda: kv.get(b""),
            lambda: kv.multi_get([b""]),
            lambda: kv.scan(b"", b"z", 1),
            lambda: kv.write({b"a": b""}, sync=True),
            kv.refresh,
        ):
            with pytest.raises(Fatal, match="closed"):
                call()

    def test_one_handle_at_a_time(self, open_store: Opener) -> None:
        kv = open_store()
        with pytest.raises(Fatal, match="in use"):
            open_store()
        kv.close()
        open_store().close()

    def test_refresh_of_the_owner_changes_nothing(self, kv: KeyValue) -> None:
        kv.write({b"a": b"1"}, sync=False)
        kv.refresh()
        assert kv.get(b"a") == b"1"

    def test_batches_are_atomic_for_other_threads(self, kv: KeyValue) -> None:
        keys = [bytes((i,)) for i in range(20)]
        kv.write(dict.fromkeys(keys, b"0"), sync=False)
        torn: list[object] = []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                page = kv.scan(b"", b"\xff", 99)
                if len(page) != len(keys) or len({value for _, value in page}) != 1:
                    torn.append(page)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            for i in range(200):
                kv.write(dict.fromkeys(keys, b"%d" % i), sync=False)
        finally:
            done.set()
            thread.join()
        assert torn == []

    def test_format_stamp(self, open_store: Opener) -> None:
        kv = open_store()
        check_format(kv, b"state", 3)
        kv.write({b"data": b"1"}, sync=True)
        kv.close()
        kv = open_store()
        check_format(kv, b"state", 3)
        with pytest.raises(ConfigError, match=r"'state/3'.*'state/4'"):
            check_format(kv, b"state", 4)
        with pytest.raises(ConfigError, match=r"'state/3'.*'log/3'"):
            check_format(kv, b"log", 3)
        kv.write({FORMAT_KEY: None}, sync=True)
        with pytest.raises(ConfigError, match="no stamp of 'state/3'"):
            check_format(kv, b"state", 3)
        kv.close()

    def test_behaves_as_a_sorted_dict(self) -> None:
        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(steps=STEPS)
        def check(steps: list[tuple]) -> None:
            with tempfile.TemporaryDirectory() as directory:
                follow(self.opener(Path(directory) / "store"), steps)

        check()


def follow(open_store: Opener, steps: list[tuple]) -> None:
    """Take the steps on a store and on a dict; both must answer alike."""
    kv, model = open_store(), dict[bytes, bytes]()
    try:
        for step in steps:
            match step:
                case ("write", batch, sync):
                    kv.write(batch, sync=sync)
                    model = {k: v for k, v in {**model, **batch}.items() if v is not None}
                case ("scan", start, end, limit, reverse):
                    expected = sorted(pair for pair in model.items() if start <= pair[0] < end)
                    expected = expected[::-1] if reverse else expected
                    assert kv.scan(start, end, limit, reverse=reverse) == expected[: max(limit, 0)]
                case ("get", keys):
                    assert kv.multi_get(keys) == [model.get(key) for key in keys]
                    assert [kv.get(key) for key in keys] == [model.get(key) for key in keys]
                case ("reopen",):
                    kv.close()
                    kv = open_store()
        assert kv.scan(b"", b"\xff" * 4, 1000) == sorted(model.items())
    finally:
        kv.close()
