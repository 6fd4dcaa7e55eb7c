"""Removes the oldest records of a journal in SQLite, a portion at a time.

A portion is one transaction, synced like an append: of transactions that are not, several could stand unsynced in the log,
and after a power cut nobody could tell them from acknowledged ones that were lost (`sqlite_log`). The pages that it frees
are used again by later appends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import apsw

from merit.model.record import Tail
from merit.ports.journal import Fenced, JournalCorrupt

PORTION_RECORDS_MAX: Final = 256
PORTION_BYTES_MAX: Final = 2 * 1024 * 1024
"""Removed in one transaction at most, but for one record that is larger: appends wait for it, some milliseconds."""

# The sizes of contents stand in the row: they are not read for it.
_OLDEST: Final = """
SELECT first, last, hash, epoch, length(header) + length(events) + length(payloads) FROM records
WHERE first < (SELECT max(first) FROM records) ORDER BY first LIMIT ?"""
_BASE: Final = "SELECT base_next, base_hash, base_epoch FROM meta"
_MOVE: Final = "UPDATE meta SET base_next = ?, base_hash = ?, base_epoch = ? WHERE epoch = ?"
_REMOVE: Final = "DELETE FROM records WHERE first < ?"


def present_base(connection: apsw.Connection) -> Tail:
    """Where the journal begins. Raises `apsw.Error`."""
    rows: list[Any] = connection.execute(_BASE).fetchall()
    return Tail(*rows[0])


def next_base(connection: apsw.Connection, base: Tail, cell: str, until: int) -> Tail:
    """Where the journal, which begins at `base`, begins after the next portion of what is before `until` is removed.

    Raises `JournalCorrupt` when its oldest records do not follow the base, `apsw.Error`.
    """
    size = 0
    rows: list[Any] = connection.execute(_OLDEST, (PORTION_RECORDS_MAX,)).fetchall()
    for first, last, digest, epoch, length in rows:
        if last >= until or (size and size + length > PORTION_BYTES_MAX):
            break
        if first != base.next or last < first or epoch < base.epoch:
            raise JournalCorrupt(cell, first, f"it does not follow the one before, which ends before {base.next}")
        size += length
        base = Tail(last + 1, digest, epoch)
    return base


def move_base(connection: apsw.Connection, base: Tail, path: Path, epoch: int) -> None:
    """Makes the journal begin at `base`: the records before are removed, durably and in one transaction.

    Raises `Fenced` when the leader of `epoch` leads no more, `apsw.Error`; nothing is changed then.
    """
    with connection:
        connection.execute(_MOVE, (base.next, base.last_hash, base.epoch, epoch))
        if connection.changes() != 1:
            raise Fenced(f"{path}: nothing was removed before {base.next}: somebody else leads by now")
        connection.execute(_REMOVE, (base.next,))
