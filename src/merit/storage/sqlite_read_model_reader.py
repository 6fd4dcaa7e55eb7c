"""Searches a read model that is kept in SQLite; beside its follower, from any process or thread.

Every question is a few statements that give one row each, made to JSON by SQLite: a thread that took row by row would wait
for the interpreter's lock as often, beside a cell that is busy.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

import apsw
import msgspec

from merit.core.state import KeyEntry
from merit.model.search import TaskQuery, TaskRow, WorkerQuery, WorkerRow, row_of
from merit.model.tasks import Task
from merit.ports.read_model import ORDER_END, PAGE_MAX, Reached, ReadModelUnavailable, TaskPage
from merit.storage import sqlite_read_model_format as layout
from merit.storage.search_terms import SPAN_BITS, WORD, page_of, question
from merit.storage.sqlite_read_model_format import BUCKET_BITS

EFFORT_S: Final = 0.025
"""A search that has taken so long ends with what it has, after the step that it is in."""
_BUCKETS_FIRST: Final = 4
"""In the first step; each step takes twice as many as the one before …"""
_BUCKETS_MAX: Final = 32
_STEP_S: Final = EFFORT_S / 5
"""… unless that took longer than this."""
_IDS_AT_A_TIME: Final = 500
_KEYS_AT_A_TIME: Final = 20_000

_LOWEST: Final = f"""
SELECT min(span) << {SPAN_BITS} FROM spans WHERE submitted_last_ns >= :since AND submitted_first_ns < :until
"""  # noqa: S608  (what is put in are constants of this program)
_HIGHEST: Final = f"""
SELECT min(:high, ((span + 1) << {SPAN_BITS}) - 1) FROM spans
WHERE span <= :high >> {SPAN_BITS} AND submitted_last_ns >= :since AND submitted_first_ns < :until
ORDER BY span DESC LIMIT 1
"""  # noqa: S608  (what is put in are constants of this program)
_PLAIN: Final = """
SELECT json_group_array(json_array(place, length)) FROM (
    SELECT place, length(task) AS length FROM tasks
    WHERE place BETWEEN :low AND :high AND submitted_ns >= :since AND submitted_ns < :until
    ORDER BY place DESC LIMIT :limit)
"""
_IN_BUCKET: Final = f"""
SELECT * FROM (
    SELECT place, length(task) AS length FROM tokens CROSS JOIN tasks ON place = tokens.rowid
    WHERE tokens MATCH replace(:match, '@', format('%06x', (:high >> {BUCKET_BITS}) - %d))
        AND tokens.rowid BETWEEN :low AND :high AND submitted_ns >= :since AND submitted_ns < :until
    ORDER BY tokens.rowid DESC LIMIT :limit)
"""  # noqa: S608  (what is put in are constants of this program)


@cache
def _by_tokens(buckets: int) -> str:
    """So many buckets, one after the other: nothing is sorted, and nothing looked at beyond the limit."""
    together = " UNION ALL ".join(_IN_BUCKET.replace("%d", str(bucket)) for bucket in range(buckets))
    return f"SELECT json_group_array(json_array(place, length)) FROM ({together} LIMIT :limit)"  # noqa: S608  (as above)


_BY_ORDER: Final = """
SELECT json_group_array(json_array(sequence, content, json(task))) FROM tasks
WHERE place IN (SELECT value FROM json_each(?))
"""
_BY_ID: Final = """
SELECT json_group_array(json_array(sequence, content, json(task))) FROM tasks
WHERE id IN (SELECT unhex(value, '-') FROM json_each(?)) AND place < ?
"""
_KEYS: Final = """
SELECT json_group_array(json_array(wanted.value->>0, tasks.key, task->>0, content, place))
FROM jsonb_each(jsonb(?)) AS wanted CROSS JOIN tasks
ON tasks.key = wanted.value->>1 AND task->>1 = wanted.value->>0
"""
_WORKERS: Final = """
SELECT json_group_array(json_array(first_ns, json(worker))) FROM (
    SELECT first_ns, worker FROM workers
    WHERE name > :after AND name BETWEEN :name AND :name || char(1114111)
        AND (:here IS NULL OR (left_ns = 0) = :here) AND left_ns >= :left_from AND left_ns < :left_to
        AND (:capability = '' OR EXISTS (SELECT 1 FROM jsonb_each(worker, '$[3]') WHERE atom = :capability))
        AND (:tag = '' OR EXISTS (SELECT 1 FROM jsonb_each(worker, '$[4]') WHERE atom = :tag))
    ORDER BY name LIMIT :limit)
"""
_OLDEST_NS: Final = """
SELECT coalesce(min(first_ns), 0) FROM (
    SELECT min(ended_first_ns) AS first_ns FROM spans UNION ALL SELECT min(left_ns) FROM workers WHERE left_ns > 0)
"""
_SIZE: Final = """
SELECT (page_count - freelist_count) * page_size
FROM pragma_page_count() CROSS JOIN pragma_freelist_count() CROSS JOIN pragma_page_size()
"""

_decode_hits = msgspec.json.Decoder(list[tuple[int, int]]).decode
_decode_rows = msgspec.json.Decoder(list[tuple[int, str, Task]]).decode
_decode_keys = msgspec.json.Decoder(list[tuple[str, str, str, str, int]]).decode
_decode_workers = msgspec.json.Decoder(list[tuple[int, WorkerRow]]).decode
_encode = msgspec.json.Encoder().encode


class SqliteReadModelReader:
    """A `ReadModelReader` through `connection`, which it closes, of the file at `path`, which is `file` (`file_at`)."""

    def __init__(
        self,
        connection: apsw.Connection | None,
        path: Path,
        cell: str,
        file: tuple[int, int],
        effort_s: float = EFFORT_S,
    ) -> None:
        self._connection = connection
        self._path = path
        self.cell = cell
        self._file = file
        self._effort_s = effort_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reached(self) -> Reached:
        """See `ReadModelReader.reached`."""
        sequence, time_ns = self._row("SELECT sequence, time_ns FROM meta")
        return Reached(sequence, time_ns)

    def find(self, query: TaskQuery, before: int, limit: int) -> TaskPage:
        """See `ReadModelReader.find`."""
        wanted = max(1, min(limit, PAGE_MAX))
        values: dict[str, Any] = {
            "since": query.submitted_from_ns,
            "until": query.submitted_to_ns,
            "match": _match(query),
        }
        lowest = self._row(_LOWEST, values)[0]
        if lowest is None:
            return TaskPage((), more=False, before=0)
        ends_s = time.monotonic() + self._effort_s
        high, buckets, hits = before - 1, _BUCKETS_FIRST, list[tuple[int, int]]()
        while high >= lowest and len(hits) < wanted:
            began_s = time.monotonic()
            values["high"] = high = (self._row(_HIGHEST, {**values, "high": high}) or (0,))[0]
            low = max(lowest, ((high >> BUCKET_BITS) - buckets + 1) << BUCKET_BITS)
            values.update(low=low, limit=wanted - len(hits))
            statement = _by_tokens(1 + (high >> BUCKET_BITS) - (low >> BUCKET_BITS)) if values["match"] else _PLAIN
            hits += _decode_hits(self._row(statement, values)[0])
            high = low - 1
            ended_s = time.monotonic()
            if ended_s >= ends_s:
                break
            if ended_s - began_s < _STEP_S:
                buckets = min(2 * buckets, _BUCKETS_MAX)
        more = high >= lowest or len(hits) == wanted
        kept = page_of(hits)
        if len(kept) < len(hits) or len(hits) == wanted:
            more, high = True, kept[-1] - 1
        rows = self._rows(_BY_ORDER, kept)
        rows.sort(key=lambda row: -row.order)
        return TaskPage(tuple(rows), more, high + 1 if more else 0)

    def tasks(self, ids: Sequence[str], before: int = ORDER_END) -> list[TaskRow]:
        """See `ReadModelReader.tasks`."""
        found: dict[str, TaskRow] = {}
        for start in range(0, len(ids), _IDS_AT_A_TIME):
            for row in self._rows(_BY_ID, ids[start : start + _IDS_AT_A_TIME], before):
                known = found.get(row.id)
                if known is None or known.order < row.order:
                    found[row.id] = row
        return list(found.values())

    def keys(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], KeyEntry]:
        """See `ReadModelReader.keys`."""
        found: dict[tuple[str, str], tuple[int, KeyEntry]] = {}
        for start in range(0, len(wanted), _KEYS_AT_A_TIME):
            asked = _encode(wanted[start : start + _KEYS_AT_A_TIME]).decode()
            for tenant, key, task, content, order in _decode_keys(self._row(_KEYS, (asked,))[0]):
                known = found.get((tenant, key))
                if known is None or known[0] < order:
                    found[tenant, key] = (order, KeyEntry(task, bytes.fromhex(content), 0))
        return {at: entry for at, (_, entry) in found.items()}

    def workers(self, query: WorkerQuery, after: str, limit: int) -> list[WorkerRow]:
        """See `ReadModelReader.workers`."""
        values = {
            "after": after,
            "name": query.name,
            "here": query.here,
            "left_from": query.left_from_ns,
            "left_to": query.left_to_ns,
            "capability": query.capability,
            "tag": query.tag,
            "limit": max(1, min(limit, PAGE_MAX)),
        }
        rows = _decode_workers(self._row(_WORKERS, values)[0])
        return [msgspec.structs.replace(row, first_ns=first_ns) for first_ns, row in rows]

    def oldest_ns(self) -> int:
        """See `ReadModelReader.oldest_ns`."""
        found: int = self._row(_OLDEST_NS)[0]
        return found

    def size_bytes(self) -> int:
        """See `ReadModelReader.size_bytes`. The file does not shrink, and pages that are free are used again; the write-ahead
        log comes on top, which is bounded."""
        size: int = self._row(_SIZE)[0]
        return size

    def close(self) -> None:
        """See `ReadModelReader.close`."""
        if self._connection is not None:
            self._connection.close(force=True)
            self._connection = None

    def _rows(self, statement: str, wanted: Sequence[int | str], *more: int) -> list[TaskRow]:
        if not wanted:
            return []
        found = _decode_rows(self._row(statement, (_encode(wanted).decode(), *more))[0])
        return [row_of(task, sequence, content) for sequence, content, task in found]

    def _row(self, statement: str, values: Any = ()) -> Any:
        """The one row of a statement. Raises `ReadModelUnavailable`."""
        connection = self._check_usable()
        try:
            return connection.execute(statement, values).fetchone()
        except apsw.Error as error:
            raise layout.unavailable(error, self._path) from error

    def _check_usable(self) -> apsw.Connection:
        """The connection. Raises `ReadModelUnavailable`."""
        if self._connection is None:
            raise ReadModelUnavailable(f"{self._path}: the read model is closed: open it again")
        if file_at(self._path) != self._file:
            raise ReadModelUnavailable(f"{self._path}: the read model was begun anew: open it again")
        return self._connection


def open_read_model(path: Path, cell: str, *, effort_s: float = EFFORT_S) -> SqliteReadModelReader:
    """Opens the read model at `path` for reading only; its follower is not disturbed.

    Raises `ReadModelUnavailable`, also while there is none yet, or one that its follower will begin anew.
    """
    if not path.is_file():
        raise ReadModelUnavailable(f"{path}: there is no read model yet; the follower makes it")
    file = file_at(path)  # before it is opened: one that takes its place meanwhile is noticed
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(layout.BUSY_WAIT_MS)
            reason = layout.check(connection, cell)
            if reason:
                raise ReadModelUnavailable(f"{path}: {reason}; the follower begins it anew when it starts")
        except BaseException:
            connection.close(force=True)
            raise
    except apsw.Error as error:
        raise layout.unavailable(error, path) from error
    return SqliteReadModelReader(connection, path, cell, file, effort_s)


def log_path(path: Path) -> Path:
    """Where SQLite keeps the write-ahead log of a file."""
    return path.with_name(f"{path.name}-wal")


def _match(query: TaskQuery) -> str:
    """The question to the full-text index, with `@` for the bucket; empty: there is nothing to ask it."""
    return question(
        query,
        term=lambda kind, value: f'"@{layout.exact(kind, value)}"',
        begun=lambda word: f'"@{WORD}{word}"*',
        both=" AND ",
        either=" OR ",
    )


def file_at(path: Path) -> tuple[int, int]:
    """Which file is there: a read model that is begun anew is another one."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)
