"""A journal up to an event of the past, as if nothing had come after it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from merit.model.record import JournalCorrupt, Record, Tail, record_hash
from merit.ports.journal import JournalReader


class JournalUntil:
    """A ``JournalReader`` that ends with the event ``last``. Should that stand in the middle of a record, the record that is
    read last is shorter than the one of which its hash speaks; whoever folds it need not know.

    Args:
        reader: of the whole journal.
        last: sequence of an event that the journal has, or that of the one before its first.
    """

    def __init__(self, reader: JournalReader, last: int) -> None:
        self._reader = reader
        self._last = last

    @property
    def cell(self) -> str:
        """See ``JournalReader``."""
        return self._reader.cell

    def read(self, first: int | None = None, last: int | None = None) -> Iterator[Record]:
        """See ``JournalReader``."""
        end = self._last if last is None else min(last, self._last)
        if end < (self._first() if first is None else first):
            return
        for record in self._reader.read(first, end):
            yield self._cut(record)

    def scan(self, first: int | None = None, last: int | None = None) -> Iterator[Record | JournalCorrupt]:
        """See ``JournalReader``."""
        end = self._last if last is None else min(last, self._last)
        if end < (self._first() if first is None else first):
            return
        for record in self._reader.scan(first, end):
            yield self._cut(record) if isinstance(record, Record) else record

    def base(self) -> Tail:
        """See ``JournalReader``."""
        return self._reader.base()

    def tail(self) -> Tail:
        """See ``JournalReader``."""
        last = next(iter(self._reader.read(self._last, self._last)), None) if self._last >= self._first() else None
        return self.base() if last is None else Tail(self._last + 1, record_hash(last), last.epoch)

    def size_bytes(self) -> int:
        """See ``JournalReader``; of the whole journal."""
        return self._reader.size_bytes()

    def close(self) -> None:
        """See ``JournalReader``."""
        self._reader.close()

    def _first(self) -> int:
        return self.base().next

    def _cut(self, record: Record) -> Record:
        count = self._last - record.first + 1
        if count >= record.count:
            return record
        return msgspec.structs.replace(record, events=record.events[:count], count=count)
