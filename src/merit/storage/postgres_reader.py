"""Reads a journal that is kept in PostgreSQL; beside its leader, from any process or thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Final

import asyncpg

from merit.model.record import JournalCorrupt, Record, Tail
from merit.ports.journal import JournalUnavailable
from merit.storage.journal_rows import SEQUENCE_MAX, JournalRows, check_not_lost, checked_tail
from merit.storage.postgres_database import Bounds, Database
from merit.storage.record_row import RecordRow, decode_row

# One statement takes at most this much; the next one is under way while its rows are worked off.
_CHUNK_ROWS: Final = 256
_CHUNK_BYTES: Final = 4 * 1024 * 1024

_CHUNK: Final = """
SELECT first, last, epoch, time_ns, hash, payloads_crc, header, events, payloads FROM (
    SELECT *, sum(bytes) OVER (ORDER BY first) - bytes AS bytes_before FROM (
        SELECT *, octet_length(events) + octet_length(payloads) AS bytes FROM merit.records
        WHERE cell = $1 AND first BETWEEN $2 AND $3 ORDER BY first LIMIT $4
    ) AS rows
) AS chunk WHERE bytes_before < $5 ORDER BY first
"""
_BEFORE: Final = """
SELECT first, last, epoch, time_ns, hash, payloads_crc, header, events, payloads, stored FROM merit.records
WHERE cell = $1 AND first < $2 ORDER BY first DESC LIMIT 1
"""
_START: Final = "SELECT first, last FROM merit.records WHERE cell = $1 AND first <= $2 ORDER BY first DESC LIMIT 1"
_BASE: Final = "SELECT base_next, base_hash, base_epoch, epoch FROM merit.lease WHERE cell = $1"
_SIZE: Final = """
SELECT coalesce((SELECT stored FROM merit.records WHERE cell = $1 ORDER BY first DESC LIMIT 1), 0)
    - coalesce((SELECT stored - octet_length(header) - octet_length(events) - octet_length(payloads)
        FROM merit.records WHERE cell = $1 ORDER BY first LIMIT 1), 0)
"""


class PostgresReader(JournalRows):
    """A `JournalReader` of `cell` in `database`; a cell of which nothing is there yet has an empty journal."""

    def __init__(self, database: Database, cell: str, bounds: Bounds | None = None) -> None:
        super().__init__(cell)
        self._database = database
        self._session = database.session(f"journal {cell}", JournalUnavailable, bounds)

    def scan(self, first: int | None = None, last: int | None = None) -> Iterator[Record | JournalCorrupt]:
        """See `JournalReader.scan`."""
        yield from self._records(self._start(first), last)

    def base(self) -> Tail:
        """See `JournalReader.base`."""
        row = self._row(_BASE)
        return Tail(row["base_next"], row["base_hash"], row["base_epoch"]) if row is not None else Tail()

    def size_bytes(self) -> int:
        """See `JournalReader.size_bytes`. What its records hold: the tables take about a tenth more, and keep the room of
        what has been compacted away for what comes."""
        return self._session.run(self._size)

    async def _size(self, connection: asyncpg.Connection[Any]) -> int:
        return await connection.fetchval(_SIZE, self.cell) or 0

    def close(self) -> None:
        """See `JournalReader.close`."""
        self._session.close()

    def _records(self, start: int, last: int | None) -> Iterator[Record | JournalCorrupt]:
        end = SEQUENCE_MAX if last is None else last
        following = start
        if start > end:
            return
        chunk = self._chunk(start, end)
        while True:
            rows = chunk.result()
            if not rows or rows[0][0] > following:
                self._check_kept(following)
            if not rows:
                return
            start, following = rows[-1][0] + 1, rows[-1][1] + 1
            if start <= end:
                chunk = self._chunk(start, end)
            for row in rows:
                yield decode_row(self.cell, row)
            if start > end:
                return

    def _chunk(self, start: int, end: int) -> Future[list[RecordRow]]:
        async def fetched(connection: asyncpg.Connection[Any]) -> list[RecordRow]:
            rows = await connection.fetch(_CHUNK, self.cell, start, end, _CHUNK_ROWS, _CHUNK_BYTES)
            return [tuple(row) for row in rows]

        return self._session.start(fetched)

    def _epoch(self) -> int:
        row = self._row(_BASE)
        return row["epoch"] if row is not None else 0

    def _before(self, sequence: int) -> RecordRow | None:
        row = self._row(_BEFORE, sequence)
        return _stored(row) if row is not None else None

    def _reach(self, sequence: int) -> tuple[int, int] | None:
        row = self._row(_START, min(sequence, SEQUENCE_MAX))
        return (row["first"], row["last"]) if row is not None else None

    def _row(self, query: str, *values: int) -> asyncpg.Record | None:
        return self._session.run(lambda connection: connection.fetchrow(query, self.cell, *values))


async def read_tail(connection: asyncpg.Connection[Any], cell: str, base: Tail) -> tuple[Tail, int, int]:
    """Where the records of `cell` end, with the sequence with which the last one begins (0: there is none), and the bytes
    of all up to it. Raises `JournalCorrupt`."""
    row = await connection.fetchrow(_BEFORE, cell, SEQUENCE_MAX)
    if row is None:
        check_not_lost(cell, base)
        return base, 0, 0
    return *checked_tail(cell, _stored(row)), row["stored"]


def _stored(row: asyncpg.Record) -> RecordRow:
    """What a row of `_BEFORE` has of a record."""
    found: RecordRow = tuple(row)[:9]
    return found
