"""Files that are there after a power cut once a call has returned: written, synced, renamed, and their directory
synced."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Final

TEMPORARY_SUFFIX: Final = ".tmp"


def make_directory(path: Path) -> None:
    """Makes `path` (readable by its owner only) and what is missing above it, durably. Raises `OSError`."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(directory.parent)


def sync_directory(path: Path) -> None:
    """Makes the entries of a directory durable: a new or renamed file is found after a power cut only then. Raises
    `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes, scratch: Path) -> None:
    """Makes `path` hold `data`, durably and at once: at any moment it has its old content (or none) or all of the new
    one.

    The data is first written into the directory `scratch` of the same file system. Raises `OSError`; nothing is left
    behind then.
    """
    descriptor, name = tempfile.mkstemp(suffix=TEMPORARY_SUFFIX, dir=scratch)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sweep(scratch: Path, age_s_min: float) -> int:
    """Removes temporary files older than `age_s_min` that a killed process left in `scratch`; returns how many. Raises
    `OSError`."""
    oldest_s = time.time() - age_s_min
    removed = 0
    for path in scratch.glob(f"*{TEMPORARY_SUFFIX}"):
        try:
            if path.stat().st_mtime < oldest_s:
                path.unlink()
                removed += 1
        except FileNotFoundError:  # somebody else sweeps, or its writer has just finished
            continue
    return removed
