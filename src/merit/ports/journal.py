"""The journal's port: an append-only, durable, fenced log of records, with one writer at a time per cell.

The order of things: `lead` once, then `append` records that follow the tail it returned. Anything that goes wrong while
writing ends the leadership of that journal object (fail-stop): it refuses every further append, and is to be closed and
opened again, whose `lead` tells what is stored. Nothing is tried again blindly: after a failed fsync, neither SQLite
nor the kernel knows what the disk holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Protocol

from merit.model.record import JournalCorrupt, JournalError, JournalForeign, Record, Tail

__all__ = [
    "Fenced",
    "Journal",
    "JournalCorrupt",
    "JournalError",
    "JournalForeign",
    "JournalReader",
    "JournalUnavailable",
    "LeaderElsewhere",
    "OutcomeUnknown",
    "Record",
    "Tail",
]


class LeaderElsewhere(JournalError):
    """Somebody else leads this journal; `holder` is its name as far as it is known, else empty."""

    def __init__(self, message: str, holder: str = "") -> None:
        super().__init__(message)
        self.holder = holder


class Fenced(JournalError):
    """The record does not fit what is stored, or its epoch is over, since somebody else leads. Nothing was stored."""


class JournalUnavailable(JournalError):
    """The journal cannot be written or read: disk full, I/O error, closed, failed before. Nothing was stored."""


class OutcomeUnknown(JournalError):
    """The append may or may not have been stored.

    To be settled by opening the journal anew and reading its tail, not by appending again.
    """


class JournalReader(Protocol):
    """Reads a journal, also while somebody else writes it. Sees durable records only."""

    def read(self, first: int = 1, last: int | None = None) -> Iterator[Record]:
        """Verified records in order, from the one that contains `first` to the one that contains `last`.

        Without `last`, to the last one there is. Raises `JournalCorrupt` at the first record that is damaged, missing
        or out of the chain; `JournalForeign`, `JournalUnavailable`.
        """
        ...

    def scan(self, first: int = 1, last: int | None = None) -> Iterator[Record | JournalCorrupt]:
        """Like `read`, but goes on at damage: for `verify_journal`.

        Checks what can be seen from a record alone without hashing its events; yields what fails as `JournalCorrupt`.
        """
        ...

    def tail(self) -> Tail:
        """Where the durable records end. Raises `JournalCorrupt`, `JournalUnavailable`."""
        ...

    def size_bytes(self) -> int:
        """What the journal occupies, in bytes."""
        ...

    def close(self) -> None:
        """Frees everything, leadership included. May be called twice."""
        ...


class Journal(JournalReader, Protocol):
    """A journal of one cell that can be led and written."""

    @property
    def cell(self) -> str:
        """Name of the cell whose records these are; records of another one are refused."""
        ...

    def lead(self, holder: str, now_ns: int) -> Tail:
        """Takes leadership for `holder` at `now_ns` (since the Unix epoch); returns the tail with the leader's epoch.

        The epoch is greater than every one before, and that is durable before this returns. Called again by the leader
        it gives a new epoch. Raises `LeaderElsewhere`, `JournalCorrupt`, `JournalForeign`, `JournalUnavailable`.
        """
        ...

    def append(self, record: Record) -> Awaitable[None] | None:
        """Stores `record`; it is durable when this returns None, or else when the awaitable is done without raising.

        Raises `Fenced` when its cell, epoch, first sequence or previous hash does not fit (no gaps, no overlaps),
        `JournalUnavailable` when nothing was stored, and `OutcomeUnknown`.
        """
        ...
