"""A journal from where its archive begins: first the archived records, which have no payloads, then those that it still has."""

from __future__ import annotations

from collections.abc import Iterator

from merit.model.record import JournalCorrupt, Record, Tail, verify
from merit.ports.archive import ArchiveReader, ArchiveUnavailable
from merit.ports.journal import JournalCompacted, JournalReader


class History:
    """A `JournalReader` of both; the journal may be compacted meanwhile. It closes neither."""

    def __init__(self, journal: JournalReader, archive: ArchiveReader) -> None:
        self._journal = journal
        self._archive = archive

    @property
    def cell(self) -> str:
        """See `JournalReader.cell`."""
        return self._journal.cell

    def base(self) -> Tail:
        """See `JournalReader.base`. Of archived records it is what the first of them says of the one before."""
        base, held = self._journal.base(), self._archive.held()
        if not held.first or held.first >= base.next:
            return base
        try:
            for record in self._archive.records(held.first, held.first):
                return Tail(record.first, record.previous, 0)
        except ArchiveUnavailable:  # the segment is damaged: who reads from there on is told
            return Tail(held.first)
        return base

    def read(self, first: int | None = None, last: int | None = None) -> Iterator[Record]:
        """See `JournalReader.read`. The chain is verified from the first record on that is read."""
        tail: Tail | None = None
        for record in self.scan(first, last):
            if isinstance(record, JournalCorrupt):
                raise record
            tail = verify(record, tail or Tail(record.first, record.previous))
            yield record

    def scan(self, first: int | None = None, last: int | None = None) -> Iterator[Record | JournalCorrupt]:
        """See `JournalReader.scan`. A damaged segment is damage of all that the archive has from there on."""
        begins = self.base().next
        start = begins if first is None else first
        if start < begins:
            raise JournalCompacted(self.cell, start, begins)
        while last is None or start <= last:
            base = self._journal.base().next
            if start < base:
                until = base - 1 if last is None else min(last, base - 1)
                try:
                    for record in self._archive.records(start, until):
                        if record.last < base:
                            yield record
                            start = record.last + 1
                except ArchiveUnavailable as error:
                    yield JournalCorrupt(self.cell, start, str(error))
                start = until + 1
                continue
            try:
                for one in self._journal.scan(start, last):
                    yield one
                    start = one.last + 1 if isinstance(one, Record) else one.sequence + 1
            except JournalCompacted:  # by then it has been archived
                continue
            return

    def tail(self) -> Tail:
        """See `JournalReader.tail`."""
        return self._journal.tail()

    def size_bytes(self) -> int:
        """See `JournalReader.size_bytes`; with the archived segments."""
        return self._journal.size_bytes() + self._archive.held().segments_bytes

    def close(self) -> None:
        """Nothing: whoever opened journal and archive closes them."""
