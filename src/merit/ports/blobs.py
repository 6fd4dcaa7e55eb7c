"""The port of blobs: large parameters, results and evidence, kept under their SHA-256 digest, apart per tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

BLOB_BYTES_MAX: Final = 64 * 1024 * 1024
"""Default bound of one blob, in bytes."""
TOUCH_NS: Final = 3600 * 1_000_000_000
"""A blob that was touched within this time need not be noted as touched anew, so that touching stays cheap."""


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
    """Keeps bytes by digest. Tenants never see each other's blobs, not even when the bytes are the same.

    A store knows of each blob when it was last touched (``put``, ``touch``), in Unix time, to `TOUCH_NS`. What nobody has
    touched for long can be swept. A blob that was touched without an error is not swept by anybody who asks for what is
    older than that, also if he is at it at this very moment.
    """

    def put(self, tenant: str, data: bytes) -> str:
        """Stores `data` durably and returns its SHA-256 digest in hexadecimal; storing the same again only touches it.

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

    def touch(self, tenant: str, digest: str) -> None:
        """Notes that the blob is used now.

        Raises `BlobMissing`, `BlobUnavailable`, and `ValueError` for what is no tenant or no digest.
        """
        ...

    def sweep(self, before_ns: int, keeps: Callable[[str, str], bool], count_max: int) -> int:
        """Removes blobs that were last touched before a time and that nobody keeps; how many. One call does a portion; as
        long as that was not nothing, the next one may find more.

        Raises `BlobUnavailable`.

        Args:
            before_ns: Unix time, at least `TOUCH_NS` ago.
            keeps: whether a blob stays, by tenant and digest, however old it is; that touches it.
            count_max: so many blobs are looked at.
        """
        ...
