"""Walks through a journal and proves that it is whole: every record, the chain from one to the next, every Merkle
root."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

import msgspec

from merit.model.record import NO_HASH, JournalCorrupt, Record, Tail, after, verify, verify_chain, verify_events
from merit.ports.archive import ArchiveReader
from merit.ports.journal import JournalCompacted, JournalReader
from merit.storage.anchor_check import AnchorCheck
from merit.storage.history import History

PROBLEMS_MAX: Final = 1_000
"""How many problems a `Verification` names; beyond that they are only counted."""

_PROGRESS_RECORDS: Final = 256


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with the record that starts (or should start) at `sequence`."""

    sequence: int
    reason: str


class Verification(msgspec.Struct, frozen=True):
    """What `verify_journal` found. `first` and `last` are sequences of events, 0 in an empty journal; `ok` when nothing
    is wrong."""

    cell: str
    records: int
    events: int
    payloads: int
    first: int
    last: int
    last_hash: bytes
    epochs: int
    problem_count: int
    problems: tuple[Problem, ...]
    anchored: int = 0
    """Sequence of the last event that a signed anchor covers; 0: there are no anchors, or nobody asked."""
    anchors: int = 0
    keys: tuple[str, ...] = ()
    """With which the anchors are signed: public keys, hexadecimal."""

    @property
    def ok(self) -> bool:
        """Whether the journal is whole."""
        return self.problem_count == 0


def verified(records: Iterable[Record | JournalCorrupt], tail: Tail) -> Iterator[Record]:
    """Passes on `records` that follow `tail` as long as they are whole. Raises the first `JournalCorrupt`."""
    for record in records:
        if isinstance(record, JournalCorrupt):
            raise record
        tail = verify(record, tail)
        yield record


def verify_journal(
    journal: JournalReader,
    cell: str = "",
    progress: Callable[[int, int], None] | None = None,
    archive: ArchiveReader | None = None,
    keys: Collection[bytes] = (),
) -> Verification:
    """Checks the whole journal, from where it begins, and goes on after damage, so that all of it is named.

    `progress` is called now and then with the numbers of records and of events seen so far. With an `archive` its records
    are checked, too, and all of them are compared with its anchors; if there are `keys`, each must be signed with one of
    these. Raises what reading raises when it is not about single records: `JournalForeign`, `JournalUnavailable`,
    `ArchiveUnavailable`.
    """
    while True:
        verifier = _Verifier(progress)
        try:
            return verifier.walk(journal, cell, archive, keys)
        except JournalCompacted:  # what was to be read next has been removed meanwhile
            continue


class _Verifier:
    """One walk through a journal."""

    def __init__(self, progress: Callable[[int, int], None] | None) -> None:
        self._progress = progress
        self._records = self._events = self._payloads = 0
        self._problem_count = 0
        self._problems: list[Problem] = []

    def walk(
        self, journal: JournalReader, cell: str, archive: ArchiveReader | None, keys: Collection[bytes]
    ) -> Verification:
        """As `verify_journal`; raises `JournalCompacted` as well."""
        anchors = AnchorCheck(archive, keys, self._note) if archive is not None else None
        whole = History(journal, archive) if archive is not None else journal
        tail = whole.base()
        first = last = 0
        epochs: set[int] = set()
        chain_known = True
        for record in whole.scan(tail.next):
            if isinstance(record, JournalCorrupt):
                self._note(record.sequence, record.reason)
                chain_known = False
                continue
            # What follows damage cannot be compared with it; the chain is taken up again from there, and the gap was named.
            tail, chain_known = self._check(record, tail if chain_known else None), True
            if anchors is not None:
                anchors.take(record, tail.last_hash)
            first, last, cell = first or record.first, record.last, cell or record.cell
            epochs.add(record.epoch)
        if not self._records and not self._problem_count and tail.next > 1:
            self._note(tail.next, "there is no record, though compaction never removes the last one")
        if anchors is not None:
            anchors.finish(tail.next)
        self._say()
        return Verification(
            cell,
            self._records,
            self._events,
            self._payloads,
            first,
            last,
            tail.last_hash if self._records else NO_HASH,
            len(epochs),
            self._problem_count,
            tuple(self._problems),
            anchors.anchored if anchors is not None else 0,
            anchors.count if anchors is not None else 0,
            tuple(sorted(key.hex() for key in anchors.keys)) if anchors is not None else (),
        )

    def _check(self, record: Record, tail: Tail | None) -> Tail:
        try:
            if tail is not None:
                verify_chain(record, tail)
        except JournalCorrupt as error:
            self._note(error.sequence, error.reason)
        try:
            verify_events(record)
        except JournalCorrupt as error:
            self._note(error.sequence, error.reason)
        self._records += 1
        self._events += record.count
        self._payloads += len(record.payloads)
        if self._records % _PROGRESS_RECORDS == 0:
            self._say()
        return after(record)

    def _note(self, sequence: int, reason: str) -> None:
        self._problem_count += 1
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(Problem(sequence, reason))

    def _say(self) -> None:
        if self._progress is not None:
            self._progress(self._records, self._events)
