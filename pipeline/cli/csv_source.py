"""Payments from any CSV, by named columns: exact amounts, and a reason for every row that is not taken.

Reading holds one record at a time and can be repeated, since loading takes two passes: `plan_funding`, then `batches`
(both in `csv_plan`).
"""

import csv
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, TextIO

from pipeline.cli.csv_records import Record, Reject, open_csv, read_records
from pipeline.codec.types import MAX_AMOUNT
from pipeline.errors import ConfigError

DEFAULT_ASSET: Final = "UNIT"
MAX_DECIMALS: Final = 38
MAX_NAME_BYTES: Final = 256
_MAX_AMOUNT_TEXT: Final = 128
_SHOWN_AS: Final = {"\t": "tab"}
_DELIMITERS: Final = (";", "\t", "|", ",")
_AMOUNT: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?", re.ASCII)


class Payment(NamedTuple):
    """One row, its names in NFC: `payer` pays `payee` `amount` minor units (1 to 2^128 - 1) of `asset`."""

    line: int
    payer: str
    payee: str
    amount: int
    asset: str
    reference: bytes


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns that hold what a payment needs; spaces around them and around fields do not count."""

    payer: str
    payee: str
    amount: str
    asset: str | None = None
    reference: str | None = None


class _Places(NamedTuple):
    payer: int
    payee: int
    amount: int
    asset: int | None
    reference: int | None


@dataclass(frozen=True, slots=True)
class CsvSource:
    """A CSV file and how to read payments from it.

    `decimals` is the power of ten of minor units in one unit of the amount column; `limit` the number of rows read,
    rejected ones included; `reference_bytes` and `symbol_bytes` are limits of the chain; `delimiter` is one character.
    Raises `ConfigError` for decimals, a limit or a delimiter that can't be.
    """

    path: Path
    columns: Columns
    decimals: int = 0
    limit: int | None = None
    reference_bytes: int = 64
    symbol_bytes: int = 32
    delimiter: str = ","

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 <= self.decimals <= MAX_DECIMALS:
            raise ConfigError(f"--decimals must be 0 to {MAX_DECIMALS}, not {self.decimals}")
        if self.limit is not None and not 0 <= self.limit <= sys.maxsize:
            raise ConfigError(f"--limit must be 0 or more and below 2^63, not {self.limit}")
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n\0 .' or self.delimiter.isalnum():
            raise ConfigError(f"--delimiter must be one character such as ';', or tab, not {self.delimiter[:20]!r}")

    def rows(self) -> Iterator[Payment | Reject]:
        """Every row after the header in the file's order, each a payment or the reason why not.

        Raises `ConfigError` where the file can't be read, is empty, its header can't be read or lacks a column.
        """
        with open_csv(self.path) as file:
            records = read_records(file, self.path.name, self.delimiter)
            width, places = self._header(next(records, None))
            for record in islice(records, self.limit):
                yield self._row(record, width, places) if isinstance(record, Record) else record

    def _header(self, record: Record | Reject | None) -> tuple[int, _Places]:
        """How many columns the header has, and where ours are."""
        name = self.path.name
        if record is None:
            raise ConfigError(f"{name}: empty; the first line must name the columns")
        if isinstance(record, Reject):
            raise ConfigError(
                f"{name}: the header can't be read: {record.reason}; the first line must name the columns, in UTF-8"
            )
        header = [field.strip() for field in record.fields]
        columns = self.columns
        required = (columns.payer, columns.payee, columns.amount)
        optional = (columns.asset, columns.reference)
        wanted = [column for column in (*required, *optional) if column is not None]
        missing = [column for column in wanted if column.strip() not in header]
        other = next((mark for mark in _DELIMITERS if mark in record.text and mark != self.delimiter), None)
        if missing and len(header) == 1 and other:
            shown = _SHOWN_AS.get(other, other)
            raise ConfigError(f"{name}: columns are parted by '{shown}', it seems; give --delimiter '{shown}'")
        if missing:
            raise ConfigError(f"{name}: no column {_listed(missing)}; there are: {_listed(header)}")
        if columns.payer.strip() == columns.payee.strip():
            raise ConfigError(f"--from and --to are both column {_listed([columns.payer])}; name two columns")
        twice = [column for column in wanted if header.count(column.strip()) > 1]
        if twice:
            raise ConfigError(f"{name}: column {_listed(twice)} is there more than once; rename all but one")
        payer, payee, amount = (header.index(column.strip()) for column in required)
        asset, reference = (None if column is None else header.index(column.strip()) for column in optional)
        return len(header), _Places(payer, payee, amount, asset, reference)

    def _row(self, record: Record, width: int, places: _Places) -> Payment | Reject:
        fields = record.fields
        if len(fields) != width:
            return Reject(record.line, f"{len(fields)} fields where the header has {width}", record.text)
        try:
            return Payment(
                record.line,
                _name("payer", fields[places.payer], MAX_NAME_BYTES),
                _name("payee", fields[places.payee], MAX_NAME_BYTES),
                parse_amount(fields[places.amount].strip(), self.decimals),
                DEFAULT_ASSET if places.asset is None else _name("asset", fields[places.asset], self.symbol_bytes),
                b"" if places.reference is None else _text("reference", fields[places.reference], self.reference_bytes),
            )
        except ValueError as error:
            return Reject(record.line, str(error), record.text)


def parse_amount(text: str, decimals: int) -> int:
    """Minor units of a decimal number such as `12`, `0.5`, `+3.`: exact, 1 to 2^128 - 1.

    Zeros beyond `decimals` places are taken, other digits are not, since the amount would change. Raises `ValueError`,
    one line, for all else: exponents, separators of thousands, signs of currency, zero, negative, too large.
    """
    if text.isdecimal() and text.isascii() and len(text) <= _MAX_AMOUNT_TEXT:  # the usual case, without the pattern
        return _in_range(int(text) * 10**decimals)
    found = _AMOUNT.fullmatch(text) if len(text) <= _MAX_AMOUNT_TEXT else None
    if found is None or not (found[2] or found[3]):
        raise ValueError("amount is empty" if not text else "amount is not a decimal number of digits and a point")
    sign, whole, fraction = found[1], found[2], (found[3] or "").rstrip("0")
    if len(fraction) > decimals:
        raise ValueError(f"amount has more than {decimals} decimal places")
    amount = int(whole + fraction.ljust(decimals, "0") or "0")
    if sign == "-" and amount:
        raise ValueError("amount is negative")
    return _in_range(amount)


def _in_range(amount: int) -> int:
    if amount == 0:
        raise ValueError("amount is zero")
    if amount > MAX_AMOUNT:
        raise ValueError("amount is over 2^128 - 1 minor units")
    return amount


def normal_name(text: str) -> str:
    """In Unicode's NFC: what looks the same and is typed in two ways is one name."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _name(role: str, field: str, limit: int) -> str:
    text = normal_name(field.strip())
    if not text:
        raise ValueError(f"{role} is empty")
    _text(role, text, limit)
    return text


def _text(role: str, field: str, limit: int) -> bytes:
    text = field.strip()
    if not text.isprintable():
        raise ValueError(f"{role} has unprintable characters")
    data = text.encode()
    if len(data) > limit:
        raise ValueError(f"{role} is over {limit} bytes")
    return data


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:30])
    return shown if len(names) <= 30 else f"{shown} and {len(names) - 30} more"


class RejectWriter:
    """Writes rejects as a CSV of line, reason, text; the file is made at the first one, in place of an older one.

    `count` is the number written. Close it, or use it in a `with`.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is opened yet."""
        self._path = path
        self._file: TextIO | None = None
        self.count = 0

    def write(self, reject: Reject) -> None:
        """Raises `ConfigError` where the file can't be written."""
        try:
            if self._file is None:
                self._file = self._path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
                csv.writer(self._file).writerow(Reject._fields)
            csv.writer(self._file).writerow(reject)
        except OSError as error:
            raise ConfigError(
                f"{self._path}: can't be written: {error.strerror}; free space or give another place"
            ) from None
        self.count += 1

    def close(self) -> None:
        """Flush and close; nothing where no reject was written."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> "RejectWriter":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
