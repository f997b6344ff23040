"""RocksDB as the key-value port; the only importer of rocksdict.

Raw mode (bytes in, bytes out), write-ahead log always on, one `WriteBatch` a write. The log is recovered up
to the first record that does not hold (RocksDB's point-in-time mode): after a power cut the tail of unsynced
batches may be gone or torn, and the rest must still open.

The item iterator of rocksdict ends silently at a damaged block, so every page that comes out short is checked
with a second iterator's status: damage must never look like absence.
"""

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, cast

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from pipeline.errors import ConfigError, Fatal, HauptbuchError
from pipeline.kv.mirror import mirror

MIB: Final = 1 << 20
_BLOOM_BITS: Final = 10  # about 1 % false positives

_STALLED: Final = "Result incomplete"
_STALL_POLL_SECONDS: Final = 0.001
_STALL_SECONDS: Final = 60.0
_FAILED_SECONDS: Final = 1.0
_BACKGROUND_ERRORS: Final = "rocksdb.background-errors"


def open_rocks(
    path: str | Path,
    *,
    read_only_secondary: bool = False,
    cache_bytes: int = 16 * MIB,
    write_buffer_bytes: int = 16 * MIB,
) -> "RocksKeyValue":
    """Open or create the store in directory `path`; memory is about `cache_bytes` + 2 x `write_buffer_bytes`.

    A secondary reads beside the process that holds the lock, as of its opening or last `refresh`.
    Raises `Fatal` where the store is in use, damaged or can't be created, `ConfigError` where a secondary is
    asked for a store that does not exist.
    """
    path = Path(path)
    options = _options(cache_bytes, write_buffer_bytes)
    if not read_only_secondary:
        return RocksKeyValue(_open(path, options, AccessType.read_write()), path, None)
    if not (path / "CURRENT").is_file():
        raise ConfigError(f"{path} has no store to read: check the path, or create it first")
    own_directory = tempfile.mkdtemp(prefix="hauptbuch-secondary-")
    mirrored = None if os.access(path, os.W_OK) else Path(own_directory) / "mirror"
    try:
        if mirrored is not None:
            mirrored.mkdir()
            with _Translating(path):
                mirror(path.absolute(), mirrored)
        database = _open(mirrored or path, options, AccessType.secondary(own_directory))
    except Fatal:
        shutil.rmtree(own_directory, ignore_errors=True)
        raise
    return RocksKeyValue(database, path, own_directory, mirrored)


class RocksKeyValue:
    """`KeyValue` over one RocksDB; made by `open_rocks`."""

    __slots__ = (
        "__weakref__",
        "_clean",
        "_database",
        "_errors",
        "_mirrored",
        "_path",
        "_secondary",
        "_synced",
        "_unsynced",
    )

    def __init__(
        self, database: Rdict, path: Path, secondary_directory: str | None, mirrored: Path | None = None
    ) -> None:
        """Take over an open database; `secondary_directory` is removed on close. `mirrored`: where its files are."""
        self._database: Rdict | None = database
        self._path = path
        self._mirrored = mirrored
        self._errors = _Translating(path)
        self._secondary = secondary_directory is not None
        self._synced = _write_options(sync=True)
        self._unsynced = _write_options(sync=False)
        # Also runs at interpreter exit, so a secondary that nobody closed leaves nothing behind.
        self._clean = weakref.finalize(self, _remove, secondary_directory) if secondary_directory else None

    def get(self, key: bytes) -> bytes | None:
        """As the port."""
        database = self._open_database()
        with self._errors:
            value: bytes | None = database.get(key)
        return value

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As the port."""
        database = self._open_database()
        with self._errors:
            values: list[bytes | None] = database.get([*keys]) or []
        assert len(values) == len(keys), "one value for each key"
        return values

    def scan(self, start: bytes, end: bytes, limit: int, *, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        """As the port."""
        database = self._open_database()
        if limit <= 0 or start >= end:
            return []
        with self._errors:
            if reverse:
                return _scan_down(database, start, end, limit)
            # No name for the iterator: a traceback that keeps this frame must not keep the lock.
            page = cast(
                list[tuple[bytes, bytes]], [*islice(database.items(from_key=start, read_opt=_bounded(end)), limit)]
            )
            if len(page) < limit:
                _check_ended(database, page[-1][0] if page else start, end)
        return page

    def write(self, batch: Mapping[bytes, bytes | None], *, sync: bool) -> None:
        """As the port."""
        database = self._open_database()
        if self._secondary:
            raise Fatal(f"the store {self._path} was opened for reading beside its owner: it can't be written")
        with self._errors:
            if batch:
                self._write(database, batch, self._synced if sync else self._unsynced)
            elif sync:
                database.flush_wal(sync=True)

    def _write(self, database: Rdict, batch: Mapping[bytes, bytes | None], options: WriteOptions) -> None:
        """Write, again and again while RocksDB asks to wait for its background work; give up if that failed.

        Left to itself it would wait inside the call, and for ever where a full disk fails every flush.
        """
        started = time.monotonic()
        while True:
            try:
                database.write(_rocks_batch(batch), options)
            except Exception as error:
                if not str(error).startswith(_STALLED):
                    raise
            else:
                return
            # Errors are counted for ever, and this stall may be an honest one after an old error.
            patience = _FAILED_SECONDS if database.property_int_value(_BACKGROUND_ERRORS) else _STALL_SECONDS
            if time.monotonic() - started > patience:
                raise Fatal(
                    f"the store {self._path} can't write: disk full or failing (its file LOG has the reason); "
                    "free space and start again"
                )
            time.sleep(_STALL_POLL_SECONDS)

    def refresh(self) -> None:
        """As the port."""
        database = self._open_database()
        if self._secondary:
            with self._errors:
                if self._mirrored is not None:
                    mirror(self._path.absolute(), self._mirrored)
                database.try_catch_up_with_primary()

    def close(self) -> None:
        """As the port."""
        database, self._database = self._database, None
        if database is None:
            return
        # Closing flushes first. What can't be flushed is in the write-ahead log, and the lock goes all the same.
        with suppress(Exception):
            database.close()
        if self._clean is not None:
            self._clean()

    def _open_database(self) -> Rdict:
        if self._database is None:
            raise Fatal(f"the store {self._path} is closed: open it again")
        return self._database


def _rocks_batch(batch: Mapping[bytes, bytes | None]) -> WriteBatch:
    rocks_batch = WriteBatch(raw_mode=True)
    put, delete = rocks_batch.put, rocks_batch.delete
    for key, value in batch.items():
        if value is None:
            delete(key)
        else:
            put(key, value)
    return rocks_batch


def _scan_down(database: Rdict, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
    """Descending page. Not by the item iterator, which has no status and ignores a lower bound."""
    page: list[tuple[bytes, bytes]] = []
    iterator = database.iter(_bounded(end))
    try:
        iterator.seek_for_prev(end)
        while len(page) < limit and iterator.valid():
            key: bytes = iterator.key()
            if key < start:
                break
            page.append((key, iterator.value()))
            iterator.prev()
        iterator.status()
    finally:
        del iterator  # as in `scan`
    return page


def _check_ended(database: Rdict, last: bytes, end: bytes) -> None:
    """Raise unless the keys from `last` on can be walked: a page that came out short ended there.

    Keys written behind the page meanwhile are no damage.
    """
    iterator = database.iter(_bounded(end))
    try:
        iterator.seek(last)
        if iterator.valid():
            iterator.next()
        iterator.status()
    finally:
        del iterator


class _Translating:
    """Context that turns what rocksdict raises into `Fatal`."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, HauptbuchError):
            raise _translated(error, self._path) from None


def _open(path: Path, options: Options, access: AccessType) -> Rdict:
    with _Translating(path):
        path.mkdir(parents=True, exist_ok=True)
        return Rdict(str(path), options, access_type=access)


def _options(cache_bytes: int, write_buffer_bytes: int) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(Cache(cache_bytes))
    table.set_block_size(16 << 10)  # topics and slots are read by range
    table.set_bloom_filter(_BLOOM_BITS, False)
    table.set_cache_index_and_filter_blocks(True)  # else index memory grows with the store, outside every limit
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_paranoid_checks(True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(write_buffer_bytes)
    options.set_max_write_buffer_number(2)
    options.set_max_total_wal_size(4 * write_buffer_bytes)
    options.set_max_open_files(256)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(MIB)
    options.set_stats_dump_period_sec(0)
    return options


def _bounded(end: bytes) -> ReadOptions:
    options = ReadOptions()
    options.set_iterate_upper_bound(end)
    return options


def _write_options(*, sync: bool) -> WriteOptions:
    options = WriteOptions()
    options.sync = sync
    options.no_slowdown = True
    return options


def _remove(directory: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def _translated(error: Exception, path: Path) -> Fatal:
    """rocksdict raises bare `Exception`s with RocksDB's message; the recovery depends on the words."""
    message = " ".join(str(error).split())
    lowered = message.lower()
    if "/lock: " in lowered:
        return Fatal(f"the store {path} is in use: stop the process that holds it")
    if any(words in lowered for words in ("no space left", "nospace", "quota exceeded", "file too large")):
        return Fatal(f"disk full under {path}: free space and start again")
    if "corruption" in lowered:
        return Fatal(f"the store {path} is damaged: restore it from a backup or the log ({message})")
    return Fatal(f"the store {path} failed: {message}")
