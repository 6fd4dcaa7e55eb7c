"""Blobs in PostgreSQL, so that whichever machine a cell runs on has them."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from merit.ports.blobs import BLOB_BYTES_MAX, BlobCorrupt, BlobUnavailable
from merit.storage.file_blobs import check_digest, check_size, check_tenant, missing
from merit.storage.postgres_database import Database

# What is there is kept as it is, unless it was damaged.
_PUT: Final = """
INSERT INTO merit.blobs (cell, tenant, digest, data) VALUES ($1, $2, $3, $4)
ON CONFLICT (cell, tenant, digest) DO UPDATE SET data = excluded.data WHERE blobs.data <> excluded.data
"""
_GET: Final = "SELECT data FROM merit.blobs WHERE cell = $1 AND tenant = $2 AND digest = $3"
_HAS: Final = "SELECT EXISTS (SELECT FROM merit.blobs WHERE cell = $1 AND tenant = $2 AND digest = $3)"


class PostgresBlobs:
    """A `Blobs` store of `cell` in `database`; `bytes_max` bounds one blob. A shell makes its calls from a thread."""

    def __init__(self, database: Database, cell: str, bytes_max: int = BLOB_BYTES_MAX) -> None:
        self._cell = cell
        self._place = database.place
        self._bytes_max = bytes_max
        self._session = database.session(f"blobs {cell}", BlobUnavailable)

    def put(self, tenant: str, data: bytes) -> str:
        """See `Blobs.put`."""
        name = check_tenant(tenant)
        check_size(data, self._bytes_max)
        digest = sha256(data)
        values = (self._cell, name, digest.digest(), data)
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

    def close(self) -> None:
        """Frees the connection. May be called twice."""
        self._session.close()

    def _key(self, tenant: str, digest: str) -> tuple[str, bytes, bytes]:
        name = check_tenant(tenant)
        check_digest(digest)
        return self._cell, name, bytes.fromhex(digest)
