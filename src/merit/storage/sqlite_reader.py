"""Reads a journal that is kept in SQLite; beside its leader, from any process or thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import apsw

from merit.model.record import Record, Tail
from merit.ports.journal import JournalCorrupt, JournalUnavailable
from merit.storage import sqlite_format, sqlite_log
from merit.storage.journal_rows import SEQUENCE_MAX, JournalRows
from merit.storage.record_row import RecordRow, decode_row

# One read transaction takes at most this much, so that a slow reader never keeps the write-ahead log from being reused.
_CHUNK_ROWS: Final = 256
_CHUNK_BYTES: Final = 4 * 1024 * 1024

_SELECT: Final = "SELECT first, last, epoch, time_ns, hash, payloads_crc, header, events, payloads FROM records "
_CHUNK: Final = f"{_SELECT} WHERE first BETWEEN ? AND ? ORDER BY first LIMIT {_CHUNK_ROWS}"
_BEFORE: Final = f"{_SELECT} WHERE first < ? ORDER BY first DESC LIMIT 1"
_META: Final = "SELECT * FROM meta"  # so that files of all formats can be asked: the base comes last, if there is one
_META_COLUMNS: Final = 5


class SqliteReader(JournalRows):
    """A `JournalReader` of the file at `path` through `connection`, which it closes."""

    def __init__(self, connection: apsw.Connection | None, path: Path, cell: str) -> None:
        super().__init__(cell)
        self._connection = connection
        self._path = path

    def base(self) -> Tail:
        """See `JournalReader.base`."""
        return Tail(*self._rows(_META)[0][_META_COLUMNS:])

    def scan(self, first: int | None = None, last: int | None = None) -> Iterator[Record | JournalCorrupt]:
        """See `JournalReader.scan`. Without `last`, damage of the log that hides later records comes at the end."""
        following = start = self._start(first)
        for record in self._records(start, last):
            following = record.last + 1 if isinstance(record, Record) else record.sequence + 1
            yield record
        if last is None and (damage := self._log_damage()) is not None:
            yield JournalCorrupt(self.cell, following, damage.reason)

    def _log_damage(self) -> sqlite_log.LogDamage | None:
        try:
            return sqlite_log.find_damage(self._path)
        except OSError as error:
            raise JournalUnavailable(f"{sqlite_log.log_path(self._path)}: cannot be read: {error.strerror}") from error

    def _records(self, start: int, last: int | None) -> Iterator[Record | JournalCorrupt]:
        end = SEQUENCE_MAX if last is None else last
        following = start
        while start <= end:
            try:
                rows, more = self._chunk(start, end)
            except JournalCorrupt as error:
                yield JournalCorrupt(self.cell, start, error.reason)
                start = self._beyond_damage(start, end)
                continue
            if not rows or rows[0][0] > following:
                self._check_kept(following)
            for row in rows:
                yield decode_row(self.cell, row)
            if not more:
                return
            start, following = rows[-1][0] + 1, rows[-1][1] + 1

    def size_bytes(self) -> int:
        """See `JournalReader.size_bytes`; includes the write-ahead log, and leaves out what compaction has freed."""
        return self._content_bytes() + self._log_bytes()

    def _content_bytes(self) -> int:
        pages: int = self._rows("PRAGMA page_count")[0][0]
        free: int = self._rows("PRAGMA freelist_count")[0][0]
        return (pages - free) * sqlite_format.PAGE_BYTES

    def _log_bytes(self) -> int:
        log = sqlite_log.log_path(self._path)
        try:
            return log.stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise JournalUnavailable(f"{log}: cannot be looked at: {error.strerror}") from error

    def close(self) -> None:
        """See `JournalReader.close`."""
        if self._connection is not None:
            self._connection.close(force=True)
            self._connection = None

    def _rows(self, query: str, *values: int) -> list[Any]:
        return self._limited_rows(query, values)[0]

    def _limited_rows(self, query: str, values: tuple[int, ...]) -> tuple[list[RecordRow], bool]:
        """Rows of `query` up to `_CHUNK_BYTES`, or up to damage; raises at damage of the first. Whether there may be
        more."""
        if self._connection is None:
            raise JournalUnavailable(f"{self._path}: the journal is closed: open it again")
        rows: list[RecordRow] = []
        size = 0
        try:
            cursor = self._connection.execute(query, values)
            for row in cursor:
                rows.append(row)
                size += sum(len(field) for field in row if isinstance(field, bytes))
                if size >= _CHUNK_BYTES:
                    cursor.close(force=True)
                    return rows, True
        except apsw.Error as error:
            if not rows:
                raise sqlite_format.translated(error, self._path, self.cell) from error
            return rows, True
        return rows, len(rows) == _CHUNK_ROWS

    def _chunk(self, start: int, end: int) -> tuple[list[RecordRow], bool]:
        return self._limited_rows(_CHUNK, (start, end))

    def _epoch(self) -> int:
        epoch: int = self._rows("SELECT epoch FROM meta")[0][0]
        return epoch

    def _before(self, sequence: int) -> RecordRow | None:
        rows = self._rows(_BEFORE, sequence)
        return rows[0] if rows else None

    def _reach(self, sequence: int) -> tuple[int, int] | None:
        row = self._before(min(sequence, SEQUENCE_MAX - 1) + 1)
        return row[:2] if row is not None else None

    def _beyond_damage(self, start: int, end: int) -> int:
        """The first sequence after `start` from which on SQLite can read again; beyond `end` if there is none."""
        # Damage covers pages, thus ranges: ever larger steps find an end of it, and halving finds where it ends first.
        damaged, readable = start, start + 1
        while not self._readable(readable, end):
            damaged, readable = readable, start + 2 * (readable - start)
            if readable > end:
                return SEQUENCE_MAX + 1
        while readable - damaged > 1:
            middle = (damaged + readable) // 2
            if self._readable(middle, end):
                readable = middle
            else:
                damaged = middle
        return readable

    def _readable(self, start: int, end: int) -> bool:
        try:
            self._chunk(start, end)
        except JournalCorrupt:
            return False
        return True


def open_reader(directory: Path, cell: str | None = None, vfs: str | None = None) -> SqliteReader:
    """Opens the journal in `directory` for reading only; nothing of it is changed, and its leader is not disturbed.

    With `cell`, refuses the journal of another one. Raises `JournalForeign`, `JournalCorrupt`, `JournalUnavailable`.
    """
    path = directory / sqlite_format.FILE_NAME
    if not path.is_file():
        raise JournalUnavailable(f"{path}: there is no journal; check the directory")
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
        try:
            connection.set_busy_timeout(sqlite_format.BUSY_WAIT_MS)
            found = sqlite_format.check(connection, path, cell)
        except BaseException:
            connection.close(force=True)
            raise
    except apsw.Error as error:
        raise sqlite_format.translated(error, path, cell or "") from error
    return SqliteReader(connection, path, found)
