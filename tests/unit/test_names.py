"""The name book and the keys of its names."""

import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cli.names import KeyRing, NameBook, NamedAccount, demo_seed_path, is_address, read_demo_seed, shown
from pipeline.codec.types import Address
from pipeline.crypto.addresses import address_of, format_address
from pipeline.crypto.private_file import write_new
from pipeline.errors import ConfigError
from pipeline.node.layout import NodeLayout

A, B = Address(bytes(32)), Address(b"\x01" * 32)


@pytest.fixture
def layout(tmp_path: Path) -> NodeLayout:
    found = NodeLayout(tmp_path)
    (tmp_path / "keys").mkdir()
    write_new(demo_seed_path(found), b"07" * 32 + b"\n")
    NameBook(found.names, create=True).close()
    return found


def test_names_and_addresses_are_unique(layout: NodeLayout) -> None:
    book = NameBook(layout.names)
    book.add([NamedAccount("a", A, 0)])
    for clash in (NamedAccount("a", B, 1), NamedAccount("b", A, 1), NamedAccount("b", B, 0)):
        with pytest.raises(ConfigError, match="taken"):
            book.add([NamedAccount("fine", Address(b"\x02" * 32), 5), clash])
    assert book.find("fine") is None, "all or none"
    assert book.find("a") == NamedAccount("a", A, 0)
    assert book.name_of(A) == "a"
    assert book.name_of(B) is None
    assert book.next_index() == 1
    book.close()


def test_an_address_has_32_bytes(layout: NodeLayout) -> None:
    book = NameBook(layout.names)
    with pytest.raises(ConfigError, match="taken"):
        book.add([NamedAccount("a", Address(b"short"), 0)])
    book.close()


def test_many_names_at_once(layout: NodeLayout) -> None:
    book = NameBook(layout.names)
    accounts = [NamedAccount(f"n{n}", Address(n.to_bytes(32, "big")), n) for n in range(1_234)]
    book.add(accounts)
    assert book.find_all([f"n{n}" for n in range(2_000)]) == {account.name: account for account in accounts}
    assert book.names_of(account.address for account in accounts) == {a.address: a.name for a in accounts}
    assert book.next_index() == 1_234
    book.close()


def test_readers_wait_for_a_writer(layout: NodeLayout) -> None:
    writer = sqlite3.connect(layout.names, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.2, lambda: writer.execute("COMMIT"))
    timer.start()
    book = NameBook(layout.names)
    assert book.find("a") is None
    book.close()
    timer.join()
    writer.close()


def test_what_is_no_name_book(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"names\.sqlite can't be used"):
        NameBook(tmp_path / "names.sqlite")
    (tmp_path / "names.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(ConfigError, match=r"names\.sqlite can't be used"):
        NameBook(tmp_path / "names.sqlite")
    shutil.copy(tmp_path / "names.sqlite", tmp_path / "other.sqlite")
    with pytest.raises(ConfigError):
        NameBook(tmp_path / "other.sqlite", create=True)
    sqlite3.connect(tmp_path / "foreign.sqlite").execute("CREATE TABLE names (x)").connection.close()
    with pytest.raises(ConfigError, match="no such column"):
        NameBook(tmp_path / "foreign.sqlite")


def test_demo_accounts_follow_from_the_seed(layout: NodeLayout) -> None:
    ring = KeyRing(layout)
    made = ring.open_accounts(["a", "b", "a"])
    assert set(made) == {"a", "b"}
    for account in made.values():
        key = ring.key(account)
        assert address_of(key.suite_id, key.public_key) == account.address
    again = ring.open_accounts(["c", "b"])
    assert again["b"] == made["b"]
    assert again["c"].seed_index == 2
    ring.close()
    reopened = KeyRing(layout)
    assert reopened.require("a") == made["a"]
    assert reopened.address("a") == made["a"].address
    assert reopened.address(format_address(B)) == B
    reopened.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=40))
def test_any_text_is_a_name(layout: NodeLayout, name: str) -> None:
    ring = KeyRing(layout)
    try:
        try:
            name.encode()
        except UnicodeEncodeError:
            return  # never comes: rows that are not UTF-8 are rejected
        if name.startswith("hb1"):
            return
        account = ring.open_accounts([name])[name]
        assert ring.book.find(name) == account
        assert ring.book.name_of(account.address) == name
    finally:
        ring.close()


def test_unknown_names(layout: NodeLayout) -> None:
    ring = KeyRing(layout)
    with pytest.raises(ConfigError, match="no account is named 'x'"):
        ring.require("x")
    with pytest.raises(ConfigError, match="neither a name"):
        ring.address("x")
    with pytest.raises(ConfigError, match="not an address"):
        ring.address("hb1x")
    ring.close()


def test_what_is_an_address() -> None:
    text = format_address(A)
    assert is_address(text)
    assert is_address(text.upper())
    assert not is_address(text[:-1])
    assert not is_address("hb1")
    assert not is_address("alice")


def test_names_in_messages_are_one_line() -> None:
    assert shown("a") == "'a'"
    assert shown("a\nb\x1b") == "'a?b?'"
    assert shown("x" * 100) == f"'{'x' * 80}...'"


@pytest.mark.parametrize("content", [b"", b"07" * 31, b"07" * 33, b"zz" * 32, b"\xff" * 64])
def test_damaged_seed(layout: NodeLayout, content: bytes) -> None:
    path = demo_seed_path(layout)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"demo\.seed"):
        read_demo_seed(layout)
