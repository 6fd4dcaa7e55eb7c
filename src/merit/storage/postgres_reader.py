"""Reads a journal that is kept in PostgreSQL; beside its leader, from any process or thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Final, Self

import asyncpg

from merit.model.record import JournalCorrupt, Record, Tail
from merit.ports.journal import JournalCompacted, JournalUnavailable
from merit.storage.postgres_database import Bounds, Database
from merit.storage.record_row import HASH_COLUMN, RecordRow, decode_row
from merit.storage.verify import verified

# One statement takes at most this much; the next one is under way while its rows are worked off.
_CHUNK_ROWS: Final = 256
_CHUNK_BYTES: Final = 4 * 1024 * 1024

_SEQUENCE_MAX: Final = 2**63 - 1
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


class PostgresReader:
    """A `JournalReader` of `cell` in `database`; a cell of which nothing is there yet has an empty journal."""

    def __init__(self, database: Database, cell: str, bounds: Bounds | None = None) -> None:
        self.cell = cell
        self._database = database
        self._session = database.session(f"journal {cell}", JournalUnavailable, bounds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, first: int | None = None, last: int | None = None) -> Iterator[Record]:
        """See `JournalReader.read`."""
        start = self._start(first)
        return verified(self._records(start, last), self._tail_before(start))

    def scan(self, first: int | None = None, last: int | None = None) -> Iterator[Record | JournalCorrupt]:
        """See `JournalReader.scan`."""
        yield from self._records(self._start(first), last)

    def base(self) -> Tail:
        """See `JournalReader.base`."""
        row = self._session.run(lambda connection: connection.fetchrow(_BASE, self.cell))
        return Tail(row["base_next"], row["base_hash"], row["base_epoch"]) if row is not None else Tail()

    def tail(self) -> Tail:
        """See `JournalReader.tail`."""
        tail = self._tail_before(_SEQUENCE_MAX)
        row = self._session.run(lambda connection: connection.fetchrow(_BASE, self.cell))
        return Tail(tail.next, tail.last_hash, max(tail.epoch, row["epoch"] if row is not None else 0))

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
        end = _SEQUENCE_MAX if last is None else last
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

    def _start(self, sequence: int | None) -> int:
        """Where the record that contains `sequence` starts; `sequence` itself when none does. None: the first there is.

        Raises `JournalCompacted`.
        """
        if sequence is None:
            return self.base().next
        row = self._session.run(lambda connection: connection.fetchrow(_START, self.cell, min(sequence, _SEQUENCE_MAX)))
        if row is None:
            self._check_kept(sequence)
        return row["first"] if row is not None and row["last"] >= sequence else sequence

    def _check_kept(self, sequence: int) -> None:
        first = self.base().next
        if sequence < first:
            raise JournalCompacted(self.cell, sequence, first)

    def _tail_before(self, sequence: int) -> Tail:
        """The tail of the records that start before `sequence`. Raises `JournalCorrupt` if the last one is damaged."""
        row = self._session.run(lambda connection: connection.fetchrow(_BEFORE, self.cell, sequence))
        if row is None:
            base = self.base()
            if sequence == _SEQUENCE_MAX:
                check_not_lost(self.cell, base)
            return base
        return checked_tail(self.cell, row)[0]


async def read_tail(connection: asyncpg.Connection[Any], cell: str, base: Tail) -> tuple[Tail, int, int]:
    """Where the records of `cell` end, with the sequence with which the last one begins (0: there is none), and the bytes
    of all up to it. Raises `JournalCorrupt`."""
    row = await connection.fetchrow(_BEFORE, cell, _SEQUENCE_MAX)
    if row is None:
        check_not_lost(cell, base)
        return base, 0, 0
    return *checked_tail(cell, row), row["stored"]


def checked_tail(cell: str, row: asyncpg.Record) -> tuple[Tail, int]:
    """The tail after the record of a row, and with which sequence that begins. Raises `JournalCorrupt`."""
    stored: RecordRow = tuple(row)[:9]
    record = decode_row(cell, stored)
    if isinstance(record, JournalCorrupt):
        raise record
    return Tail(record.last + 1, stored[HASH_COLUMN], record.epoch), record.first


def check_not_lost(cell: str, base: Tail) -> None:
    """Raises `JournalCorrupt` for a journal without records which must have some."""
    if base.next > 1:
        raise JournalCorrupt(
            cell, base.next, "there is no record, though compaction never removes the last one: restore them"
        )
