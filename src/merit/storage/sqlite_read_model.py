"""The read model in one SQLite file beside the journal: the default on one machine.

It can be made again from what the journal still has, so it is not synced with each portion (`synchronous=NORMAL`): a power cut may take the
last portions, all of each and with all after them, and the follower writes them again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import apsw
import msgspec

from merit.model.search import TaskRow
from merit.ports.read_model import Portion, ReadModelUnavailable, Superseded
from merit.storage import sqlite_file
from merit.storage import sqlite_read_model_format as layout
from merit.storage.durable_files import make_directory
from merit.storage.search_terms import SPAN_BITS, spans_of
from merit.storage.sqlite_read_model_reader import SqliteReadModelReader, file_at, log_path

log = logging.getLogger("merit")

WAL_BYTES_DUE: Final = 8 * 1024 * 1024
"""Size of the write-ahead log from which on a portion ends with a checkpoint. As short as the journal's: both are synced to
one disk, and the journal waits while this is."""
_CACHE_KIB: Final = 32 * 1024
_ENCODED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Rows that are larger together are stored by several statements."""

_ADVANCE: Final = "UPDATE meta SET sequence = ?, time_ns = ? WHERE sequence = ?"
_OLDEST: Final = "SELECT span FROM spans WHERE ended_first_ns < ? ORDER BY span LIMIT 1"
_ENDED: Final = f"""
SELECT json_group_array(place) FROM (
    SELECT place FROM tasks WHERE place BETWEEN :span << {SPAN_BITS} AND ((:span + 1) << {SPAN_BITS}) - 1
        AND ended_ns < :before
    ORDER BY place LIMIT :limit)
"""  # noqa: S608  (what is put in are constants of this program)
_DROP_TASKS: Final = "DELETE FROM tasks WHERE place IN (SELECT value FROM json_each(?))"
_DROP_TOKENS: Final = "DELETE FROM tokens WHERE rowid IN (SELECT value FROM json_each(?))"
_NARROW_SPAN: Final = f"""
INSERT INTO spans SELECT :span, min(submitted_ns), max(submitted_ns), min(ended_ns) FROM tasks
WHERE place BETWEEN :span << {SPAN_BITS} AND ((:span + 1) << {SPAN_BITS}) - 1 HAVING count(*) > 0
"""  # noqa: S608  (what is put in are constants of this program)
_DROP_WORKERS: Final = """
DELETE FROM workers WHERE name IN (
    SELECT name FROM workers WHERE left_ns > 0 AND left_ns < ? ORDER BY left_ns LIMIT ?)
"""

_encode = msgspec.json.Encoder().encode


class SqliteReadModel(SqliteReadModelReader):
    """A `ReadModel` of `cell` in the file at `path`, which is made when it is missing.

    What cannot be gone on with (another version, another cell, damage) is removed, and begun anew with nothing in it; the
    log says so. Raises `ReadModelUnavailable`.
    """

    def __init__(self, path: Path, cell: str) -> None:
        super().__init__(None, path, cell, (0, 0))
        self._wal_bytes = 0
        self._open()

    def write(self, portion: Portion) -> None:
        """See `ReadModel.write`. May be called in a thread: SQLite does nearly all of it, without the interpreter's lock."""
        with self._transaction() as connection:
            until = portion.until
            connection.execute(_ADVANCE, (until.sequence, until.time_ns, portion.after))
            if not connection.changes():
                raise Superseded(
                    f"{self._path}: the read model is at {self.reached().sequence:,}, and not at {portion.after:,}: another "
                    "follower is at work; end one of them"
                )
            if portion.tasks:
                _store(connection, portion.tasks)
                connection.execute(layout.INSERT_SPANS, (_encode(spans_of(portion.tasks)).decode(),))
            if portion.workers:
                connection.execute(layout.INSERT_WORKERS, (_encode(portion.workers).decode(),))
        self._checkpoint()

    def forget(self, ended_before_ns: int, count_max: int) -> int:
        """See `ReadModel.forget`; by spans of 1,024 orders, the lowest first."""
        dropped = 0
        with self._transaction() as connection:
            while dropped < count_max:
                span = connection.execute(_OLDEST, (ended_before_ns,)).get
                if span is None:
                    break
                dropped += _forget_in(connection, span, ended_before_ns, count_max - dropped)
            connection.execute(_DROP_WORKERS, (ended_before_ns, count_max - dropped))
            dropped += connection.changes()
        self._checkpoint()
        return dropped

    def clear(self) -> None:
        """See `ReadModel.clear`; whoever reads it has to open it again."""
        self._check_usable()
        self._begin_anew()

    def _open(self) -> None:
        reason = ""
        try:
            make_directory(self._path.parent)
            if self._path.exists():
                self._connect()
                reason = layout.check(self._check_usable(), self.cell)
        except apsw.Error as error:
            if not layout.is_damage(error):
                self.close()
                raise layout.unavailable(error, self._path) from error
            reason = f"it is damaged ({error})"
        except OSError as error:
            raise self._unusable(error) from error
        if reason:
            log.warning("%s: the read model is begun anew: %s", self._path, reason)
        if reason or self._connection is None:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self.close()
        try:
            # The file first: SQLite takes a log without one for nothing, but a log that is not its own for its own.
            for name in (self._path, log_path(self._path), self._path.with_name(f"{self._path.name}-shm")):
                name.unlink(missing_ok=True)
            with sqlite_file.created(
                self._path, layout.APPLICATION_ID, layout.FILE_FORMAT, layout.PAGE_BYTES
            ) as connection:
                connection.execute(layout.TABLES)
                connection.execute("INSERT INTO meta VALUES (1, ?, 0, 0)", (self.cell,))
            self._connect()
        except apsw.Error as error:
            self.close()
            raise layout.unavailable(error, self._path) from error
        except OSError as error:
            raise self._unusable(error) from error

    def _connect(self) -> None:
        self._connection = connection = apsw.Connection(str(self._path))
        self._file = file_at(self._path)
        connection.set_busy_timeout(layout.BUSY_WAIT_MS)
        connection.transaction_mode = "IMMEDIATE"
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "normal")
        connection.pragma("wal_autocheckpoint", 0)
        connection.pragma("journal_size_limit", 4 * WAL_BYTES_DUE)
        connection.pragma("cache_size", -_CACHE_KIB)
        connection.pragma("temp_store", "memory")
        connection.set_wal_hook(self._note_log)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[apsw.Connection]:
        """All or nothing. A file that turns out to be damaged is removed, so that it is begun anew when it is next opened."""
        connection = self._check_usable()
        try:
            with connection:
                yield connection
        except apsw.Error as error:
            raise self._failed(error) from error

    def _checkpoint(self) -> None:
        if self._wal_bytes < WAL_BYTES_DUE:
            return
        try:
            self._check_usable().wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            return  # somebody else is at it
        except apsw.Error as error:
            raise self._failed(error) from error

    def _note_log(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        """Called by SQLite after each commit with the length of the log."""
        self._wal_bytes = pages * layout.PAGE_BYTES
        return apsw.SQLITE_OK

    def _failed(self, error: apsw.Error) -> ReadModelUnavailable:
        if not layout.is_damage(error):
            return layout.unavailable(error, self._path)
        self._begin_anew()
        self.close()
        return ReadModelUnavailable(
            f"{self._path}: the read model was damaged ({error}), and was begun anew: open it again"
        )

    def _unusable(self, error: OSError) -> ReadModelUnavailable:
        return ReadModelUnavailable(f"{self._path}: cannot be used: {error}; check permissions and space")


def _store(connection: apsw.Connection, tasks: Sequence[TaskRow]) -> None:
    encoded = _encode(tasks)
    if len(encoded) > _ENCODED_BYTES_MAX and len(tasks) > 1:
        middle = len(tasks) // 2
        del encoded
        _store(connection, tasks[:middle])
        _store(connection, tasks[middle:])
        return
    # Parsed once, for both.
    parsed = connection.execute("SELECT jsonb(?)", (encoded.decode(),)).get
    connection.execute(layout.INSERT_TASKS, (parsed,))
    connection.execute(layout.INSERT_TOKENS, (parsed,))


def _forget_in(connection: apsw.Connection, span: int, ended_before_ns: int, count_max: int) -> int:
    """Drops tasks of one span, and notes what is left of it; how many."""
    values = {"span": span, "before": ended_before_ns, "limit": count_max}
    ended = connection.execute(_ENDED, values).get
    connection.execute(_DROP_TOKENS, (ended,))
    connection.execute(_DROP_TASKS, (ended,))
    dropped = connection.changes()
    connection.execute("DELETE FROM spans WHERE span = ?", (span,))
    connection.execute(_NARROW_SPAN, {"span": span})
    return dropped
