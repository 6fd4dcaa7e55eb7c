"""Faults of files under SQLite: watches every write, sync, truncation and removal, and may fail it, tear it, or end the
process."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw
import msgspec

_SECTOR_BYTES: Final = 512


class FileStep(msgspec.Struct, frozen=True):
    """One thing that is about to be done to a file: `kind` is write, sync, truncate or delete; a truncation keeps
    `offset` bytes."""

    kind: str
    path: str
    offset: int = 0
    data: bytes = b""


Watch = Callable[[FileStep, Callable[[bytes], None]], None]
"""Gets each step and how to perform it (with its data, or less); it may raise instead (see `sqlite_error`), or never
return."""


def sqlite_error(code: int) -> apsw.Error:
    """An error with which a step of a file fails, by its (extended) SQLite code."""
    error = apsw.exception_for(code)
    assert isinstance(error, apsw.Error)
    return error


class WatchedVfs(apsw.VFS):
    """A VFS called `name` whose files report each step to `watch`; everything else is as usual. To be unregistered
    after use."""

    def __init__(self, name: str, watch: Watch) -> None:
        self.watch = watch
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 (SQLite's name)
        """Opens a file that is watched."""
        return WatchedFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 (SQLite's name)
        """Removes a file."""
        self.watch(FileStep("delete", filename), lambda _: super(WatchedVfs, self).xDelete(filename, syncdir))


class WatchedFile(apsw.VFSFile):
    """A file of a `WatchedVfs`."""

    def __init__(self, vfs: WatchedVfs, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._vfs = vfs
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 (SQLite's name)
        """Writes all of `data` at `offset`."""
        write = super().xWrite
        self._vfs.watch(FileStep("write", self._path, offset, bytes(data)), lambda part: write(part, offset))

    def xSync(self, flags: int) -> None:  # noqa: N802 (SQLite's name)
        """Makes what was written durable."""
        sync = super().xSync
        self._vfs.watch(FileStep("sync", self._path), lambda _: sync(flags))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 (SQLite's name)
        """Cuts the file."""
        truncate = super().xTruncate
        self._vfs.watch(FileStep("truncate", self._path, newsize), lambda _: truncate(newsize))


class PowerCut:
    """What a disk may hold after a power cut, from the steps before: all that was synced, and of the rest any part in
    any order.

    A file's steps since its last sync are kept or dropped one by one, as the seed decides, and writes are torn between
    sectors. `files` is what the disk held at the beginning.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self._durable = {path: bytearray(content) for path, content in files.items()}
        self._unsynced: dict[str, list[FileStep]] = {}

    def note(self, step: FileStep) -> None:
        """Takes note of a step that was performed."""
        if step.kind == "sync":
            content = self._durable.setdefault(step.path, bytearray())
            for pending in self._unsynced.pop(step.path, ()):
                _perform(content, pending)
        elif step.kind == "delete":
            self._durable.pop(step.path, None)
            self._unsynced.pop(step.path, None)
        else:
            self._unsynced.setdefault(step.path, []).append(step)

    def lose(self, path: str) -> None:
        """A sync of `path` has failed: what it should have written is in the kernel's memory, as if written, and never
        gets to the disk."""
        self._unsynced.pop(path, None)

    def leave(self, directory: Path, seed: int) -> None:
        """Writes into `directory` one of the states that the disk may be in now."""
        chance = random.Random(seed)
        keep = chance.choice((0.0, 0.5, 0.9, 1.0))
        for path in sorted({*self._durable, *self._unsynced}):
            content = bytearray(self._durable.get(path, b""))
            for step in self._unsynced.get(path, ()):
                if chance.random() < keep:
                    _perform(content, _torn(step, chance) if chance.random() < 0.2 else step)
            (directory / Path(path).name).write_bytes(content)


def _perform(content: bytearray, step: FileStep) -> None:
    if step.kind == "truncate":
        del content[step.offset :]
        return
    if len(content) < step.offset:
        content.extend(bytes(step.offset - len(content)))
    content[step.offset : step.offset + len(step.data)] = step.data


def _torn(step: FileStep, chance: random.Random) -> FileStep:
    sectors = -(-len(step.data) // _SECTOR_BYTES)
    return FileStep(step.kind, step.path, step.offset, step.data[: chance.randint(0, sectors) * _SECTOR_BYTES])
