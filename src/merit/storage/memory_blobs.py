"""Blobs in memory, for the simulator and tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256
from itertools import islice
from threading import Lock

from merit.ports.blobs import BLOB_BYTES_MAX
from merit.storage.file_blobs import check_digest, check_size, check_tenant, missing


class MemoryBlobs:
    """A `Blobs` store that lasts as long as the object. `bytes_max` bounds one blob; `clock` is Unix time in nanoseconds."""

    def __init__(self, bytes_max: int = BLOB_BYTES_MAX, clock: Callable[[], int] = time.time_ns) -> None:
        self._bytes_max = bytes_max
        self._clock = clock
        self._blobs: dict[tuple[str, str], bytes] = {}
        self._touched_ns: dict[tuple[str, str], int] = {}
        """Those touched last come last."""
        self._lock = Lock()

    def put(self, tenant: str, data: bytes) -> str:
        """See `Blobs.put`."""
        check_tenant(tenant)
        check_size(data, self._bytes_max)
        digest = sha256(data).hexdigest()
        with self._lock:
            self._blobs[tenant, digest] = data
            self._note((tenant, digest))
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

    def touch(self, tenant: str, digest: str) -> None:
        """See `Blobs.touch`."""
        check_tenant(tenant)
        check_digest(digest)
        with self._lock:
            if (tenant, digest) not in self._blobs:
                raise missing(tenant, digest)
            self._note((tenant, digest))

    def sweep(self, before_ns: int, keeps: Callable[[str, str], bool], count_max: int) -> int:
        """See `Blobs.sweep`."""
        with self._lock:
            old = [at for at in islice(self._touched_ns, count_max) if self._touched_ns[at] < before_ns]
        kept = {at for at in old if keeps(*at)}
        removed = 0
        with self._lock:
            for at in old:
                # Others may have touched or swept it meanwhile.
                if self._touched_ns.get(at, before_ns) >= before_ns:
                    continue
                if at in kept:
                    self._note(at)
                else:
                    del self._blobs[at], self._touched_ns[at]
                    removed += 1
        return removed

    def _note(self, at: tuple[str, str]) -> None:
        self._touched_ns.pop(at, None)
        self._touched_ns[at] = self._clock()
