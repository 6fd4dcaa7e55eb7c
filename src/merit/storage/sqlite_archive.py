"""The archive in one SQLite file beside the journal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from merit.model.record import Record
from merit.model.trail import SignedAnchor, check_follows
from merit.ports.archive import ArchiveUnavailable
from merit.storage import sqlite_file
from merit.storage.archive_rows import ArchiveRows, own_anchor
from merit.storage.durable_files import make_directory
from merit.storage.segments import segments_of

APPLICATION_ID: Final = 0x4D524131  # "MRA1"
FILE_FORMAT: Final = 1
PAGE_BYTES: Final = 8192
_BUSY_WAIT_MS: Final = 5_000

_TABLES: Final = """
CREATE TABLE meta (only INTEGER PRIMARY KEY CHECK (only = 1), cell TEXT NOT NULL) STRICT;
CREATE TABLE segments (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    hash BLOB NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX segments_without_data ON segments (first, last, time_ns, bytes, hash);
CREATE TABLE anchors (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    data BLOB NOT NULL,
    signature BLOB NOT NULL,
    key BLOB NOT NULL
) STRICT;
"""
_LAST_SEGMENT: Final = "SELECT last, hash FROM segments ORDER BY first DESC LIMIT 1"
_SAME_ANCHOR: Final = "SELECT 1 FROM anchors WHERE first = ? AND data = ?"


class SqliteArchive(ArchiveRows):
    """An `Archive` of `cell` in the file at `path`, which the first write makes; until then it is empty.

    What is written is durable on return. `vfs` names a registered SQLite VFS (fault injection in tests).
    """

    _HELD = """
    SELECT coalesce(min(first), 0), coalesce(max(last), 0), (SELECT coalesce(max(last), 0) FROM anchors),
        coalesce(sum(bytes), 0) FROM segments"""
    _SEGMENT = """
    SELECT first, last, data FROM segments
    WHERE first >= (SELECT coalesce(max(first), 0) FROM segments WHERE first <= ?1) AND first <= ?2 AND last >= ?1
    ORDER BY first LIMIT 1"""
    _ANCHORS = """
    SELECT last, data, signature, key FROM anchors
    WHERE first >= (SELECT coalesce(max(first), 0) FROM anchors WHERE first <= ?1) AND first <= ?2 AND last >= ?1
    ORDER BY first LIMIT 256"""
    _LAST_ANCHOR = "SELECT data, signature, key FROM anchors ORDER BY first DESC LIMIT 1"
    _OLDEST = "SELECT first, time_ns, bytes FROM segments ORDER BY first LIMIT ?"

    def __init__(self, path: Path, cell: str, *, vfs: str | None = None) -> None:
        super().__init__(str(path), cell)
        self._path = path
        self._vfs = vfs
        self._connection: apsw.Connection | None = None
        self._closed = False

    def add_anchor(self, anchor: SignedAnchor) -> None:
        """See `Archive.add_anchor`."""
        wanted = own_anchor(anchor, self._cell)
        with self._writing() as connection:
            if connection.execute(_SAME_ANCHOR, (wanted.first, anchor.data)).fetchall():
                return
            rows: list[Any] = connection.execute(self._LAST_ANCHOR).fetchall()
            check_follows(wanted, SignedAnchor(*rows[0]) if rows else None)
            row = (wanted.first, wanted.last, anchor.data, anchor.signature, anchor.key)
            connection.execute("INSERT INTO anchors VALUES (?, ?, ?, ?, ?)", row)

    def add_segment(self, records: Sequence[Record]) -> None:
        """See `Archive.add_segment`."""
        with self._writing() as connection:
            rows: list[Any] = connection.execute(_LAST_SEGMENT).fetchall()
            for one in segments_of(records, rows[0] if rows else None):
                row = (one.first, one.last, one.time_ns, len(one.data), one.hash, one.data)
                connection.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?)", row)

    def close(self) -> None:
        """See `ArchiveReader.close`."""
        self._closed = True
        if self._connection is not None:
            with contextlib.suppress(
                apsw.Error
            ):  # of copying the log into the file: what is in the log is durable, too
                self._connection.close(force=True)
            self._connection = None

    def _rows(self, query: str, *values: int) -> list[Any]:
        """None, as long as there is no file."""
        if self._connection is None and not self._closed and not self._path.exists():
            return []
        with self._translating():
            rows: list[Any] = self._opened().execute(query, values).fetchall()
            return rows

    def _drop_to(self, first: int) -> None:
        with self._writing() as connection:
            connection.execute("DELETE FROM segments WHERE first <= ?", (first,))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[apsw.Connection]:
        """A transaction, in a file that is made if it is missing."""
        with self._translating():
            if not self._closed and not self._path.exists():
                make_directory(self._path.parent)
                with sqlite_file.created(self._path, APPLICATION_ID, FILE_FORMAT, PAGE_BYTES, self._vfs) as made:
                    made.execute(_TABLES)
                    made.execute("INSERT INTO meta VALUES (1, ?)", (self._cell,))
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _opened(self) -> apsw.Connection:
        if self._closed:
            raise ArchiveUnavailable(f"{self._path}: the archive is closed: open it again")
        if self._connection is None:
            connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=self._vfs)
            try:
                connection.set_busy_timeout(_BUSY_WAIT_MS)
                self._check(connection)
                connection.pragma("journal_mode", "wal")
                connection.pragma("synchronous", "full")
                connection.pragma("fullfsync", True)  # macOS: its fsync leaves data in the drive's cache
                connection.pragma("checkpoint_fullfsync", True)
            except BaseException:
                connection.close(force=True)
                raise
            self._connection = connection
        return self._connection

    def _check(self, connection: apsw.Connection) -> None:
        found = connection.pragma("application_id"), connection.pragma("user_version")
        if found[0] != APPLICATION_ID:
            raise ArchiveUnavailable(f"{self._path} is not an archive of Merit: move it away")
        if found[1] != FILE_FORMAT:
            raise ArchiveUnavailable(
                f"{self._path} has format {found[1]}, and this version of Merit reads format {FILE_FORMAT}: "
                "use the version that wrote it"
            )
        rows: list[Any] = connection.execute("SELECT cell FROM meta").fetchall()
        if rows != [(self._cell,)]:
            raise ArchiveUnavailable(f"{self._path} is not the archive of cell {self._cell!r}: move it away")

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        """Errors of SQLite and of files as those of the port."""
        try:
            yield
        except (apsw.NotADBError, apsw.CorruptError, apsw.SQLError) as error:
            raise ArchiveUnavailable(
                f"{self._path} is damaged ({error}): restore it from a copy, or move it away"
            ) from error
        except apsw.Error as error:
            raise ArchiveUnavailable(f"{self._path}: {sqlite_file.advice(error)}") from error
        except OSError as error:
            raise ArchiveUnavailable(f"{self._path}: cannot be used: {error}; check permissions and space") from error
