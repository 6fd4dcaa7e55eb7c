"""What readers of journals in databases do with rows; an adapter says how it gets them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final, Self

from merit.model.record import JournalCorrupt, Record, Tail
from merit.ports.journal import JournalCompacted
from merit.storage.record_row import HASH_COLUMN, RecordRow, decode_row
from merit.storage.verify import verified

SEQUENCE_MAX: Final = 2**63 - 1


class JournalRows(ABC):
    """What is the same in all of them of a `JournalReader` of `cell`."""

    def __init__(self, cell: str) -> None:
        self.cell = cell

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def base(self) -> Tail:
        """See `JournalReader.base`."""

    @abstractmethod
    def close(self) -> None:
        """See `JournalReader.close`."""

    @abstractmethod
    def _epoch(self) -> int:
        """The highest in which anybody has led."""

    @abstractmethod
    def _before(self, sequence: int) -> RecordRow | None:
        """The last record that starts before `sequence`."""

    @abstractmethod
    def _reach(self, sequence: int) -> tuple[int, int] | None:
        """First and last sequence of the last record that starts at `sequence` or before."""

    @abstractmethod
    def _records(self, start: int, last: int | None) -> Iterator[Record | JournalCorrupt]:
        """As `scan`, from the record that starts at `start`, or the first one after that."""

    def read(self, first: int | None = None, last: int | None = None) -> Iterator[Record]:
        """See `JournalReader.read`."""
        start = self._start(first)
        return verified(self._records(start, last), self._tail_before(start))

    def tail(self) -> Tail:
        """See `JournalReader.tail`."""
        tail = self._tail_before(SEQUENCE_MAX)
        return Tail(tail.next, tail.last_hash, max(tail.epoch, self._epoch()))

    def _start(self, sequence: int | None) -> int:
        """Where the record that contains `sequence` starts; `sequence` itself when none does. None: the first there is.

        Raises `JournalCompacted`.
        """
        if sequence is None:
            return self.base().next
        reach = self._reach(sequence)
        if reach is None:
            self._check_kept(sequence)
            return sequence
        return reach[0] if reach[1] >= sequence else sequence

    def _check_kept(self, sequence: int) -> None:
        first = self.base().next
        if sequence < first:
            raise JournalCompacted(self.cell, sequence, first)

    def _tail_before(self, sequence: int) -> Tail:
        """The tail of the records that start before `sequence`. Raises `JournalCorrupt` if the last one is damaged."""
        row = self._before(sequence)
        if row is not None:
            return checked_tail(self.cell, row)[0]
        base = self.base()
        if sequence == SEQUENCE_MAX:
            check_not_lost(self.cell, base)
        return base


def checked_tail(cell: str, row: RecordRow) -> tuple[Tail, int]:
    """The tail after the record of a row, and with which sequence that begins. Raises `JournalCorrupt`."""
    record = decode_row(cell, row)
    if isinstance(record, JournalCorrupt):
        raise record
    return Tail(record.last + 1, row[HASH_COLUMN], record.epoch), record.first


def check_not_lost(cell: str, base: Tail) -> None:
    """Raises `JournalCorrupt` for a journal without records which must have some."""
    if base.next > 1:
        raise JournalCorrupt(
            cell, base.next, "there is no record, though compaction never removes the last one: restore them"
        )
