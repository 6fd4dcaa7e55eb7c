"""Snapshots in PostgreSQL: each is what its file would be (``file_snapshots``), in parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import asyncpg

from merit.ports.snapshots import Snapshot, SnapshotUnavailable
from merit.storage.file_snapshots import decode_snapshot, encode_snapshot
from merit.storage.postgres_database import Database

_PART_BYTES: Final = 8 * 1024 * 1024
_PARTS: Final = "SELECT data FROM merit.snapshot_parts WHERE cell = $1 AND sequence = $2 AND part = $3"


class PostgresSnapshots:
    """A `SnapshotStore` of `cell` in `database`."""

    def __init__(self, database: Database, cell: str) -> None:
        self._cell = cell
        self._place = database.place
        self._session = database.session(f"snapshots {cell}", SnapshotUnavailable)
        self._damaged: tuple[str, ...] = ()

    @property
    def damaged(self) -> tuple[str, ...]:
        """See `SnapshotStore.damaged`."""
        return self._damaged

    def save(self, sequence: int, fold_version: int, record_hash: bytes, data: bytes) -> None:
        """See `SnapshotStore.save`."""
        content = encode_snapshot(sequence, fold_version, record_hash, data)

        async def save(connection: asyncpg.Connection[Any]) -> None:
            async with connection.transaction():
                await connection.execute("DELETE FROM merit.snapshots WHERE cell = $1 AND sequence = $2", *key)
                await connection.execute("INSERT INTO merit.snapshots VALUES ($1, $2, $3)", *key, len(content))
                for part, start in enumerate(range(0, len(content), _PART_BYTES)):
                    values = (*key, part, content[start : start + _PART_BYTES])
                    await connection.execute("INSERT INTO merit.snapshot_parts VALUES ($1, $2, $3, $4)", *values)

        key = (self._cell, sequence)
        self._session.run(save)

    def latest(self, until: int | None = None) -> Snapshot | None:
        """See `SnapshotStore.latest`."""
        damaged = []
        found = None
        for sequence in reversed(self.sequences()):
            if until is not None and sequence > until:
                continue
            content = self._content(sequence)
            if content is None:
                continue  # the writer has dropped it meanwhile: there are newer ones
            snapshot = decode_snapshot(content, sequence)
            if isinstance(snapshot, Snapshot):
                found = snapshot
                break
            damaged.append(f"snapshot {sequence} of cell {self._cell!r} in {self._place}: {snapshot}")
        self._damaged = tuple(damaged)
        return found

    def sequences(self) -> dict[int, int]:
        """See `SnapshotStore.sequences`."""
        query = "SELECT sequence, bytes FROM merit.snapshots WHERE cell = $1 ORDER BY sequence"
        return dict(tuple(row) for row in self._session.run(lambda connection: connection.fetch(query, self._cell)))

    def drop(self, sequences: Iterable[int]) -> None:
        """See `SnapshotStore.drop`."""
        gone = list(sequences)
        query = "DELETE FROM merit.snapshots WHERE cell = $1 AND sequence = ANY($2::bigint[])"
        self._session.run(lambda connection: connection.execute(query, self._cell, gone))

    def close(self) -> None:
        """Frees the connection. May be called twice."""
        self._session.close()

    def _content(self, sequence: int) -> bytes | None:
        """All parts; each is read by itself, so that no transaction lasts. None: it is not there."""

        async def fetched(connection: asyncpg.Connection[Any]) -> bytes | None:
            parts: list[bytes] = []
            while (part := await connection.fetchval(_PARTS, self._cell, sequence, len(parts))) is not None:
                parts.append(part)
            return b"".join(parts) if parts else None

        return self._session.run(fetched)
