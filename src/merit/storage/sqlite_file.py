"""What all files that Merit keeps in SQLite have in common: how they come to be, and what an error means for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from merit.storage.durable_files import sync_directory


@contextmanager
def created(
    path: Path, application_id: int, file_format: int, page_bytes: int, vfs: str | None = None
) -> Iterator[apsw.Connection]:
    """Makes a file at `path`, durably and at once: no file of this name is half made. What is to be in it is written
    through the connection.

    `application_id` tells it from other SQLite files; `file_format` is the version of its tables (`user_version`).
    Raises `apsw.Error`, `OSError`.
    """
    unfinished = path.with_name(f"{path.name}.new")
    for leftover in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        leftover.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)  # its owner only; SQLite makes the log with the same permissions
    connection = apsw.Connection(str(unfinished), vfs=vfs)
    try:
        connection.pragma("page_size", page_bytes)
        connection.pragma("synchronous", "extra")
        with connection:
            connection.pragma("application_id", application_id)
            connection.pragma("user_version", file_format)
            yield connection
    finally:
        connection.close(force=True)
    unfinished.replace(path)
    sync_directory(path.parent)


def advice(error: apsw.Error) -> str:
    """What went wrong and what to do about it."""
    detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, apsw.FullError):
        return f"the disk is full ({detail}); make space, at least as much as the log beside it takes, and start again"
    if isinstance(error, apsw.BusyError):
        return f"another program keeps it locked ({detail}); end that program and start again"
    if isinstance(error, apsw.CantOpenError):
        return f"it cannot be opened ({detail}); check that it exists and that this user may read and write it"
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError):
        return f"it cannot be written ({detail}); check permissions and how the file system is mounted"
    return f"the disk or file system failed ({detail}); check it and its space, and start again"
