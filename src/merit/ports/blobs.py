"""The port of blobs: large parameters, results and evidence, kept under their SHA-256 digest, apart per tenant."""

from __future__ import annotations

from typing import Final, Protocol

BLOB_BYTES_MAX: Final = 64 * 1024 * 1024
"""Default bound of one blob, in bytes."""


class BlobError(Exception):
    """Base of what a blob store refuses or reports."""


class BlobMissing(BlobError):
    """The tenant has no blob with this digest."""


class BlobCorrupt(BlobError):
    """What is stored under the digest does not have it: it was altered or torn."""


class BlobTooLarge(BlobError):
    """The data exceeds the bound of the store; nothing was stored."""


class BlobUnavailable(BlobError):
    """The store cannot be written or read (disk full, I/O error); the message names the place and what to do."""


class Blobs(Protocol):
    """Keeps bytes by digest. Tenants never see each other's blobs, not even when the bytes are the same."""

    def put(self, tenant: str, data: bytes) -> str:
        """Stores `data` durably and returns its SHA-256 digest in hexadecimal; storing the same again changes nothing.

        Raises `BlobTooLarge`, `BlobUnavailable`, and `ValueError` for a tenant that is empty or too long.
        """
        ...

    def get(self, tenant: str, digest: str) -> bytes:
        """The bytes with this digest, verified.

        Raises `BlobMissing`, `BlobCorrupt`, `BlobUnavailable`, and `ValueError` for what is no tenant or no digest.
        """
        ...

    def has(self, tenant: str, digest: str) -> bool:
        """Whether the blob is there (not whether it is intact).

        Raises `BlobUnavailable`, and `ValueError` for what is no tenant or no digest.
        """
        ...
