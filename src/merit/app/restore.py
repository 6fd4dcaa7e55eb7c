"""From a snapshot and the journal after it to the state at the journal's end."""

from __future__ import annotations

import logging
from collections.abc import Callable

from merit.core.codec import decode_state, fold
from merit.core.state import State
from merit.model.record import NO_HASH, JournalCorrupt, JournalError, Record
from merit.ports.journal import JournalCompacted, JournalReader
from merit.ports.snapshots import SnapshotStore

log = logging.getLogger("merit")

_FOLD_PROGRESS_RECORDS = 2_000


class NoBeginning(JournalError):
    """There is no state to begin with: the journal's first records have been compacted away, and no snapshot that could
    stand for them can be used."""


def restore(
    reader: JournalReader,
    snapshots: SnapshotStore,
    progress: Callable[[int], None] = lambda _: None,
    last_wanted: int | None = None,
) -> tuple[State, Record | None]:
    """The state at the journal's end, and the last record (None when there is none after the snapshot).

    Args:
        reader: of the journal.
        snapshots: the latest one that this version can read is where to begin.
        progress: called now and then with the sequence reached; first with that of the snapshot, or 0.
        last_wanted: the state after this event, with which a record ends, in place of that at the end.

    Raises:
        JournalCorrupt: a record is damaged, or the snapshot is of another journal.
        JournalCompacted: the journal does not reach back so far.
        NoBeginning: nothing stands for what has been compacted away.
        SnapshotUnavailable: the snapshots cannot be read.
    """
    state, expected = beginning(reader, snapshots, last_wanted)
    progress(state.sequence)
    last: Record | None = None
    records = reader.read(state.sequence + 1, last_wanted) if last_wanted != state.sequence else ()
    for count, record in enumerate(records):
        if last is None:
            check_follows(record, state, expected)
        fold(state, record)
        last = record
        if count % _FOLD_PROGRESS_RECORDS == 0:
            progress(state.sequence)
    if last_wanted is None and state.sequence + 1 != reader.tail().next:
        reason = f"the snapshot is of sequence {state.sequence}, but the journal ends before it: its end was lost"
        raise JournalCorrupt(reader.cell, reader.tail().next, reason)
    return state, last


def beginning(reader: JournalReader, snapshots: SnapshotStore, until: int | None = None) -> tuple[State, bytes]:
    """Where to begin to fold, at the latest with the event after ``until``: the state, and the hash of the record that the
    next one has to follow.

    Raises:
        JournalCompacted, NoBeginning, SnapshotUnavailable: as ``restore``.
    """
    first = reader.base().next
    wanted, unusable = until, []
    while (snapshot := snapshots.latest(wanted)) is not None and snapshot.sequence + 1 >= first:
        try:
            return decode_state(snapshot.data, snapshot.fold_version), snapshot.record_hash
        except ValueError as error:
            unusable.append(f"that of sequence {snapshot.sequence:,}: {error}")
        wanted = snapshot.sequence - 1
    if unusable:
        log.warning("snapshots are passed over: %s", "; ".join(unusable))
    if first == 1:
        return State(), NO_HASH
    if until is not None and until + 1 < first:
        raise JournalCompacted(reader.cell, until + 1, first)
    unusable += snapshots.damaged
    raise NoBeginning(
        f"the journal of cell {reader.cell!r} begins at sequence {first:,}, since what is older has been compacted away, and "
        f"no snapshot can be used to begin with ({'; '.join(unusable) or 'there is none'}): restore "
        f"the state from a copy, or use the version of Merit that wrote the snapshots"
    )


def check_follows(record: Record, state: State, expected: bytes) -> None:
    """Raises `JournalCorrupt` if the first record after a snapshot is not the one that followed it: ``expected`` is the hash
    that stands in the snapshot."""
    if state.sequence and record.previous != expected:
        reason = f"it does not follow the snapshot of sequence {state.sequence}: they are of different journals"
        raise JournalCorrupt(record.cell, record.first, reason)
