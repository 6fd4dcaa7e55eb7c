"""What a journal's SQLite file looks like, how it is recognised, and what SQLite's errors mean for a journal."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

from merit.model.record import NO_HASH
from merit.ports.journal import JournalCorrupt, JournalError, JournalForeign, JournalUnavailable, OutcomeUnknown
from merit.storage import sqlite_file

FILE_NAME: Final = "journal.sqlite3"
APPLICATION_ID: Final = 0x4D524A31  # "MRJ1": tells a journal from any other SQLite file
FILE_FORMAT: Final = 2
"""Version of the tables; stands in the file as `user_version`. The records have their own (`RECORD_FORMAT`)."""

FILE_FORMATS_READ: Final = (1, FILE_FORMAT)
"""Without a base (format 1), a journal begins at its beginning; `upgrade` gives it one."""

PAGE_BYTES: Final = 8192
"""Measured with records of 0.5 and 20 kB: a tenth less CPU an append than with pages of 4 kB, and less written than
with 16 kB."""

BUSY_WAIT_MS: Final = 5_000
"""How long a lock of another program is waited for."""

_TABLES: Final = """
CREATE TABLE meta (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    cell TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    holder TEXT NOT NULL,
    led_ns INTEGER NOT NULL,
    base_next INTEGER NOT NULL,
    base_hash BLOB NOT NULL,
    base_epoch INTEGER NOT NULL
) STRICT;
CREATE TABLE records (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    hash BLOB NOT NULL,
    payloads_crc INTEGER NOT NULL,
    header BLOB NOT NULL,
    events BLOB NOT NULL,
    payloads BLOB NOT NULL
) STRICT;
"""

_UPGRADE: Final = f"""
ALTER TABLE meta ADD COLUMN base_next INTEGER NOT NULL DEFAULT 1;
ALTER TABLE meta ADD COLUMN base_hash BLOB NOT NULL DEFAULT x'{NO_HASH.hex()}';
ALTER TABLE meta ADD COLUMN base_epoch INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = {FILE_FORMAT};
"""

# Errors after which nothing of a transaction can be in the file: its frames were not written to the end, so that the
# commit mark at the end of them is missing, or not even begun. A failed sync, for one, is no such error.
_NOTHING_STORED: Final = frozenset({apsw.SQLITE_FULL, apsw.SQLITE_BUSY, apsw.SQLITE_READONLY, apsw.SQLITE_CANTOPEN})


def create(path: Path, cell: str, vfs: str | None) -> None:
    """Makes the empty journal of `cell` at `path`, durably and at once: no file of this name is half a journal.

    Raises `JournalForeign` when only the log of a journal is there, `apsw.Error`, `OSError`.
    """
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        raise JournalForeign(
            f"{path} is missing, but its log {log.name} is there: restore the file, or move the log away"
        )
    with sqlite_file.created(path, APPLICATION_ID, FILE_FORMAT, PAGE_BYTES, vfs) as connection:
        connection.execute(_TABLES)
        connection.execute("INSERT INTO meta VALUES (1, ?, 0, '', 0, 1, ?, 0)", (cell, NO_HASH))


def check(connection: apsw.Connection, path: Path, cell: str | None) -> str:
    """Checks that this is a journal in a known format, of `cell` if given; returns its cell.

    Raises `JournalForeign`, `apsw.Error`.
    """
    if connection.pragma("application_id") != APPLICATION_ID:
        raise JournalForeign(f"{path} is not a journal of Merit: move it away, or use another directory")
    version = connection.pragma("user_version")
    if version not in FILE_FORMATS_READ:
        raise JournalForeign(
            f"{path} has format {version}, and this version of Merit reads format {FILE_FORMAT}: "
            "use the version that wrote it"
        )
    found = connection.execute("SELECT cell FROM meta").get
    if not isinstance(found, str):
        raise JournalForeign(f"{path} does not say which cell it belongs to: it was not completely created, or altered")
    if cell is not None and found != cell:
        raise JournalForeign(
            f"{path} is the journal of cell {found!r}, not of {cell!r}: use another directory for each cell"
        )
    return found


def upgrade(connection: apsw.Connection) -> None:
    """Brings a file that was checked into the present format, at once and durably. Raises `apsw.Error`."""
    if connection.pragma("user_version") == FILE_FORMAT:
        return
    with connection:
        connection.execute(_UPGRADE)


def translated(error: apsw.Error, path: Path, cell: str) -> JournalError:
    """What an error of SQLite means for somebody who reads, opens or checkpoints the journal at `path`."""
    if isinstance(error, apsw.NotADBError):
        return JournalForeign(
            f"{path} is not an SQLite file, or its first page was overwritten: restore it, or move it away"
        )
    if isinstance(error, apsw.SQLError):
        return JournalForeign(f"{path} does not have the tables of a journal ({error}): restore it, or move it away")
    if isinstance(error, apsw.CorruptError):
        return JournalCorrupt(cell, 0, f"{path}: SQLite finds its structure broken ({error}): restore it from a copy")
    return JournalUnavailable(f"{path}: {sqlite_file.advice(error)}")


def translated_append(error: apsw.Error, path: Path, first: int) -> JournalError:
    """What an error of SQLite means for the append of the record that starts at `first`."""
    extended = getattr(error, "extendedresult", 0)
    if extended & 0xFF in _NOTHING_STORED or extended == apsw.SQLITE_IOERR_WRITE:
        return JournalUnavailable(
            f"{path}: record {first} was not stored: {sqlite_file.advice(error)}; everything acknowledged before is intact"
        )
    return OutcomeUnknown(
        f"{path}: record {first} may or may not have been stored: {sqlite_file.advice(error)}; opening the journal anew tells"
    )
