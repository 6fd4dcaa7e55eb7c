"""A journal in memory, for the simulator and tests: the contract of the durable ones, plus planned crashes and faults.

A `MemoryDisk` is what survives: the durable records, the epoch, who leads. A `MemoryJournal` is what one process has
open on it. Nothing here is random; the simulator decides what happens when.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Generator, Iterable, Iterator
from typing import Final

import msgspec

from merit.model.record import JournalCorrupt, JournalError, Record, Tail, after
from merit.ports.journal import Fenced, JournalCompacted, JournalUnavailable, LeaderElsewhere, OutcomeUnknown
from merit.storage.verify import verified

_PORTION_RECORDS: Final = 2
"""Removed by one call of `compact`: more than one, and so few that whoever compacts has to call again."""


class FaultPlan(msgspec.Struct, frozen=True):
    """Which appends fail, by their number on the disk (1 is the first append ever tried), and how.

    `refused` fail with `JournalUnavailable`, nothing stored. The outcome of the others is unknown to the caller:
    `stored` are there, `lost` are not.
    """

    refused: frozenset[int] = frozenset()
    stored: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()


class MemoryDisk:
    """The durable part of a journal in memory; outlives the `MemoryJournal`s that are opened on it."""

    def __init__(self, cell: str, faults: FaultPlan | None = None) -> None:
        self.cell = cell
        self.faults = faults or FaultPlan()
        self.records: list[Record] = []
        self.base = Tail()
        self.tail = Tail()
        self.appends = 0
        """How many appends were tried, those that failed included; what the fault plan counts."""
        self.leader: MemoryJournal | None = None

    def depose(self) -> None:
        """Ends the leadership from outside, as when a lease runs out while its holder is frozen.

        Another one can lead then, and the old one will be fenced.
        """
        self.leader = None

    def store(self, record: Record) -> None:
        """Makes `record` durable; the caller has checked that it fits."""
        self.records.append(record)
        self.tail = after(record)

    def remove(self, count: int) -> None:
        """Removes the oldest records."""
        self.base = after(self.records[count - 1])
        # A list of its own: whoever reads has the one that was there.
        self.records = self.records[count:]


class PendingAppend:
    """The awaitable of an append to a `deferred` journal: `done` when it has been settled, with `error` or without."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.done = False
        self.error: JournalError | None = None

    def __await__(self) -> Generator[None, None, None]:
        """Waits by yielding to whatever loop drives it, so that no particular one is needed."""
        while not self.done:
            yield
        if self.error is not None:
            raise self.error


class MemoryJournal:
    """A `Journal` on a `MemoryDisk`.

    With `deferred`, `append` returns a `PendingAppend` that becomes durable with `settle`; until then a `crash` loses
    it. Records may be appended behind pending ones.
    """

    def __init__(self, disk: MemoryDisk, *, deferred: bool = False) -> None:
        self._disk = disk
        self._deferred = deferred
        self._pending: list[PendingAppend] = []
        self._expected = Tail()
        self._holder = ""
        self._failure: str | None = None

    @property
    def cell(self) -> str:
        """Name of the cell whose records these are."""
        return self._disk.cell

    @property
    def pending(self) -> int:
        """How many appends are not durable yet."""
        return len(self._pending)

    def lead(self, holder: str, now_ns: int) -> Tail:
        """See `Journal.lead`."""
        self._check_usable()
        leader = self._disk.leader
        if leader is not None and leader is not self:
            raise LeaderElsewhere(
                f"{leader._holder!r} leads the journal of cell {self.cell!r}: stop it before {holder!r} can lead",
                leader._holder,
            )
        if self._pending:
            raise JournalUnavailable(f"{len(self._pending)} appends are pending: settle them before leading anew")
        tail = self._disk.tail
        self._disk.tail = self._expected = Tail(tail.next, tail.last_hash, tail.epoch + 1)
        self._disk.leader, self._holder = self, holder
        return self._expected

    def append(self, record: Record) -> Awaitable[None] | None:
        """See `Journal.append`."""
        self._check_usable()
        self._check_fits(record)
        self._disk.appends += 1
        number, faults = self._disk.appends, self._disk.faults
        if number in faults.refused:
            raise self._fail(
                JournalUnavailable(f"append {number} was planned to fail: close this journal and open it again")
            )
        if number in faults.stored:
            self.settle()
            self._disk.store(record)
        if number in faults.stored or number in faults.lost:
            raise self._fail(
                OutcomeUnknown(f"append {number} was planned to end unknown: open the journal anew and read its tail")
            )
        self._expected = after(record)
        if not self._deferred:
            self._disk.store(record)
            return None
        pending = PendingAppend(record)
        self._pending.append(pending)
        return pending

    def settle(self, count: int | None = None) -> None:
        """Makes the first `count` pending appends durable (default: all); `Fenced` when somebody else leads by now."""
        count = len(self._pending) if count is None else count
        settled, self._pending = self._pending[:count], self._pending[count:]
        for pending in settled:
            if self._disk.leader is self:
                self._disk.store(pending.record)
            else:
                pending.error = self._fenced(pending.record, "leads no more")
            pending.done = True

    def crash(self) -> None:
        """The process dies: what is not durable is lost, and so is the leadership. This object is of no more use."""
        self._fail(JournalUnavailable("the process has crashed"))
        self._release()

    def read(self, first: int | None = None, last: int | None = None) -> Iterator[Record]:
        """See `JournalReader.read`."""
        start = self._index_of(first)
        tail = after(self._disk.records[start - 1]) if start else self._disk.base
        return verified(self.scan(first, last), tail)

    def base(self) -> Tail:
        """See `JournalReader.base`."""
        self._check_usable()
        return self._disk.base

    def scan(self, first: int | None = None, last: int | None = None) -> Iterator[Record | JournalCorrupt]:
        """See `JournalReader.scan`."""
        self._check_usable()
        records = self._disk.records
        for index in range(self._index_of(first), len(records)):
            if last is not None and records[index].first > last:
                return
            if first is None or records[index].last >= first:
                yield records[index]

    def tail(self) -> Tail:
        """See `JournalReader.tail`."""
        self._check_usable()
        return self._disk.tail

    def size_bytes(self) -> int:
        """The bytes of all events and payloads."""
        return sum(sum(map(len, _blocks(record))) for record in self._disk.records)

    def compact(self, until: int) -> int:
        """See `Journal.compact`."""
        self._check_usable()
        if self._disk.leader is not self:
            raise Fenced(f"nothing was removed before {until}: this journal does not lead, or does so no more")
        portion = self._disk.records[:-1][:_PORTION_RECORDS]
        count = sum(1 for record in portion if record.last < until)
        if count:
            self._disk.remove(count)
        return self._disk.base.next

    def close(self) -> None:
        """See `JournalReader.close`."""
        self._fail(JournalUnavailable("the journal is closed: open it again"))
        self._release()

    def _index_of(self, sequence: int | None) -> int:
        if sequence is None:
            return 0
        if sequence < self._disk.base.next:
            raise JournalCompacted(self.cell, sequence, self._disk.base.next)
        return max(bisect_right(self._disk.records, sequence, key=lambda record: record.first) - 1, 0)

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise JournalUnavailable(self._failure)

    def _check_fits(self, record: Record) -> None:
        if record.cell != self._disk.cell:
            raise self._fenced(record, f"the journal belongs to cell {self._disk.cell!r}")
        if self._disk.leader is not self:
            raise self._fenced(record, "this journal does not lead, or does so no more")
        if (record.first, record.previous, record.epoch) != (
            self._expected.next,
            self._expected.last_hash,
            self._expected.epoch,
        ):
            raise self._fenced(
                record, f"sequence {self._expected.next} of epoch {self._expected.epoch} and its hash were expected"
            )

    def _fenced(self, record: Record, reason: str) -> Fenced:
        return Fenced(f"record {record.first} of cell {record.cell!r} and epoch {record.epoch} was refused: {reason}")

    def _fail(self, error: JournalError) -> JournalError:
        """Fail-stop: whatever is pending is lost with it, and nothing more is taken."""
        self._failure = str(error)
        for pending in self._pending:
            pending.done, pending.error = True, JournalUnavailable(self._failure)
        self._pending.clear()
        return error

    def _release(self) -> None:
        if self._disk.leader is self:
            self._disk.leader = None


def _blocks(record: Record) -> Iterable[bytes]:
    yield from record.events
    yield from record.payloads
