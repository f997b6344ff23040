"""Records of a CSV file that may be hostile, with line numbers, in bounded memory.

RFC 4180 with a header line and commas, or another delimiter; plain or gzip, told apart by the first two bytes. A
record that can't be read costs that record: reading goes on at the next line. Bytes that are not UTF-8 come as lone
surrogates, so that the original bytes of a refused record can be written out again.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

from pipeline.errors import ConfigError

MAX_RECORD_BYTES: Final = 1 << 20
KEPT_TEXT: Final = 4096
_GZIP_MAGIC: Final = b"\x1f\x8b"
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


class Record(NamedTuple):
    """Fields of one record; `line` is the first of its physical lines, from 1, `text` the original, cut if long."""

    line: int
    fields: list[str]
    text: str


class Reject(NamedTuple):
    """A record that is not taken: its first line, why (one line), its original text, cut to `KEPT_TEXT` characters."""

    line: int
    reason: str
    text: str


class _RecordTooLongError(Exception):
    """The record being read is over `MAX_RECORD_BYTES`."""


class _Lines:
    """Physical lines for `csv.reader`, remembering those of the record being read."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._number = 0
        self._size = 0
        self.start = 1
        self.kept: list[str] = []

    def begin(self) -> None:
        """What comes is a new record."""
        self.start = self._number + 1
        self.kept = []
        self._size = 0

    def text(self) -> str:
        """The record's lines without the last line's end, cut."""
        return "".join(self.kept)[:KEPT_TEXT].rstrip("\r\n")

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._readline()
        if not line:
            raise StopIteration
        self._number += 1
        if self._number == 1:
            line = self._first(line)
        self._size += len(line)
        text = line.decode("utf-8", "surrogateescape")
        self.kept.append(text)
        if self._size > MAX_RECORD_BYTES:
            while line and not line.endswith(b"\n"):
                line = self._readline()
            raise _RecordTooLongError
        return text

    def _first(self, line: bytes) -> bytes:
        """The first line as it counts. Raises `ConfigError` for files of which no line could be read."""
        if line.startswith(_UTF16_MARKS):
            raise ConfigError(f"{self._name}: this is UTF-16; save it as UTF-8, as by `iconv -f UTF-16 -t UTF-8`")
        if b"\r" in line.rstrip(b"\r") and b'"' not in line and not line.endswith(b"\n"):
            raise ConfigError(f"{self._name}: lines end with CR alone; end them with LF, as by `tr '\\r' '\\n'`")
        return line.removeprefix(_UTF8_MARK)

    def _readline(self) -> bytes:
        try:
            return self._file.readline(MAX_RECORD_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            reason = str(error).replace("\n", " ")
            what = reason if isinstance(error, OSError) and error.errno else f"damaged or cut gzip ({reason})"
            raise ConfigError(f"{self._name}: can't be read after line {self._number}: {what}; mend the file") from None


@contextmanager
def open_csv(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked where it is gzip. Raises `ConfigError` where it can't be opened."""
    try:
        file = path.open("rb")
        packed = file.peek(2).startswith(_GZIP_MAGIC)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}; give a CSV file") from None
    with file:
        yield cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file


def read_records(file: BinaryIO, name: str, delimiter: str = ",") -> Iterator[Record | Reject]:
    """Records of `file` in order, the header first; blank lines are none. `name` stands in messages.

    Rejects: quotes out of place or left open, a field over the `csv` module's limit (131,072 characters), a record over
    `MAX_RECORD_BYTES`, bytes that are not UTF-8, NUL. Raises `ConfigError` where the file itself is damaged, is UTF-16,
    or ends its lines with CR alone.
    """
    lines = _Lines(file, name)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Reject(lines.start, f"not CSV: {error}", lines.text())
            continue
        except _RecordTooLongError:
            yield Reject(lines.start, f"over {MAX_RECORD_BYTES} bytes", lines.text())
            continue
        reason = _unfit(lines.kept)
        if reason is not None:
            yield Reject(lines.start, reason, lines.text())
        elif fields:
            yield Record(lines.start, fields, lines.text())


def _unfit(texts: list[str]) -> str | None:
    for text in texts:
        if "\0" in text:
            return "holds a NUL byte"
        if not text.isascii() and not _is_utf8(text):
            return "not UTF-8"
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
