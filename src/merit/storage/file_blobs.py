"""Blobs as files: one directory per tenant, two levels of fan-out below it, and the digest as the name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from merit.ports.blobs import BLOB_BYTES_MAX, BlobCorrupt, BlobMissing, BlobTooLarge, BlobUnavailable
from merit.storage.durable_files import make_directory, sweep, sync_directory, write_durably

TENANT_BYTES_MAX: Final = 80  # each may become three characters, and a file name has at most 255

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SCRATCH_AGE_S: Final = 24 * 3600.0
_LOCK_S: Final = 10.0
_LOCK_AGAIN_S: Final = 0.002


class FileBlobs:
    """A `Blobs` store in `directory`, which is made when it is missing; for any number of processes at once.

    `bytes_max` bounds one blob; `clock` is Unix time in nanoseconds. Calls block for the disk: a shell makes them from a
    thread.

    When a blob was touched is its file's time of modification. Who touches holds a lock on the directory, which others who
    touch may hold too; who sweeps holds it alone from the last look at that time until the file is gone. So there is no
    moment at which a blob is touched and gone all the same, and a process that is killed leaves no lock. What a power cut
    can undo is a time: then a blob looks older than it is. If it is swept for that, its task is in the journal, and whoever
    sweeps has to keep it; or it was about to be named, and the door, which touches it first, does not find it.
    """

    def __init__(
        self, directory: Path, bytes_max: int = BLOB_BYTES_MAX, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._directory = directory
        self._scratch = directory / "scratch"
        self._bytes_max = bytes_max
        self._clock = clock
        self._swept = False
        self._walk = self._all()
        """Where the sweep is."""

    def put(self, tenant: str, data: bytes) -> str:
        """See `Blobs.put`."""
        check_size(data, self._bytes_max)
        digest = sha256(data).hexdigest()
        path = self._path(tenant, digest)
        try:
            if _holds(path, data) and self._note(path):
                # Whoever renamed it may not have come to the sync yet.
                sync_directory(path.parent)
                return digest
            make_directory(path.parent)
            make_directory(self._scratch)
            if not self._swept:
                sweep(self._scratch, _SCRATCH_AGE_S)
                self._swept = True
            write_durably(path, data, self._scratch)
            self._note(path)
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

    def touch(self, tenant: str, digest: str) -> None:
        """See `Blobs.touch`."""
        path = self._path(tenant, digest)
        try:
            there = self._note(path)
        except OSError as error:
            raise self._unavailable(error) from error
        if not there:
            raise missing(tenant, digest)

    def sweep(self, before_ns: int, keeps: Callable[[str, str], bool], count_max: int) -> int:
        """See `Blobs.sweep`. Goes on where the call before has ended, and begins anew after the last blob; to be called by
        one thread at a time. Directories stay: they are at most 65,792 for a tenant."""
        removed = 0
        try:
            portion = list(islice(self._walk, count_max))
            if len(portion) < count_max:
                self._walk = self._all()
            for tenant, path in portion:
                removed += self._sweep_one(tenant, path, before_ns, keeps)
        except OSError as error:
            self._walk = self._all()
            raise self._unavailable(error) from error
        return removed

    def _all(self) -> Iterator[tuple[str, Path]]:
        """The files of all blobs, each with its tenant; one directory's are listed at a time."""
        tenants = self._directory / "tenants"
        for name in _names(tenants):
            tenant = unquote_to_bytes(name).decode()
            for first in _names(tenants / name):
                for second in _names(tenants / name / first):
                    directory = tenants / name / first / second
                    yield from (
                        (tenant, directory / digest) for digest in _names(directory) if _DIGEST.fullmatch(digest)
                    )

    def _sweep_one(self, tenant: str, path: Path, before_ns: int, keeps: Callable[[str, str], bool]) -> int:
        with contextlib.suppress(FileNotFoundError):  # somebody else sweeps
            if path.stat().st_mtime_ns >= before_ns:
                return 0
            if keeps(tenant, path.name):
                self._note(path)
                return 0
            with self._locked(fcntl.LOCK_EX, 0.0) as locked:
                # Looked at again: from here on nobody touches it.
                if locked and path.stat().st_mtime_ns < before_ns:
                    path.unlink()
                    return 1
        return 0

    def _note(self, path: Path) -> bool:
        """Touch it, if it is there."""
        try:
            with self._locked(fcntl.LOCK_SH, _LOCK_S) as locked:
                if not locked:
                    raise OSError(
                        f"whoever sweeps them has had the lock for {_LOCK_S:g} s; look for a process that stands still"
                    )
                now_ns = self._clock()
                os.utime(path, ns=(now_ns, now_ns))
        except FileNotFoundError:
            return False
        return True

    @contextlib.contextmanager
    def _locked(self, how: int, timeout_s: float) -> Iterator[bool]:
        """Whether the lock was to be had in time; it ends with the process, however that ends."""
        until_s = time.monotonic() + timeout_s
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() >= until_s:
                        yield False
                        return
                    time.sleep(_LOCK_AGAIN_S)
                else:
                    yield True
                    return
        finally:
            os.close(descriptor)

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
    return BlobMissing(
        f"tenant {tenant!r} has no blob {digest}: it was never put, or nothing has used it for longer than contents are kept "
        "(--keep of merit up)"
    )


def _names(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _holds(path: Path, data: bytes) -> bool:
    """Whether the file is there with this very content; one that is damaged is written again."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False
