"""The archive in PostgreSQL, beside the journal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import asyncpg

from merit.model.record import Record
from merit.model.trail import SignedAnchor, check_follows
from merit.ports.archive import ArchiveUnavailable
from merit.storage.archive_rows import ArchiveRows, own_anchor
from merit.storage.postgres_database import Database
from merit.storage.segments import segments_of

_LAST_SEGMENT: Final = "SELECT last, hash FROM merit.segments WHERE cell = $1 ORDER BY first DESC LIMIT 1"
_SAME_ANCHOR: Final = "SELECT 1 FROM merit.anchors WHERE cell = $1 AND first = $2 AND data = $3"
_ADD_ANCHOR: Final = (
    "INSERT INTO merit.anchors (cell, first, last, data, signature, key) VALUES ($1, $2, $3, $4, $5, $6)"
)
_ADD_SEGMENT: Final = """
INSERT INTO merit.segments (cell, first, last, time_ns, bytes, hash, data) VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
# Two followers of one cell, of whom one does not know yet that it is over, take turns; the second one sees what is there.
_TURN: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1, 1))"


class PostgresArchive(ArchiveRows):
    """An `Archive` of `cell` in `database`. What is written is durable on return."""

    _HELD = """
    SELECT coalesce(min(first), 0), coalesce(max(last), 0),
        (SELECT coalesce(max(last), 0) FROM merit.anchors WHERE cell = $1), coalesce(sum(bytes), 0)::bigint
    FROM merit.segments WHERE cell = $1
    """
    _SEGMENT = """
    SELECT first, last, data FROM merit.segments
    WHERE cell = $1 AND first >= (SELECT coalesce(max(first), 0) FROM merit.segments WHERE cell = $1 AND first <= $2)
        AND first <= $3 AND last >= $2
    ORDER BY first LIMIT 1
    """
    _ANCHORS = """
    SELECT last, data, signature, key FROM merit.anchors
    WHERE cell = $1 AND first >= (SELECT coalesce(max(first), 0) FROM merit.anchors WHERE cell = $1 AND first <= $2)
        AND first <= $3 AND last >= $2
    ORDER BY first LIMIT 256
    """
    _LAST_ANCHOR = "SELECT data, signature, key FROM merit.anchors WHERE cell = $1 ORDER BY first DESC LIMIT 1"
    _OLDEST = "SELECT first, time_ns, bytes FROM merit.segments WHERE cell = $1 ORDER BY first LIMIT $2"

    def __init__(self, database: Database, cell: str) -> None:
        super().__init__(f"archive of cell {cell!r} in {database.place}", cell)
        self._session = database.session(f"archive {cell}", ArchiveUnavailable)

    def add_anchor(self, anchor: SignedAnchor) -> None:
        """See `Archive.add_anchor`."""
        wanted = own_anchor(anchor, self._cell)

        async def add(connection: asyncpg.Connection[Any]) -> None:
            if await connection.fetchrow(_SAME_ANCHOR, self._cell, wanted.first, anchor.data) is not None:
                return
            row = await connection.fetchrow(self._LAST_ANCHOR, self._cell)
            check_follows(wanted, SignedAnchor(*row) if row is not None else None)
            values = (self._cell, wanted.first, wanted.last, anchor.data, anchor.signature, anchor.key)
            await connection.execute(_ADD_ANCHOR, *values)

        self._write(add)

    def add_segment(self, records: Sequence[Record]) -> None:
        """See `Archive.add_segment`."""

        async def add(connection: asyncpg.Connection[Any]) -> None:
            row = await connection.fetchrow(_LAST_SEGMENT, self._cell)
            for one in segments_of(records, (row["last"], row["hash"]) if row is not None else None):
                values = (self._cell, one.first, one.last, one.time_ns, len(one.data), one.hash, one.data)
                await connection.execute(_ADD_SEGMENT, *values)

        self._write(add)

    def close(self) -> None:
        """See `ArchiveReader.close`."""
        self._session.close()

    def _rows(self, query: str, *values: int) -> list[Any]:
        return self._session.run(lambda connection: connection.fetch(query, self._cell, *values))

    def _drop_to(self, first: int) -> None:
        self._rows("DELETE FROM merit.segments WHERE cell = $1 AND first <= $2", first)

    def _write(self, work: Callable[[asyncpg.Connection[Any]], Awaitable[None]]) -> None:
        """All of it or nothing; one after the other, whoever else writes."""

        async def write(connection: asyncpg.Connection[Any]) -> None:
            async with connection.transaction():
                await connection.execute(_TURN, self._cell)
                await work(connection)

        self._session.run(write)
