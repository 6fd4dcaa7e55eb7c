"""Blobs in PostgreSQL, so that whichever machine a cell runs on has them."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

import asyncpg

from merit.ports.blobs import BLOB_BYTES_MAX, TOUCH_NS, BlobCorrupt, BlobUnavailable
from merit.storage.file_blobs import check_digest, check_size, check_tenant, missing
from merit.storage.postgres_database import Database

# What is there is kept as it is, unless it was damaged; and touched, unless it was so only lately.
_PUT: Final = """
INSERT INTO merit.blobs (cell, tenant, digest, data, touched_ns) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (cell, tenant, digest) DO UPDATE
SET data = CASE WHEN blobs.data <> excluded.data THEN excluded.data ELSE blobs.data END, touched_ns = excluded.touched_ns
WHERE blobs.data <> excluded.data OR blobs.touched_ns < $6
"""
_TOUCH: Final = """
UPDATE merit.blobs SET touched_ns = $4 WHERE cell = $1 AND tenant = $2 AND digest = $3 AND touched_ns < $5
RETURNING true
"""
_OLD: Final = """
SELECT tenant, digest FROM merit.blobs WHERE cell = $1 AND touched_ns < $2 ORDER BY touched_ns LIMIT $3
"""
# Whoever touches it meanwhile is waited for, and then it does not fit any more; or he waits, and then does not find it.
_SWEEP: Final = """
DELETE FROM merit.blobs WHERE cell = $1 AND tenant = $2 AND digest = $3 AND touched_ns < $4 RETURNING true
"""
_GET: Final = "SELECT data FROM merit.blobs WHERE cell = $1 AND tenant = $2 AND digest = $3"
_HAS: Final = "SELECT EXISTS (SELECT FROM merit.blobs WHERE cell = $1 AND tenant = $2 AND digest = $3)"


class PostgresBlobs:
    """A `Blobs` store of `cell` in `database`; `bytes_max` bounds one blob; `clock` is Unix time in nanoseconds. A shell makes
    its calls from a thread."""

    def __init__(
        self,
        database: Database,
        cell: str,
        bytes_max: int = BLOB_BYTES_MAX,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._cell = cell
        self._clock = clock
        self._place = database.place
        self._bytes_max = bytes_max
        self._session = database.session(f"blobs {cell}", BlobUnavailable)

    def put(self, tenant: str, data: bytes) -> str:
        """See `Blobs.put`."""
        name = check_tenant(tenant)
        check_size(data, self._bytes_max)
        digest = sha256(data)
        now_ns = self._clock()
        values = (self._cell, name, digest.digest(), data, now_ns, now_ns - TOUCH_NS)
        self._session.run(lambda connection: connection.execute(_PUT, *values))
        return digest.hexdigest()

    def get(self, tenant: str, digest: str) -> bytes:
        """See `Blobs.get`."""
        key = self._key(tenant, digest)
        data: bytes | None = self._session.run(lambda connection: connection.fetchval(_GET, *key))
        if data is None:
            raise missing(tenant, digest)
        if sha256(data).hexdigest() != digest:
            raise BlobCorrupt(f"{self._place}: blob {digest} does not have its digest: it was altered; put it again")
        return data

    def has(self, tenant: str, digest: str) -> bool:
        """See `Blobs.has`."""
        key = self._key(tenant, digest)
        return bool(self._session.run(lambda connection: connection.fetchval(_HAS, *key)))

    def touch(self, tenant: str, digest: str) -> None:
        """See `Blobs.touch`."""
        if not self._touch(self._key(tenant, digest)):
            raise missing(tenant, digest)

    def sweep(self, before_ns: int, keeps: Callable[[str, str], bool], count_max: int) -> int:
        """See `Blobs.sweep`. One by one: a large one takes its time, which the server bounds for each statement."""
        old = self._session.run(lambda connection: connection.fetch(_OLD, self._cell, before_ns, count_max))
        removed = 0
        for tenant, digest in old:
            key = (self._cell, tenant, digest)
            if keeps(tenant.decode(), digest.hex()):
                self._touch(key)
            else:
                removed += self._remove(key, before_ns)
        return removed

    def _touch(self, key: tuple[str, bytes, bytes]) -> bool:
        now_ns = self._clock()

        async def touch(connection: asyncpg.Connection[Any]) -> bool:
            if await connection.fetchval(_TOUCH, *key, now_ns, now_ns - TOUCH_NS):
                return True
            # By a statement of its own, which sees what the one before may have waited for.
            return bool(await connection.fetchval(_HAS, *key))

        return self._session.run(touch)

    def _remove(self, key: tuple[str, bytes, bytes], before_ns: int) -> bool:
        return bool(self._session.run(lambda connection: connection.fetchval(_SWEEP, *key, before_ns)))

    def close(self) -> None:
        """Frees the connection. May be called twice."""
        self._session.close()

    def _key(self, tenant: str, digest: str) -> tuple[str, bytes, bytes]:
        name = check_tenant(tenant)
        check_digest(digest)
        return self._cell, name, bytes.fromhex(digest)
