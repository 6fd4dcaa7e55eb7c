"""Blobs in memory, for the simulator and tests."""

from __future__ import annotations

from hashlib import sha256

from merit.ports.blobs import BLOB_BYTES_MAX
from merit.storage.file_blobs import check_digest, check_size, check_tenant, missing


class MemoryBlobs:
    """A `Blobs` store that lasts as long as the object. `bytes_max` bounds one blob."""

    def __init__(self, bytes_max: int = BLOB_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._blobs: dict[tuple[str, str], bytes] = {}

    def put(self, tenant: str, data: bytes) -> str:
        """See `Blobs.put`."""
        check_tenant(tenant)
        check_size(data, self._bytes_max)
        digest = sha256(data).hexdigest()
        self._blobs[tenant, digest] = data
        return digest

    def get(self, tenant: str, digest: str) -> bytes:
        """See `Blobs.get`."""
        check_tenant(tenant)
        check_digest(digest)
        try:
            return self._blobs[tenant, digest]
        except KeyError:
            raise missing(tenant, digest) from None

    def has(self, tenant: str, digest: str) -> bool:
        """See `Blobs.has`."""
        check_tenant(tenant)
        check_digest(digest)
        return (tenant, digest) in self._blobs
