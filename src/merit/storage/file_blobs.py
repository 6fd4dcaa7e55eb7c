"""Blobs as files: one directory per tenant, two levels of fan-out below it, and the digest as the name."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Final

from merit.ports.blobs import BLOB_BYTES_MAX, BlobCorrupt, BlobMissing, BlobTooLarge, BlobUnavailable
from merit.storage.durable_files import make_directory, sweep, sync_directory, write_durably

TENANT_BYTES_MAX: Final = 80  # each may become three characters, and a file name has at most 255

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SCRATCH_AGE_S: Final = 24 * 3600.0


class FileBlobs:
    """A `Blobs` store in `directory`, which is made when it is missing; for any number of processes at once.

    `bytes_max` bounds one blob. Calls block for the disk: a shell makes them from a thread.
    """

    def __init__(self, directory: Path, bytes_max: int = BLOB_BYTES_MAX) -> None:
        self._directory = directory
        self._scratch = directory / "scratch"
        self._bytes_max = bytes_max
        self._swept = False

    def put(self, tenant: str, data: bytes) -> str:
        """See `Blobs.put`."""
        check_size(data, self._bytes_max)
        digest = sha256(data).hexdigest()
        path = self._path(tenant, digest)
        try:
            if _holds(path, data):
                # Whoever renamed it may not have come to the sync yet.
                sync_directory(path.parent)
                return digest
            make_directory(path.parent)
            make_directory(self._scratch)
            if not self._swept:
                sweep(self._scratch, _SCRATCH_AGE_S)
                self._swept = True
            write_durably(path, data, self._scratch)
        except OSError as error:
            raise self._unavailable(error) from error
        return digest

    def get(self, tenant: str, digest: str) -> bytes:
        """See `Blobs.get`."""
        path = self._path(tenant, digest)
        try:
            with path.open("rb") as file:
                data = file.read(self._bytes_max + 1)
        except FileNotFoundError:
            raise missing(tenant, digest) from None
        except OSError as error:
            raise self._unavailable(error) from error
        if sha256(data).hexdigest() != digest:
            raise BlobCorrupt(f"{path}: the blob does not have its digest: it was altered or cut off; put it again")
        return data

    def has(self, tenant: str, digest: str) -> bool:
        """See `Blobs.has`."""
        path = self._path(tenant, digest)
        try:
            return path.is_file()
        except OSError as error:
            raise self._unavailable(error) from error

    def _path(self, tenant: str, digest: str) -> Path:
        check_digest(digest)
        return self._directory / "tenants" / tenant_directory(tenant) / digest[:2] / digest[2:4] / digest

    def _unavailable(self, error: OSError) -> BlobUnavailable:
        return BlobUnavailable(f"{self._directory}: blobs cannot be used: {error}; check permissions and space")


def tenant_directory(tenant: str) -> str:
    """A directory name for a tenant: no two tenants share one, also where case does not matter, and none leads
    elsewhere.

    Lower-case letters, digits, `-` and `_` stand for themselves, every other byte of the UTF-8 form for `%` and two
    digits. Raises `ValueError`.
    """
    encoded = check_tenant(tenant)
    return "".join(chr(byte) if chr(byte) in _PLAIN else f"%{byte:02x}" for byte in encoded)


_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


def check_tenant(tenant: str) -> bytes:
    """The tenant's name in UTF-8. Raises `ValueError` when it is empty, too long, or not text."""
    try:
        encoded = tenant.encode()
    except UnicodeEncodeError:
        raise ValueError("tenant: the name has lone surrogates, which no text has") from None
    if not 1 <= len(encoded) <= TENANT_BYTES_MAX:
        raise ValueError(f"tenant: the name must have 1 to {TENANT_BYTES_MAX} bytes in UTF-8, not {len(encoded)}")
    return encoded


def check_digest(digest: str) -> None:
    """Refuses, with `ValueError`, what is no SHA-256 digest in lower-case hexadecimal."""
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"digest: must be 64 lower-case hexadecimal digits, not {digest[:80]!r}")


def check_size(data: bytes, bytes_max: int) -> None:
    """Refuses, with `BlobTooLarge`, data beyond the bound of a store."""
    if len(data) > bytes_max:
        raise BlobTooLarge(
            f"data: a blob has at most {bytes_max:,} bytes, not {len(data):,}: split it or raise the bound"
        )


def missing(tenant: str, digest: str) -> BlobMissing:
    """The error that names what is not there."""
    return BlobMissing(f"tenant {tenant!r} has no blob {digest}")


def _holds(path: Path, data: bytes) -> bool:
    """Whether the file is there with this very content; one that is damaged is written again."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False
