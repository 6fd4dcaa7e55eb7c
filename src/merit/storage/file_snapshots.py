"""Snapshots as files of one directory, each with a digest of itself."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from merit.model.record import HASH_BYTES
from merit.ports.snapshots import SNAPSHOTS_KEPT, Snapshot, SnapshotUnavailable
from merit.storage.durable_files import make_directory, sweep, write_durably

_MAGIC: Final = b"MERITSNAP1\n"
_DIGEST_BYTES: Final = 32
_NAME: Final = re.compile(r"snapshot-(\d{20})\.bin")


_decoder = msgspec.msgpack.Decoder(tuple[int, int, bytes, bytes])


class FileSnapshots:
    """A `SnapshotStore` in `directory`, which is made when it is missing; for one writer at a time.

    A file is: a line that names the format, the SHA-256 digest of what follows, and in msgpack the fields of
    `Snapshot`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._damaged: tuple[str, ...] = ()

    @property
    def damaged(self) -> tuple[str, ...]:
        """See `SnapshotStore.damaged`."""
        return self._damaged

    def save(self, sequence: int, fold_version: int, record_hash: bytes, data: bytes) -> None:
        """See `SnapshotStore.save`."""
        check_snapshot(sequence, fold_version, record_hash)
        body = msgspec.msgpack.encode((sequence, fold_version, record_hash, data))
        path = self._directory / _name(sequence)
        try:
            make_directory(self._directory)
            sweep(self._directory, age_s_min=0)  # one writer: whatever is there was left by a killed one
            write_durably(path, b"".join((_MAGIC, sha256(body).digest(), body)), self._directory)
            for old in self._newest_first()[SNAPSHOTS_KEPT:]:
                old.unlink()
        except OSError as error:
            raise self._unavailable(error) from error

    def latest(self, until: int | None = None) -> Snapshot | None:
        """See `SnapshotStore.latest`."""
        damaged = []
        found = None
        try:
            for path in self._newest_first():
                if until is not None and path.name > _name(until):
                    continue
                try:
                    snapshot = _read(path)
                except FileNotFoundError:
                    continue  # the writer has dropped it meanwhile: there are newer ones
                if isinstance(snapshot, Snapshot):
                    found = snapshot
                    break
                damaged.append(f"{path}: {snapshot}")
        except OSError as error:
            raise self._unavailable(error) from error
        self._damaged = tuple(damaged)
        return found

    def _newest_first(self) -> list[Path]:
        if not self._directory.is_dir():
            return []
        return sorted((path for path in self._directory.iterdir() if _NAME.fullmatch(path.name)), reverse=True)

    def _unavailable(self, error: OSError) -> SnapshotUnavailable:
        return SnapshotUnavailable(f"{self._directory}: snapshots cannot be used: {error}; check permissions and space")


def check_snapshot(sequence: int, fold_version: int, record_hash: bytes) -> None:
    """Refuses, with `ValueError`, what cannot describe a snapshot."""
    if not 0 <= sequence < 2**63 or fold_version < 0 or len(record_hash) != HASH_BYTES:
        raise ValueError(
            f"snapshot: sequence {sequence}, fold version {fold_version}, hash of {len(record_hash)} bytes: "
            f"must be >= 0, >= 0, {HASH_BYTES} bytes"
        )


def _read(path: Path) -> Snapshot | str:
    """The snapshot in the file, or what is wrong with it."""
    content = path.read_bytes()
    start = len(_MAGIC) + _DIGEST_BYTES
    if not content.startswith(_MAGIC) or len(content) < start:
        return "it is cut off at its beginning or of another format"
    body = memoryview(content)[start:]
    if sha256(body).digest() != content[len(_MAGIC) : start]:
        return "it does not have the digest that is written in it: it was altered or cut off"
    try:
        snapshot = Snapshot(*_decoder.decode(body))
    except msgspec.DecodeError as error:
        return f"it cannot be decoded: {error}"
    if path.name != _name(snapshot.sequence):
        return f"it is of sequence {snapshot.sequence}, not of that in its name"
    return snapshot


def _name(sequence: int) -> str:
    return f"snapshot-{sequence:020}.bin"
