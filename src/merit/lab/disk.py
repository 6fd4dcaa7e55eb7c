"""The disk of a simulated cell: it remembers every record that there ever was, and has whoever wants to see what is removed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from random import Random

import msgspec

from merit.lab.violation import Violation
from merit.model.record import JournalCorrupt, Record
from merit.ports.journal import Fenced, JournalUnavailable
from merit.storage.memory_journal import MemoryDisk, MemoryJournal


class SimulatedDisk(MemoryDisk):
    """See the module. ``removing`` is called with the records that are about to go."""

    def __init__(self, cell: str) -> None:
        super().__init__(cell)
        self.ever: list[Record] = []
        self.removing: Callable[[Sequence[Record]], None] = lambda _: None

    def store(self, record: Record) -> None:
        """See `MemoryDisk.store`."""
        super().store(record)
        self.ever.append(record)

    def remove(self, count: int) -> None:
        """See `MemoryDisk.remove`."""
        self.removing(self.records[:count])
        super().remove(count)

    def between(self, first: int, last: int) -> list[Record]:
        """Of all records that there ever were those that begin with one of these events."""
        begin, end = (bisect_left(self.ever, at, key=lambda record: record.first) for at in (first, last + 1))
        return self.ever[begin:end]


class SimulatedReader(MemoryJournal):
    """Reads a journal for one process. ``misreads`` is asked of each record whether the disk gives it back with an error."""

    def __init__(self, disk: MemoryDisk, misreads: Callable[[], bool]) -> None:
        super().__init__(disk)
        self._misreads = misreads
        self.misread = False

    def scan(self, first: int | None = None, last: int | None = None) -> Iterator[Record | JournalCorrupt]:
        """See `JournalReader.scan`."""
        for one in super().scan(first, last):
            if isinstance(one, Record) and self._misreads():
                self.misread = True
                *rest, event = one.events
                yield msgspec.structs.replace(one, events=(*rest, event[:-1] + bytes([event[-1] ^ 1])))
            else:
                yield one


def wake_deposed(journal: MemoryJournal, record: Record, disk: SimulatedDisk, rng: Random) -> None:
    """Whoever led until he was stopped, and does not know that he leads no more, goes on where he was.

    Raises:
        Violation: what he does is not refused, or changes something.
    """
    before = len(disk.ever), disk.base, disk.tail
    deeds: list[Callable[[], object]] = [
        lambda: journal.append(record),
        lambda: journal.compact(disk.tail.next),
    ]
    rng.shuffle(deeds)
    journal.settle()
    for deed in deeds:
        try:
            deed()
        except (Fenced, JournalUnavailable):
            continue
        raise Violation("fenced", "", "what a leader did that had been deposed was not refused")
    if before != (len(disk.ever), disk.base, disk.tail):
        raise Violation("fenced", "", "a leader that had been deposed changed the journal")
    journal.crash()
