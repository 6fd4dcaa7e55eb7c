"""Snapshots as files of one directory, each with a digest of itself."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from merit.model.record import HASH_BYTES
from merit.ports.snapshots import Snapshot, SnapshotUnavailable
from merit.storage.durable_files import make_directory, sweep, write_durably

_PLAIN: Final = b"MERITSNAP1\n"
"""Of files that were written before states were compressed."""
_MAGIC: Final = b"MERITSNAP2\n"
_COMPRESSION: Final = 1
"""A state gets 15 times smaller even so, and a look at the past wants it back quickly."""
_DIGEST_BYTES: Final = 32
_NAME: Final = re.compile(r"snapshot-(\d{20})\.bin")


_decoder = msgspec.msgpack.Decoder(tuple[int, int, bytes, bytes])


class FileSnapshots:
    """A `SnapshotStore` in `directory`, which is made when it is missing; for one writer at a time.

    A file is: a line that names the format, the SHA-256 digest of what follows, and in msgpack the fields of
    `Snapshot`, with the state compressed (zlib).
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
        content = encode_snapshot(sequence, fold_version, record_hash, data)
        path = self._directory / _name(sequence)
        try:
            make_directory(self._directory)
            sweep(self._directory, age_s_min=0)  # one writer: whatever is there was left by a killed one
            write_durably(path, content, self._directory)
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
                    snapshot = decode_snapshot(path.read_bytes(), _sequence(path))
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

    def sequences(self) -> dict[int, int]:
        """See `SnapshotStore.sequences`."""
        try:
            return {_sequence(path): path.stat().st_size for path in reversed(self._newest_first())}
        except OSError as error:
            raise self._unavailable(error) from error

    def drop(self, sequences: Iterable[int]) -> None:
        """See `SnapshotStore.drop`."""
        try:
            for sequence in sequences:
                (self._directory / _name(sequence)).unlink(missing_ok=True)
        except OSError as error:
            raise self._unavailable(error) from error

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


def encode_snapshot(sequence: int, fold_version: int, record_hash: bytes, data: bytes) -> bytes:
    """A snapshot as a file has it. Raises `ValueError` as `check_snapshot`."""
    check_snapshot(sequence, fold_version, record_hash)
    body = msgspec.msgpack.encode((sequence, fold_version, record_hash, zlib.compress(data, _COMPRESSION)))
    return b"".join((_MAGIC, sha256(body).digest(), body))


def decode_snapshot(content: bytes, expected: int) -> Snapshot | str:
    """The snapshot of the sequence `expected`, or what is wrong with it: the inverse of `encode_snapshot`."""
    start = len(_MAGIC) + _DIGEST_BYTES
    if not content.startswith((_MAGIC, _PLAIN)) or len(content) < start:
        return "it is cut off at its beginning or of another format"
    body = memoryview(content)[start:]
    if sha256(body).digest() != content[len(_MAGIC) : start]:
        return "it does not have the digest that is written in it: it was altered or cut off"
    try:
        sequence, fold_version, record_hash, data = _decoder.decode(body)
        plain = data if content.startswith(_PLAIN) else zlib.decompress(data)
    except (msgspec.DecodeError, zlib.error) as error:
        return f"it cannot be decoded: {error}"
    if sequence != expected:
        return f"it is of sequence {sequence}, not of that in its name"
    return Snapshot(sequence, fold_version, record_hash, plain)


def _name(sequence: int) -> str:
    return f"snapshot-{sequence:020}.bin"


def _sequence(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
