"""The archive in PostgreSQL, beside the journal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

import asyncpg

from merit.model.record import Record
from merit.model.trail import SignedAnchor, check_follows, decode_anchor
from merit.ports.archive import Archived, ArchiveUnavailable
from merit.storage.postgres_database import Database
from merit.storage.segments import records_in, segments_of

_DROPPED_MAX: Final = 16
"""Segments that one transaction drops."""

_HELD: Final = """
SELECT coalesce(min(first), 0), coalesce(max(last), 0),
    (SELECT coalesce(max(last), 0) FROM merit.anchors WHERE cell = $1), coalesce(sum(bytes), 0)::bigint
FROM merit.segments WHERE cell = $1
"""
_LAST_SEGMENT: Final = "SELECT last, hash FROM merit.segments WHERE cell = $1 ORDER BY first DESC LIMIT 1"
_SEGMENT: Final = """
SELECT first, last, data FROM merit.segments
WHERE cell = $1 AND first >= (SELECT coalesce(max(first), 0) FROM merit.segments WHERE cell = $1 AND first <= $2)
    AND first <= $3 AND last >= $2
ORDER BY first LIMIT 1
"""
_ANCHORS: Final = """
SELECT last, data, signature, key FROM merit.anchors
WHERE cell = $1 AND first >= (SELECT coalesce(max(first), 0) FROM merit.anchors WHERE cell = $1 AND first <= $2)
    AND first <= $3 AND last >= $2
ORDER BY first LIMIT 256
"""
_LAST_ANCHOR: Final = "SELECT data, signature, key FROM merit.anchors WHERE cell = $1 ORDER BY first DESC LIMIT 1"
_SAME_ANCHOR: Final = "SELECT 1 FROM merit.anchors WHERE cell = $1 AND first = $2 AND data = $3"
_ADD_ANCHOR: Final = (
    "INSERT INTO merit.anchors (cell, first, last, data, signature, key) VALUES ($1, $2, $3, $4, $5, $6)"
)
_ADD_SEGMENT: Final = """
INSERT INTO merit.segments (cell, first, last, time_ns, bytes, hash, data) VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
_OLDEST: Final = "SELECT first, time_ns, bytes FROM merit.segments WHERE cell = $1 ORDER BY first LIMIT $2"
# Two followers of one cell, of whom one does not know yet that it is over, take turns; the second one sees what is there.
_TURN: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1, 1))"


class PostgresArchive:
    """An `Archive` of `cell` in `database`. What is written is durable on return."""

    def __init__(self, database: Database, cell: str) -> None:
        self._cell = cell
        self._place = f"archive of cell {cell!r} in {database.place}"
        self._session = database.session(f"archive {cell}", ArchiveUnavailable)

    def held(self) -> Archived:
        """See `ArchiveReader.held`."""
        return Archived(*self._rows(_HELD)[0])

    def records(self, first: int, last: int) -> Iterator[Record]:
        """See `ArchiveReader.records`; in no transaction between two segments."""
        start = first
        while start <= last and (rows := self._rows(_SEGMENT, start, last)):
            segment, start = rows[0][0], rows[0][1] + 1
            try:
                yield from records_in(rows[0][2], first, last)
            except ValueError as error:
                raise ArchiveUnavailable(
                    f"{self._place}: the segment that begins at {segment} is damaged: {error}; restore it from a copy"
                ) from error

    def anchors(self, first: int, last: int) -> Iterator[SignedAnchor]:
        """See `ArchiveReader.anchors`."""
        while first <= last and (rows := self._rows(_ANCHORS, first, last)):
            for row in rows:
                yield SignedAnchor(*row[1:])
            first = rows[-1][0] + 1

    def last_anchor(self) -> SignedAnchor | None:
        """See `ArchiveReader.last_anchor`."""
        rows = self._rows(_LAST_ANCHOR)
        return SignedAnchor(*rows[0]) if rows else None

    def add_anchor(self, anchor: SignedAnchor) -> None:
        """See `Archive.add_anchor`."""
        wanted = decode_anchor(anchor.data)

        async def add(connection: asyncpg.Connection[Any]) -> None:
            if await connection.fetchrow(_SAME_ANCHOR, self._cell, wanted.first, anchor.data) is not None:
                return
            if wanted.cell != self._cell:
                raise ValueError(
                    f"an anchor of cell {wanted.cell!r} was refused: this is the archive of {self._cell!r}"
                )
            row = await connection.fetchrow(_LAST_ANCHOR, self._cell)
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

    def drop(self, until_ns: int, bytes_max: int) -> int:
        """See `Archive.drop`; a few segments in each transaction."""
        size = self.held().segments_bytes
        while True:
            until = 0
            for first, time_ns, length in self._rows(_OLDEST, _DROPPED_MAX):
                if time_ns >= until_ns and size <= bytes_max:
                    break
                until, size = first, size - length
            if not until:
                return self.held().first
            self._rows("DELETE FROM merit.segments WHERE cell = $1 AND first <= $2", until)

    def close(self) -> None:
        """See `ArchiveReader.close`."""
        self._session.close()

    def _rows(self, query: str, *values: int) -> list[Any]:
        return self._session.run(lambda connection: connection.fetch(query, self._cell, *values))

    def _write(self, work: Callable[[asyncpg.Connection[Any]], Awaitable[None]]) -> None:
        """All of it or nothing; one after the other, whoever else writes."""

        async def write(connection: asyncpg.Connection[Any]) -> None:
            async with connection.transaction():
                await connection.execute(_TURN, self._cell)
                await work(connection)

        self._session.run(write)
