"""The name book of a directory: names.sqlite, and the demo keys that belong to its names.

A name stands for an address. Its key is in `keys/NAME.json`, or (for accounts that `load` makes) follows from the
directory's demo seed and the name's number, so that a million accounts need no million files.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.cli.csv_source import normal_name
from pipeline.codec.types import Address
from pipeline.crypto.addresses import ADDRESS_PREFIX, address_of, parse_address
from pipeline.crypto.keystore import load_key
from pipeline.crypto.port import PrivateKey, SuiteId
from pipeline.crypto.private_file import read_private
from pipeline.crypto.suites import STANDARD_SUITES, SuiteSet
from pipeline.errors import ConfigError
from pipeline.ledger.genesis import Genesis
from pipeline.node.bootstrap import derive_seed
from pipeline.node.layout import NodeLayout

DEMO_SUITE: Final = SuiteId.ML_DSA_65
_SEED_BYTES: Final = 32
_WAIT_SECONDS: Final = 10.0
_QUERY_NAMES: Final = 500
_ADDRESS_START: Final = f"{ADDRESS_PREFIX}1"
_KEPT_KEYS: Final = 4_096  # an expanded ML-DSA-65 key takes tens of KB

_SCHEMA: Final = """
CREATE TABLE names (
    name TEXT NOT NULL PRIMARY KEY,
    address BLOB NOT NULL UNIQUE CHECK (length(address) = 32),
    seed_index INTEGER UNIQUE
) WITHOUT ROWID
"""


class NamedAccount(NamedTuple):
    """`seed_index` is None where the key has a file of its own."""

    name: str
    address: Address
    seed_index: int | None


class NameBook:
    """names.sqlite. Each call is a transaction of its own; readers work beside a writer."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open, or create where it must not exist yet. Raises `ConfigError`."""
        self._path = path
        mode = "rwc" if create else "rw"
        with self._errors():
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_WAIT_SECONDS, isolation_level=None
            )
            if create:
                self._connection.execute(_SCHEMA)
            self._connection.execute("SELECT name, address, seed_index FROM names LIMIT 1").fetchone()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ConfigError(f"{self._path} can't be used: {error}; restore it from a backup") from None

    def close(self) -> None:
        """Idempotent."""
        self._connection.close()

    def find(self, name: str) -> NamedAccount | None:
        """The account of a name."""
        with self._errors():
            row = self._connection.execute(
                "SELECT name, address, seed_index FROM names WHERE name = ?", (name,)
            ).fetchone()
        return None if row is None else NamedAccount(row[0], Address(row[1]), row[2])

    def name_of(self, address: Address) -> str | None:
        """The name of an address."""
        with self._errors():
            row = self._connection.execute("SELECT name FROM names WHERE address = ?", (address,)).fetchone()
        return None if row is None else str(row[0])

    def names_of(self, addresses: Iterable[Address]) -> dict[Address, str]:
        """The names of those addresses that have one."""
        wanted, found = list(addresses), dict[Address, str]()
        for start in range(0, len(wanted), _QUERY_NAMES):
            part = wanted[start : start + _QUERY_NAMES]
            marks = ",".join("?" * len(part))
            with self._errors():
                rows = self._connection.execute(
                    f"SELECT address, name FROM names WHERE address IN ({marks})",  # noqa: S608 - question marks only
                    part,
                )
                found.update((Address(address), name) for address, name in rows)
        return found

    def find_all(self, names: Iterable[str]) -> dict[str, NamedAccount]:
        """The accounts of those names that have one."""
        wanted, found = list(names), dict[str, NamedAccount]()
        for start in range(0, len(wanted), _QUERY_NAMES):
            part = wanted[start : start + _QUERY_NAMES]
            marks = ",".join("?" * len(part))
            with self._errors():
                rows = self._connection.execute(
                    f"SELECT name, address, seed_index FROM names WHERE name IN ({marks})",  # noqa: S608 - as above
                    part,
                )
                found.update((row[0], NamedAccount(row[0], Address(row[1]), row[2])) for row in rows)
        return found

    def add(self, accounts: Iterable[NamedAccount]) -> None:
        """Add new names, all or none. Raises `ConfigError` where a name or an address is there already."""
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT INTO names VALUES (?, ?, ?)", accounts)
            except sqlite3.IntegrityError:
                self._connection.execute("ROLLBACK")
                raise ConfigError(f"{self._path}: a name or address is taken already; choose another name") from None
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def next_index(self) -> int:
        """The number of the next demo account."""
        with self._errors():
            (last,) = self._connection.execute("SELECT max(seed_index) FROM names").fetchone()
        return 0 if last is None else int(last) + 1


class KeyRing:
    """Names, addresses and keys of a directory."""

    def __init__(self, layout: NodeLayout, passphrase: str = "", suites: SuiteSet = STANDARD_SUITES) -> None:
        """Open the name book; keys are read when they are asked for. Raises `ConfigError`."""
        self._layout = layout
        self._passphrase = passphrase
        self._suites = suites
        self.book = NameBook(layout.names)
        self._seed: bytes | None = None
        self.key = lru_cache(_KEPT_KEYS)(self._load)

    def close(self) -> None:
        """Close the name book. Idempotent."""
        self.book.close()

    def _load(self, account: NamedAccount) -> PrivateKey:
        """The key of an account. Raises `ConfigError`."""
        if account.seed_index is None:
            return load_key(self._layout.key(account.name), self._passphrase, self._suites)
        return self._demo_key(account.seed_index)

    def _demo_key(self, index: int) -> PrivateKey:
        if self._seed is None:
            self._seed = read_demo_seed(self._layout)
        return self._suites.require(DEMO_SUITE).generate(derive_seed(self._seed, f"account {index}"))

    def require(self, name: str) -> NamedAccount:
        """The account of a name. Raises `ConfigError` where there is none."""
        account = self._find(name)
        if account is None:
            raise ConfigError(
                f"no account is named {shown(name)} here; `hauptbuch accounts {self._layout.root}` lists names, "
                "`hauptbuch keygen` makes one"
            )
        return account

    def address(self, text: str) -> Address:
        """The address of a name, or of an address in text form, which no name may stand for. Raises `ConfigError`."""
        account = self._find(text)
        if account is not None:
            return account.address
        if text.lower().startswith(_ADDRESS_START):
            return parse_address(text)
        raise ConfigError(
            f"{shown(text)} is neither a name of this directory nor an address (hb1...); "
            f"`hauptbuch accounts {self._layout.root}` lists both"
        )

    def _find(self, name: str) -> NamedAccount | None:
        """By the very name first: older directories may hold names that are not in NFC."""
        return self.book.find(name) or self.book.find(normal_name(name))

    def role_names(self, genesis: Genesis) -> frozenset[str]:
        """Names whose keys are the ledger's own: treasury, operators, attestors."""
        signers = {address_of(key.suite, key.public_key) for key in (*genesis.attestors, *genesis.operators)}
        return frozenset(self.book.names_of({genesis.treasury, *signers}).values())

    def open_accounts(self, names: Iterable[str]) -> dict[str, NamedAccount]:
        """The accounts of all `names`; demo accounts are made for those that have none."""
        wanted = list(dict.fromkeys(names))
        found = self.book.find_all(wanted)
        missing = [name for name in wanted if name not in found]
        made: list[NamedAccount] = []
        for index, name in enumerate(missing, self.book.next_index()):
            key = self._demo_key(index)
            made.append(NamedAccount(name, address_of(key.suite_id, key.public_key), index))
        if made:
            self.book.add(made)
        return found | {account.name: account for account in made}


def demo_seed_path(layout: NodeLayout) -> Path:
    """Where the demo seed is."""
    return layout.key("any").with_name("demo.seed")


def read_demo_seed(layout: NodeLayout) -> bytes:
    """The 32 bytes that all demo keys come from. Raises `ConfigError`."""
    path = demo_seed_path(layout)
    raw = read_private(path, 2 * _SEED_BYTES + 1)
    try:
        seed = bytes.fromhex(raw.decode("ascii").strip())
    except ValueError:
        seed = b""
    if len(seed) != _SEED_BYTES:
        raise ConfigError(f"{path}: not a demo seed of 64 hexadecimal digits; restore it from a backup")
    return seed


def is_address(text: str) -> bool:
    """Whether a text is an address rather than a name."""
    if not text.lower().startswith(_ADDRESS_START):
        return False
    try:
        parse_address(text)
    except ConfigError:
        return False
    return True


def shown(name: str) -> str:
    """A name for a message: printable, one line, not too long."""
    kept = "".join(c if c.isprintable() else "?" for c in name[:80])
    return f"'{kept}'" if len(name) <= 80 else f"'{kept}...'"
