"""Walks through a journal and proves that it is whole: every record, the chain from one to the next, every Merkle
root."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from merit.model.record import NO_HASH, JournalCorrupt, Record, Tail, after, verify, verify_chain, verify_events
from merit.ports.journal import JournalReader

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
    journal: JournalReader, cell: str = "", progress: Callable[[int, int], None] | None = None
) -> Verification:
    """Checks the whole journal and goes on after damage, so that all of it is named.

    `progress` is called now and then with the numbers of records and of events seen so far. Raises what reading raises
    when it is not about single records: `JournalForeign`, `JournalUnavailable`.
    """
    records = events = payloads = first = last = problem_count = 0
    epochs: set[int] = set()
    problems: list[Problem] = []
    tail = Tail()

    def note(error: JournalCorrupt) -> None:
        nonlocal problem_count
        problem_count += 1
        if len(problems) < PROBLEMS_MAX:
            problems.append(Problem(error.sequence, error.reason))

    chain_known = True
    for record in journal.scan():
        if isinstance(record, JournalCorrupt):
            note(record)
            chain_known = False
            continue
        # What follows damage cannot be compared with it; the chain is taken up again from there, and the gap was named.
        if chain_known:
            try:
                verify_chain(record, tail)
            except JournalCorrupt as error:
                note(error)
        try:
            verify_events(record)
        except JournalCorrupt as error:
            note(error)
        tail, chain_known = after(record), True
        records, events, payloads = records + 1, events + record.count, payloads + len(record.payloads)
        first, last, cell = first or record.first, record.last, cell or record.cell
        epochs.add(record.epoch)
        if progress is not None and records % _PROGRESS_RECORDS == 0:
            progress(records, events)
    if progress is not None:
        progress(records, events)
    last_hash = tail.last_hash if records else NO_HASH
    return Verification(
        cell, records, events, payloads, first, last, last_hash, len(epochs), problem_count, tuple(problems)
    )
