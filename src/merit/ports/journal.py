"""The journal's port: an append-only, durable, fenced log of records, with one writer at a time per cell.

The order of things: `lead` once, then `append` records that follow the tail it returned. Anything that goes wrong while
writing ends the leadership of that journal object (fail-stop): it refuses every further append, and is to be closed and
opened again, whose `lead` tells what is stored. Nothing is tried again blindly: after a failed fsync, neither SQLite
nor the kernel knows what the disk holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Final, Protocol

from merit.model.record import JournalCorrupt, JournalError, JournalForeign, Record, Tail

__all__ = [
    "LEASE_S",
    "Fenced",
    "Journal",
    "JournalCompacted",
    "JournalCorrupt",
    "JournalError",
    "JournalForeign",
    "JournalReader",
    "JournalUnavailable",
    "LeaderElsewhere",
    "LeasedJournal",
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


class JournalCompacted(JournalError):
    """What was asked for is older than what the journal still has, which begins with the event `first`."""

    def __init__(self, cell: str, wanted: int, first: int) -> None:
        super().__init__(
            f"journal of cell {cell!r}: sequence {wanted:,} has been compacted away; the journal begins at {first:,}"
        )
        self.wanted = wanted
        self.first = first


class JournalReader(Protocol):
    """Reads a journal, also while somebody else writes it. Sees durable records only."""

    @property
    def cell(self) -> str:
        """Name of the cell whose records these are."""
        ...

    def read(self, first: int | None = None, last: int | None = None) -> Iterator[Record]:
        """Verified records in order, from the one that contains `first` to the one that contains `last`.

        Without `first`, from the first one there is; without `last`, to the last one there is. Raises `JournalCompacted`,
        `JournalCorrupt` at the first record that is damaged, missing or out of the chain; `JournalForeign`,
        `JournalUnavailable`.
        """
        ...

    def base(self) -> Tail:
        """Where the journal begins: sequence of its first event, hash and epoch of the record before, which has been
        compacted away; `Tail()` while nothing has been. Raises `JournalUnavailable`."""
        ...

    def scan(self, first: int | None = None, last: int | None = None) -> Iterator[Record | JournalCorrupt]:
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
    """A journal of one cell that can be led and written; records of another cell are refused."""

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

    def compact(self, until: int) -> int:
        """Removes records whose events are all before the sequence `until`, some of them: so few that appends do not wait
        for long. To be called again, from any thread, until what it returns is no longer below: the sequence at which the
        journal begins. What it begins with stays verifiable: `base` is stored together with the removal.

        Never removes the last record. Raises `JournalUnavailable`, and `Fenced` if somebody else leads by now.
        """
        ...


LEASE_S: Final = 5.0
"""How long a leader that is not heard of keeps the lead, unless it is said otherwise."""


class LeasedJournal(Journal, Protocol):
    """A journal that is led for a time: who is not heard of for ``lease_s`` may be followed by somebody else, which his
    appends and renewals find out."""

    @property
    def lease_s(self) -> float:
        """For how long `lead` and `renew` hold, in seconds."""
        ...

    async def renew(self) -> None:
        """Extends the lease, on the loop of the appends. Raises `Fenced` when somebody else leads by now, or the store does
        not keep any more what is durable; and `JournalUnavailable`: to be tried again as long as the lease may last."""
        ...
